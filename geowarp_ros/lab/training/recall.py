"""Recall of retrieval, of dense features without a warp, and of GeoWarp on a set with queries and a gallery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import TrainingError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.model.describer import Describer, Query, Warper
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray, Image

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Shortlists:
    """What retrieval found: the input of every re-ranking of the same encoder.

    Attributes:
        queries: Q described queries.
        places: The gallery's images.
        indices: (Q, P) rows of ``places``, nearest descriptor first.
        distance: (Q, P) squared descriptor distance.
        error_m: (Q, P) how far each lies from its query, in m.
        local_features: (N, C, 15, 15) of the gallery, half precision.
    """

    queries: Sequence[Query]
    places: Sequence[SourceImage]
    indices: NDArray[np.int64]
    distance: FloatArray
    error_m: FloatArray
    local_features: NDArray[np.float16]


def retrieve(
    describer: Describer,
    queries: Sequence[SourceImage],
    places: Sequence[SourceImage],
    candidates: int = 5,
    *,
    apart: int = 0,
    progress: Progress = silent,
) -> Shortlists:
    """Describe everything and find the candidates of each query by descriptor distance (paper sec. 3.1).

    A query that stands among the places is no candidate of its own.

    Args:
        describer: Encoder and aggregation.
        queries: With positions.
        places: With positions.
        candidates: P, at most the gallery's size.
        apart: Leave out places of the query's folder whose number in the file name is within this of the query's:
            for sets made of one pass, where a query's neighbours in time stand in the gallery. 0 keeps all.
        progress: Shows the images.

    Raises:
        TrainingError: Fewer places than candidates remain for a query.
    """
    described = [describer(image.read()) for image in progress(queries, len(queries), "queries")]
    descriptors, local_features = _describe(describer, places, progress)
    frame = LocalFrame(places[0].place.latitude_deg, places[0].place.longitude_deg)
    apart_m = np.linalg.norm(_enu(frame, queries)[:, None, :2] - _enu(frame, places)[None, :, :2], axis=2)
    distance = _squared_distances(np.stack([query.descriptor for query in described]), descriptors)
    names = np.array([place.place.name for place in places])
    distance[np.array([query.place.name for query in queries])[:, None] == names] = np.inf
    if apart:
        distance[_too_near_in_time(queries, places, apart)] = np.inf
    if (left := int(np.isfinite(distance).sum(axis=1).min())) < candidates:
        raise TrainingError(
            f"{candidates} candidates wanted, but a query has only {left} gallery images to search"
        )
    indices = np.argsort(distance, axis=1, kind="stable")[:, :candidates]
    near, error_m = (np.take_along_axis(table, indices, axis=1) for table in (distance, apart_m))
    return Shortlists(described, places, indices, near, error_m, local_features)


def score(
    found: Shortlists, describer: Describer, warper: Warper, progress: Progress = silent
) -> tuple[FloatArray, FloatArray]:
    """Score every candidate by eq. 4: (Q, P) with the warp, (Q, P) without."""
    warped, unwarped = np.empty(found.error_m.shape), np.empty(found.error_m.shape)
    for row, query in enumerate(progress(found.queries, len(found.queries), "re-ranking")):
        images: list[Image] = [describer.prepare(found.places[index].read()) for index in found.indices[row]]
        pairs = warper(query, images, found.local_features[found.indices[row]])
        warped[row], unwarped[row] = pairs.score, pairs.score_unwarped
    return warped, unwarped


def recall_at(
    error_m: FloatArray, thresholds_m: Sequence[float], score: FloatArray | None = None, first: int = 1
) -> FloatArray:
    """Share of queries with a candidate within each threshold among the ``first`` ones, in percent (sec. 4.1).

    Args:
        error_m: (Q, P) in retrieval's order.
        thresholds_m: T thresholds.
        score: (Q, P) by which to reorder, larger first, ties as retrieved; None: as retrieved.
        first: N of Recall@N.

    Returns:
        (T,).
    """
    if score is not None:
        error_m = np.take_along_axis(error_m, np.argsort(-score, axis=1, kind="stable"), axis=1)
    best = error_m[:, :first].min(axis=1)
    return np.array([100.0 * np.mean(best <= threshold) for threshold in thresholds_m])


def _describe(
    describer: Describer, places: Sequence[SourceImage], progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    starts = range(0, len(places), _BATCH)
    parts = [
        describer.describe_batch([image.read() for image in places[start : start + _BATCH]])
        for start in progress(starts, len(starts), "gallery")
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> FloatArray:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    squared: FloatArray = (a64**2).sum(axis=1)[:, None] - 2 * a64 @ b64.T + (b64**2).sum(axis=1)
    return squared


def _enu(frame: LocalFrame, images: Sequence[SourceImage]) -> FloatArray:
    return frame.to_enu([i.place.latitude_deg for i in images], [i.place.longitude_deg for i in images])


def _too_near_in_time(
    queries: Sequence[SourceImage], places: Sequence[SourceImage], apart: int
) -> NDArray[np.bool_]:
    folder_q, number_q = _folder_and_number(queries)
    folder_p, number_p = _folder_and_number(places)
    near: NDArray[np.bool_] = np.abs(number_q[:, None] - number_p[None]) <= apart
    same: NDArray[np.bool_] = near & (folder_q[:, None] == folder_p[None])
    return same


def _folder_and_number(images: Sequence[SourceImage]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    names = [PurePosixPath(image.place.name) for image in images]
    numbers = [re.findall(r"\d+", name.stem) for name in names]
    if not all(numbers):
        name = names[numbers.index([])]
        raise TrainingError(f"{name}: has no number in its name by which to tell how far apart images were taken")
    return np.array([str(n.parent) for n in names]), np.array([int(n[-1]) for n in numbers], np.int64)
