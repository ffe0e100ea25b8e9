"""Recall after re-ranking with compressed local features, measured on one gallery of photographs with splits.

Its rows of split ``query`` are the queries, those of split ``gallery`` the places.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
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
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.progress import Progress, silent
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from geowarp_ros.types import Candidate, Image

_RERANKED = 5


class _Trial:
    """The queries and places of one gallery.

    Attributes:
        queries: (Q,) rows of split ``query``.
        answers: (G,) rows of split ``gallery``.
        distances: (Q, G) squared descriptor distances; infinite where left out.
        right: (Q, G) bool, within the threshold and not left out.
    """

    def __init__(self, gallery: Gallery, threshold_m: float, exclude_neighbours: int) -> None:
        splits = np.array(gallery.splits)
        self.gallery = gallery
        self.queries, self.answers = np.flatnonzero(splits == "query"), np.flatnonzero(splits == "gallery")
        if not len(self.queries) or not len(self.answers):
            raise GalleryError(f"{gallery.path}: has no splits query and gallery; build it from such a source")
        offsets = gallery.positions_enu[self.queries, None, :2] - gallery.positions_enu[None, self.answers, :2]
        self.right = np.hypot(offsets[..., 0], offsets[..., 1]) <= threshold_m
        rows = np.asarray(gallery.descriptors, np.float64)
        asked, there = rows[self.queries], rows[self.answers]
        self.distances = (asked**2).sum(axis=1)[:, None] + (there**2).sum(axis=1) - 2 * asked @ there.T
        leave_out = Neighbours([gallery.places[int(row)] for row in self.answers], exclude_neighbours)
        for number, row in enumerate(self.queries):
            left_out = sorted(leave_out(gallery.places[int(row)]))
            self.right[number, left_out] = False
            self.distances[number, left_out] = np.inf


@dataclass(frozen=True)
class _Compressed:
    """The places of a trial with local features in one form, as a re-ranker reads them from a gallery."""

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
        gallery: Folder of the gallery, with local features in half precision.
        describer: The model that made it.
        threshold_m: Distance up to which a place is right, m.
        queries: Maximum number of queries, evenly spread.
        exclude_neighbours: Places within so many images of the query on the same pass are left out.
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
    nearest = np.argsort(trial.distances, axis=1, kind="stable")[:, :_RERANKED]
    asked = range(0, len(nearest), -(-len(nearest) // queries))
    with tempfile.TemporaryDirectory() as folder:
        forms: list[Any] = [_compress(Path(folder) / form, trial, form, features) for form in FORMS]
        measured: dict[tuple[str, Form], list[float]] = defaultdict(list)
        for number in progress(asked, len(asked), "re-ranking queries"):
            query = describer(opened.image(int(trial.queries[number])))
            head = [
                Candidate(int(row), opened.places[int(trial.answers[row])], float(trial.distances[number, row]))
                for row in nearest[number]
            ]
            half = None
            for form in forms:
                fast = FastReranker(form, weight)(query, head)
                exact = GeoWarpReranker(form, warper, weight)(query, head)
                by_index = sorted(exact, key=lambda candidate: candidate.index)
                quads = np.array([(c.quad_q, c.quad_p) for c in by_index if c.quad_q is not None])
                half = quads if half is None else half
                measured["fast", form.form].append(trial.right[number, fast[0].index])
                measured["exact", form.form].append(trial.right[number, exact[0].index])
                measured["px", form.form].append(float(120 * np.linalg.norm(quads - half, axis=-1).mean()))
        numbers = np.array(asked)
        return [
            {
                "local_features": form.form,
                "bytes_per_image": sum(a.nbytes for name, a in form.arrays.items() if name != CODEBOOK)
                // len(trial.answers),
                "queries": len(asked),
                "recall_1": 100 * float(trial.right[numbers, nearest[numbers, 0]].mean()),
                "recall_1_fast": 100 * float(np.mean(measured["fast", form.form])),
                "recall_1_exact": 100 * float(np.mean(measured["exact", form.form])),
                "quad_px": float(np.mean(measured["px", form.form])),
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
