"""The queries worth looking at: the worst, the doubtful and some good ones, with candidate, warp and score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
import torch

from geowarp_ros.evaluation import page, words
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.run import Answered, Run, jpeg
from geowarp_ros.geometry import warp
from geowarp_ros.types import Fix, FloatArray, Image

CandidateImage = Callable[[int], Image]
"""Gallery row -> its image."""

SHOWN_WITH_IMAGES = 300
"""Of a longer drive every N-th image has its picture beside the map: the file must stay one that opens at once."""

_CARD_PX = 300
_HOVER_PX = 240
_CARDS = 6


def sections(run: Run, judged: Judged, candidate_image: CandidateImage | None) -> list[str]:
    """Return the galleries as HTML sections; none where the images are not at hand."""
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
            shown = "".join(_card(run.judged[row], judged.error_m[row], correct, candidate_image) for row in rows)
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
    known = [row for row in np.flatnonzero(np.isfinite(confidence)).tolist() if row not in worst]
    boundary = _boundary(judged)
    doubtful = sorted(known, key=lambda row: abs(confidence[row] - boundary))[:_CARDS]
    good = [row for row in fixed if errors[row] <= correct_within_m and row not in {*worst, *doubtful}]
    return worst, doubtful, good[:: max(1, len(good) // _CARDS)][:_CARDS]


def _boundary(judged: Judged) -> float:
    """The confidence that parts fixes from no-fixes, as it shows in the answers."""
    confident, lost = judged.confidence[judged.fixed], judged.confidence[~judged.fixed]
    if not len(lost):
        return float(np.nanmin(confident)) if len(confident) else 0.0
    return float(np.nanmax(lost))


def _card(item: Answered, error: float, correct: float, candidate_image: CandidateImage | None) -> str:
    fixed = isinstance(item.answer, Fix)
    mood = "doubt" if not fixed else "good" if error <= correct else "bad"
    verdict = f"{words.metres(error)} off" if fixed else _verdict(item)
    return (
        f'<article class="card"><div class="views">{"".join(_views(item, candidate_image))}</div>'
        f'<h3><span class="{mood}">{escape(verdict)}</span></h3>'
        f"<p>{escape(item.name)}</p><p>{escape(_scores(item))}</p></article>"
    )


def _views(item: Answered, candidate_image: CandidateImage | None) -> list[str]:
    """Query and candidate with their quads, then both as warped to the common viewpoint."""
    if not item.thumbnail:
        return []
    query = _decoded(item.thumbnail)
    best = item.answer.candidates[0] if item.answer.candidates else None
    if best is None or candidate_image is None:
        return [_view(query, "query")]
    candidate = candidate_image(best.index)
    if best.quad_q is None or best.quad_p is None:
        return [_view(query, "query"), _view(candidate, "candidate")]
    return [
        _view(query, "query", best.quad_q),
        _view(candidate, "candidate", best.quad_p),
        _view(_warped(query, best.quad_q), "query, warped"),
        _view(_warped(candidate, best.quad_p), "candidate, warped"),
    ]


def _view(image: Image, caption: str, quad: FloatArray | None = None) -> str:
    outline = ""
    if quad is not None:
        points = " ".join(f"{x:.3f},{y:.3f}" for x, y in quad)
        outline = f'<svg viewBox="-1 -1 2 2" preserveAspectRatio="none"><polygon points="{points}"/></svg>'
    source = page.data_uri(jpeg(image, _CARD_PX))
    shown = f'<img loading="lazy" src="{source}" alt="{caption}">{outline}'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def _warped(image: Image, quad: FloatArray) -> Image:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    warped = warp(pixels, torch.from_numpy(np.asarray(quad, np.float32))[None])
    return np.asarray(warped[0].permute(1, 2, 0).round().clamp(0, 255).byte())


def _verdict(item: Answered) -> str:
    return "fix" if isinstance(item.answer, Fix) else f"no fix, {item.answer.reason.replace('_', ' ')}"


def _facts(item: Answered, error: float) -> list[tuple[str, str]]:
    fixed = isinstance(item.answer, Fix)
    facts = [("answer", _verdict(item))]
    if math.isfinite(error):
        facts.append(("error" if fixed else "would be", words.metres(error)))
    if math.isfinite(item.answer.confidence):
        facts.append(("confidence", f"{item.answer.confidence:.3f}"))
    if item.answer.candidates:
        best = item.answer.candidates[0]
        facts.append(("distance", f"{best.distance:.3f}"))
        if best.score is not None:
            facts.append(("score", f"{best.score:.1f}"))
    return facts


def _scores(item: Answered) -> str:
    parts = [f"confidence {item.answer.confidence:.2f}"] if math.isfinite(item.answer.confidence) else []
    if item.answer.candidates:
        best = item.answer.candidates[0]
        parts.append(f"distance {best.distance:.3f}")
        if best.score is not None:
            unwarped = "" if best.score_unwarped is None else f" (unwarped {best.score_unwarped:.1f})"
            parts.append(f"score {best.score:.1f}{unwarped}")
        parts.append(f"candidate {best.place.name}")
    return ", ".join(parts)


def hover(item: Answered, error: float) -> dict[str, Any]:
    """Return what the panel beside the map shows of one image."""
    candidates = item.answer.candidates
    return {
        "name": item.name,
        "facts": _facts(item, error),
        "candidate": candidates[0].place.name if candidates else "",
        "image": "",
        "candidate_image": "",
        "first": False,
    }


def hover_text(item: Answered, error: float) -> str:
    """Return what hovering over its point says (HTML of Plotly)."""
    lines = [item.name, *(f"{name} {value}" for name, value in _facts(item, error))]
    if item.answer.candidates:
        lines.append(f"like {item.answer.candidates[0].place.name}")
    return "<br>".join(escape(line) for line in lines)


def attach_images(
    queries: Sequence[dict[str, Any]], items: Sequence[Answered], candidate_image: CandidateImage | None
) -> None:
    """Put the images into what :func:`hover` returned, at most SHOWN_WITH_IMAGES of them."""
    step = max(1, math.ceil(len(items) / SHOWN_WITH_IMAGES))
    seen: dict[int, str] = {}
    for row, (query, item) in enumerate(zip(queries, items, strict=True)):
        if row % step and not query["first"]:
            continue
        if item.thumbnail:
            query["image"] = page.data_uri(jpeg(_decoded(item.thumbnail), _HOVER_PX, 65))
        if candidate_image is None or not item.answer.candidates:
            continue
        index = item.answer.candidates[0].index
        if index not in seen:
            seen[index] = page.data_uri(jpeg(candidate_image(index), _HOVER_PX, 65))
        query["candidate_image"] = seen[index]


def _decoded(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None  # we encoded it
    return np.asarray(image[..., ::-1], np.uint8)
