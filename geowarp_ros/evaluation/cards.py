"""Cards of the queries worth looking at: worst, doubtful and some good ones, with candidate, warp and score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import cv2
import numpy as np

from geowarp_ros.evaluation import page, words
from geowarp_ros.evaluation.exports import rows_of
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.run import Answered, Run
from geowarp_ros.evaluation.scene import Ground, drive_columns, positions, scene, title_of
from geowarp_ros.pictures import Side, match_picture, score_text
from geowarp_ros.types import FloatArray, Image, NoFix

CandidateImage = Callable[[int], Image]
"""Gallery row -> its image."""

SHOWN_WITH_IMAGES = 300
"""Maximum number of images with a picture beside the map; a longer drive has one for every N-th image, so that the
file opens at once."""

MOST_PLACES = 20_000
"""Maximum number of gallery places in the map but for the candidates; of more, every N-th is drawn."""

_CARD_PX = 520
_HOVER_PX = 320
_CARDS = 6


def sections(run: Run, judged: Judged, candidate_image: CandidateImage | None) -> list[str]:
    """Return the cards as HTML sections; none if the images are not at hand."""
    if not any(item.thumbnail for item in run.judged):
        return []
    correct = run.criteria.correct_within_m
    worst, doubtful, good = choose(judged, correct)
    near = not (judged.error_m[worst] > correct).any()
    found = []
    for heading, lead, rows in (
        ("The worst fixes", f"All of them within {correct:g} m." if near else "Farthest from the truth.", worst),
        ("The doubtful", "Confidence nearest to the threshold between fix and no fix.", doubtful),
        ("Some good ones", "Spread over the drive.", good),
    ):
        if rows:
            shown = "".join(_card(run, run.judged[row], judged.error_m[row], candidate_image) for row in rows)
            found.append(f'<h2>{heading}</h2><p>{lead}</p><div class="cards">{shown}</div>')
    return found


def choose(judged: Judged, correct_within_m: float) -> tuple[list[int], list[int], list[int]]:
    """Return rows of the worst fixes, the most doubtful answers and some good fixes, each row at most once.

    The worst are the false ones; without any, the farthest of the right ones.
    """
    errors, confidence = judged.error_m, judged.confidence
    fixed = np.flatnonzero(judged.fixed & np.isfinite(errors)).tolist()
    false = [row for row in fixed if errors[row] > correct_within_m]
    worst = sorted(false or fixed, key=lambda row: -errors[row])[:_CARDS]
    known = np.isfinite(confidence)
    # the confidence that parts fixes from no-fixes, as it shows in the answers
    boundary = max(confidence[known & ~judged.fixed], default=min(confidence[known], default=0.0))
    others = [row for row in np.flatnonzero(known).tolist() if row not in worst]
    doubtful = sorted(others, key=lambda row: abs(confidence[row] - boundary))[:_CARDS]
    good = [row for row in fixed if errors[row] <= correct_within_m and row not in {*worst, *doubtful}]
    return worst, doubtful, good[:: max(1, len(good) // _CARDS)][:_CARDS]


def _card(run: Run, item: Answered, error: float, candidate_image: CandidateImage | None) -> str:
    fixed = item.answer.fix is not None
    mood = "doubt" if not fixed else "good" if error <= run.criteria.correct_within_m else "bad"
    verdict = f"{words.metres(error)} off" if fixed else _verdict(item)
    return (
        f'<article class="card">{_picture(item, candidate_image)}'
        f'<h3><span class="{mood}">{escape(verdict)}</span></h3>'
        f'<p title="{escape(item.name)}">{escape(_called(run, item))}</p><p>{escape(_scores(item))}</p></article>'
    )


def _picture(item: Answered, candidate_image: CandidateImage | None) -> str:
    """Return query and candidate with their quads, and both as warped to the common viewpoint (HTML)."""
    if not item.thumbnail:
        return ""
    best, candidate = item.best, None
    query = Side(_decoded(item.thumbnail), "query", best.quad_q if best else None)
    if best is not None and candidate_image is not None:
        candidate = Side(candidate_image(best.index), "best candidate", best.quad_p)
    return matched(match_picture(query, candidate, width_px=_CARD_PX))


def matched(picture: Image) -> str:
    """Return a picture of a match as an element of the page."""
    source = page.image_source(picture, 80, 0)
    return f'<img class="matched" loading="lazy" src="{source}" alt="query and best candidate">'


def _verdict(item: Answered) -> str:
    result = item.answer.result
    return f"no fix, {result.reason.replace('_', ' ')}" if isinstance(result, NoFix) else "fix"


def _measured(item: Answered, digits: int) -> list[tuple[str, str]]:
    """Return (name, value) of confidence, distance and score, as far as they are known."""
    confidence, best = item.answer.confidence, item.best
    found = [("confidence", f"{confidence:.{digits}f}")] if math.isfinite(confidence) else []
    if best:
        found.append(("distance", f"{best.distance:.3f}"))
        if best.score is not None:
            found.append(("score", score_text(best.score, best.score_unit)))
    return found


def _facts(item: Answered, error: float) -> list[tuple[str, str]]:
    known = [("error" if item.answer.fix else "would be", words.metres(error))] if math.isfinite(error) else []
    return [("answer", _verdict(item)), *known, *_measured(item, 3)]


def _scores(item: Answered) -> str:
    parts = [f"{name} {value}" for name, value in _measured(item, 2)]
    if item.best:
        if unwarped := score_text(item.best.score_unwarped, item.best.score_unit):
            parts[-1] += f" (unwarped {unwarped})"
        parts.append(f"candidate {item.best.place.name}")
    return ", ".join(parts)


def hover_texts(run: Run, judged: Judged) -> list[str]:
    """Return what hovering over each image's point says (HTML of Plotly)."""
    found = []
    for item, error in zip(run.judged, judged.error_m, strict=True):
        like = [f"like {item.best.place.name}"] if item.best else []
        lines = [_called(run, item), *(f"{name} {value}" for name, value in _facts(item, error)), *like]
        found.append("<br>".join(escape(line) for line in lines))
    return found


def map_scene(
    run: Run, first: int, gallery_m: FloatArray | None, candidate_image: CandidateImage | None, **parts: Any
) -> dict[str, Any]:
    """Return what the map shows; a very large gallery is thinned, but for the candidates.

    Args:
        run: The run, with at least one answer.
        first: The image that is shown first.
        gallery_m: (G, 2) east and north (m) of the gallery's places in the run's frame.
        candidate_image: Reads a gallery image; None: only the queries are shown.
        parts: More of the scene.
    """
    ground = Ground(run.frame.datum_latitude_deg, run.frame.datum_longitude_deg)
    best = {item.best.place.name: item.best.index for item in run.answered if item.best}
    enu = np.zeros((0, 2)) if gallery_m is None else gallery_m
    wanted = [index for index in best.values() if index < len(enu)]
    kept = np.unique([*range(0, len(enu), -(-len(enu) // MOST_PLACES) or 1), *wanted]).astype(int)
    latitude, longitude, _ = run.frame.to_geodetic(np.column_stack([enu[kept], np.zeros(len(kept))]))
    place_rows = {name: int(np.searchsorted(kept, index)) for name, index in best.items() if index < len(enu)}
    names: list[str | None] = [None] * len(kept)
    for name, row in place_rows.items():
        names[row] = name
    return scene(
        "drive",
        run.title,
        ground,
        places=positions(ground(latitude, longitude)) | {"name": names},
        drive=drive_columns(rows_of(run), ground, place_rows),
        correct_within_m=run.criteria.correct_within_m,
        first=first,
        pictures=_beside_the_map(run, first, place_rows, candidate_image),
        no_images="every N-th image of a long drive has pictures here; 'geowarp view' shows all of them",
        **parts,
    )


def _beside_the_map(
    run: Run, first: int, place_rows: Mapping[str, int], candidate_image: CandidateImage | None
) -> dict[str, dict[int, str]]:
    """Return the pictures beside the map, as data URIs by kind and row, of some SHOWN_WITH_IMAGES images."""
    step = max(1, math.ceil(len(run.answered) / SHOWN_WITH_IMAGES))
    found: dict[str, dict[int, str]] = {"query": {}, "place": {}}
    for row, item in enumerate(run.answered):
        if row % step and row != first:
            continue
        if item.thumbnail:
            found["query"][row] = page.image_source(_decoded(item.thumbnail), 65, _HOVER_PX)
        place = place_rows.get(item.best.place.name) if item.best else None
        if item.best and candidate_image and place is not None and place not in found["place"]:
            found["place"][place] = page.image_source(candidate_image(item.best.index), 65, _HOVER_PX)
    return found


def _called(run: Run, item: Answered) -> str:
    return title_of(item.name, item.stamp_ns, run.answered[0].stamp_ns)


def _decoded(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None  # we encoded it
    return np.asarray(image[..., ::-1], np.uint8)
