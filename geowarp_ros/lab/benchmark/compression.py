"""What smaller descriptors and local features cost in recall, on photographs: those of one gallery with splits.

The rows of split ``query`` are asked, those of split ``gallery`` answer: one ``geowarp gallery build`` serves all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.evaluation.sets import Neighbours
from geowarp_ros.gallery.local import (
    CODEBOOK,
    FORMS,
    LOCAL_FEATURES,
    Form,
    compress_local_features,
    layout,
    read_local_features,
)
from geowarp_ros.gallery.rows import Stacked
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.gallery.whitening import train_whitening
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.progress import Progress, silent
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from geowarp_ros.types import Candidate, Image

_DEPTH = 20
_RERANKED = 5


class _Trial:
    """Queries, answers and the truth of one gallery."""

    def __init__(self, gallery: Gallery, threshold_m: float, exclude_neighbours: int) -> None:
        splits = np.array(gallery.splits)
        self.gallery = gallery
        self.queries, self.answers = np.flatnonzero(splits == "query"), np.flatnonzero(splits == "gallery")
        if not len(self.queries) or not len(self.answers):
            raise GalleryError(f"{gallery.path}: has no splits query and gallery; build it from such a source")
        enu = gallery.positions_enu[:, :2]
        offsets = enu[self.queries, None] - enu[None, self.answers]
        self.right = np.hypot(offsets[..., 0], offsets[..., 1]) <= threshold_m
        places = [gallery.places[int(row)] for row in self.answers]
        leave_out = Neighbours(places, exclude_neighbours)
        self.left_out = [sorted(leave_out(gallery.places[int(row)])) for row in self.queries]
        for number, left_out in enumerate(self.left_out):
            self.right[number, left_out] = False

    def nearest(self, descriptors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """Return distances (Q, G) with what is left out at infinity, and each query's answers, nearest first."""
        rows = np.asarray(descriptors, np.float64)
        asked, there = rows[self.queries], rows[self.answers]
        distances = (asked**2).sum(axis=1)[:, None] + (there**2).sum(axis=1) - 2 * asked @ there.T
        for number, left_out in enumerate(self.left_out):
            distances[number, left_out] = np.inf
        return distances, np.argsort(distances, axis=1, kind="stable")


def measure_whitening(
    gallery: Path, threshold_m: float, dimensions: Sequence[int] = (32, 64, 128, 256), exclude_neighbours: int = 0
) -> list[dict[str, Any]]:
    """Compare retrieval with and without whitening.

    Args:
        gallery: Its folder.
        threshold_m: An answer this near is right.
        dimensions: That whitening keeps; more than descriptors or answers allow are left out.
        exclude_neighbours: Answers within so many images of the query on the same pass do not count.

    Returns:
        One row for each: whitened (dimensions, 0: not), queries, recall_1, recall_5, recall_10.
    """
    opened = Gallery.open(gallery)
    trial = _Trial(opened, threshold_m, exclude_neighbours)
    rows = []
    most = min(opened.stored.width, len(trial.answers) - 1)
    for kept in (0, *(k for k in dimensions if k <= most)):
        descriptors = opened.descriptors
        if kept:
            descriptors = train_whitening(Stacked([descriptors]), trial.answers, kept)(descriptors)
        order = trial.nearest(descriptors)[1]
        right = np.take_along_axis(trial.right, order, axis=1)
        recalls = {f"recall_{n}": 100 * float(right[:, :n].any(axis=1).mean()) for n in (1, 5, 10)}
        rows.append({"whitened": kept, "queries": len(order), **recalls})
    return rows


@dataclass(frozen=True)
class _Compressed:
    """The answers of a trial with local features in one form: what a re-ranker asks of a gallery."""

    trial: _Trial
    form: Form
    arrays: dict[str, NDArray[Any]]

    def local_features(self, indices: Sequence[int]) -> NDArray[np.float16]:
        return np.stack([read_local_features(self.form, self.arrays, index) for index in indices])

    def image(self, index: int) -> Image:
        return self.trial.gallery.image(int(self.trial.answers[index]))


def measure_local_features(
    gallery: Path,
    describer: Describer,
    threshold_m: float,
    queries: int,
    exclude_neighbours: int = 0,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Re-rank the same five candidates with local features in each form, by both modes of geowarp.

    Args:
        gallery: Its folder, with local features in half precision.
        describer: Of the model that made it.
        threshold_m: An answer this near is right.
        queries: At most so many, evenly spread.
        exclude_neighbours: As in :func:`measure_whitening`.
        progress: Shows the queries.

    Returns:
        One row per form: local_features, bytes_per_image, queries, recall_1 without re-ranking, of mode fast and
        of mode exact, quad_px: mean distance in pixels of a 240 px frame by which quad corners move against half.
    """
    opened = Gallery.open(gallery)
    opened.check_model(describer.fingerprint)
    trial = _Trial(opened, threshold_m, exclude_neighbours)
    weight, warper = describer.model.config.retrieval_weight, Warper(describer)
    features = opened.local_features(trial.answers.tolist())
    distances, order = trial.nearest(opened.descriptors)
    asked = range(0, len(order), -(-len(order) // queries))
    with tempfile.TemporaryDirectory() as folder:
        forms: list[Any] = [_compress(Path(folder) / form, trial, form, features) for form in FORMS]
        right: dict[str, list[bool]] = {f"{mode} {form}": [] for mode in ("fast", "exact") for form in FORMS}
        moved: dict[Form, list[float]] = {form: [] for form in FORMS}
        for number in progress(asked, len(asked), "re-ranking"):
            query = describer(opened.image(int(trial.queries[number])))
            candidates = [
                Candidate(int(row), opened.places[int(trial.answers[row])], float(distances[number, row]))
                for row in order[number, :_DEPTH]
            ]
            quads: NDArray[Any] | None = None
            for form in forms:
                fast = FastReranker(form, _RERANKED, weight)(query, candidates)
                exact = GeoWarpReranker(form, warper, _RERANKED, weight)(query, candidates)
                right[f"fast {form.form}"].append(bool(trial.right[number, fast[0].index]))
                right[f"exact {form.form}"].append(bool(trial.right[number, exact[0].index]))
                found = {c.index: np.stack([c.quad_q, c.quad_p]) for c in exact if c.quad_q is not None}  # type: ignore[list-item]
                here = np.stack([found[index] for index in sorted(found)])
                quads = here if quads is None else quads
                moved[form.form].append(float(120 * np.linalg.norm(here - quads, axis=-1).mean()))
        first = float(trial.right[np.array(asked), order[np.array(asked), 0]].mean())
        return [
            {
                "local_features": form.form,
                "bytes_per_image": sum(a.nbytes for name, a in form.arrays.items() if name != CODEBOOK)
                // len(trial.answers),
                "queries": len(asked),
                "recall_1": 100 * first,
                "recall_1_fast": 100 * float(np.mean(right[f"fast {form.form}"])),
                "recall_1_exact": 100 * float(np.mean(right[f"exact {form.form}"])),
                "quad_px": float(np.mean(moved[form.form])),
            }
            for form in forms
        ]


def _compress(folder: Path, trial: _Trial, form: Form, features: NDArray[np.float16]) -> _Compressed:
    folder.mkdir()
    np.save(folder / LOCAL_FEATURES, features, allow_pickle=False)
    if form != "half":
        compress_local_features(folder, form)
    files = layout(form, len(features), features.shape[1])
    arrays = {name: np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in files}
    return _Compressed(trial, form, arrays)
