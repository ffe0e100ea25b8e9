"""Cards of the queries worth looking at: worst, doubtful and some good ones, with candidate, warp and score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from html import escape

import cv2
import numpy as np

from geowarp_ros.evaluation import page, words
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.run import Answered, Run
from geowarp_ros.evaluation.scene import title_of
from geowarp_ros.pictures import score_text, warp_to_frame
from geowarp_ros.types import FloatArray, Image, NoFix

CandidateImage = Callable[[int], Image]
"""Gallery row -> its image."""

SHOWN_WITH_IMAGES = 300
"""Maximum number of images with a picture beside the map; a longer drive has one for every N-th image, so that the
file opens at once."""

_CARD_PX = 300
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
        f'<article class="card"><div class="views">{"".join(_views(item, candidate_image))}</div>'
        f'<h3><span class="{mood}">{escape(verdict)}</span></h3>'
        f'<p title="{escape(item.name)}">{escape(_called(run, item))}</p><p>{escape(_scores(item))}</p></article>'
    )


def _views(item: Answered, candidate_image: CandidateImage | None) -> list[str]:
    """Return query and candidate with their quads, then both as warped to the common viewpoint (HTML)."""
    if not item.thumbnail:
        return []
    query, best = _decoded(item.thumbnail), item.best
    if best is None or candidate_image is None:
        return [_view(query, "query")]
    candidate = candidate_image(best.index)
    if best.quad_q is None or best.quad_p is None:
        return [_view(query, "query"), _view(candidate, "candidate")]
    return [
        _view(query, "query", best.quad_q),
        _view(candidate, "candidate", best.quad_p),
        _view(warp_to_frame(query, best.quad_q), "query, warped"),
        _view(warp_to_frame(candidate, best.quad_p), "candidate, warped"),
    ]


def _view(image: Image, caption: str, quad: FloatArray | None = None) -> str:
    outline = ""
    if quad is not None:
        points = " ".join(f"{x:.3f},{y:.3f}" for x, y in quad)
        outline = f'<svg viewBox="-1 -1 2 2" preserveAspectRatio="none"><polygon points="{points}"/></svg>'
    source = page.image_source(image, 78, _CARD_PX)
    shown = f'<img loading="lazy" src="{source}" alt="{caption}">{outline}'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


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


def beside_the_map(
    run: Run, first: int, place_rows: Mapping[str, int], candidate_image: CandidateImage | None
) -> dict[str, dict[int, str]]:
    """Return the pictures beside the map, as data URIs by kind and row; some SHOWN_WITH_IMAGES images have them.

    Args:
        run: The run.
        first: The image that is shown first; it has pictures in any case.
        place_rows: Name of a candidate -> its row in the map.
        candidate_image: Reads a gallery image; None: only the queries are shown.
    """
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
