"""Points that several photographs see: tracks of matches, and where their rays meet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.pairs import Pair

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tracks:
    """Observations of points: (O,) each, by point, then photograph.

    Attributes:
        photograph: Row of the photograph.
        keypoint: Number of the keypoint in it.
        point: Number of the point, from 0 on.
        count: Number of points.
    """

    photograph: IntArray
    keypoint: IntArray
    point: IntArray
    count: int

    def only(self, kept: NDArray[np.bool_], minimum: int = 2) -> tuple[Tracks, IntArray]:
        """Return the observations kept, of points that keep ``minimum`` of them; and those points' old numbers."""
        seen = np.bincount(self.point[kept], minlength=self.count)
        kept = kept & (seen >= minimum)[self.point]
        old, point = np.unique(self.point[kept], return_inverse=True)
        return Tracks(self.photograph[kept], self.keypoint[kept], point.reshape(-1), len(old)), old


def find_tracks(pairs: Sequence[Pair], keypoints: IntArray) -> Tracks:
    """Join matches into tracks; where one holds two keypoints of a photograph, those keypoints are left out.

    Args:
        pairs: Pairs with their matches.
        keypoints: (N,) number of keypoints of each photograph.
    """
    starts = np.concatenate([[0], np.cumsum(keypoints)])
    empty = np.empty(0, np.int64)
    a = np.concatenate([empty, *(starts[p.first] + p.matches[:, 0] for p in pairs)])
    b = np.concatenate([empty, *(starts[p.second] + p.matches[:, 1] for p in pairs)])
    used, numbers = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = numbers[: len(a)], numbers[len(a) :]
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), (len(used), len(used)))
    found, label = connected_components(graph, directed=False)
    photograph = np.searchsorted(starts, used, side="right") - 1
    _, place, often = np.unique(
        label.astype(np.int64) * len(keypoints) + photograph, return_inverse=True, return_counts=True
    )
    once = often[place.reshape(-1)] == 1
    order = np.lexsort((photograph, label))
    order = order[once[order]]
    tracks = Tracks(
        photograph[order], (used - starts[photograph])[order], label.astype(np.int64)[order], int(found)
    )
    return tracks.only(np.ones(len(order), bool))[0]


def triangulate(
    tracks: Tracks, directions: FloatArray, positions: FloatArray, soft_rad: float, rounds: int = 4
) -> FloatArray:
    """Return the points (P, 3) nearest to their rays, those far off weighing less; NaN where rays are parallel.

    Args:
        tracks: Observations.
        directions: (O, 3) unit vectors of the rays.
        positions: (N, 3) positions of the photographs.
        soft_rad: Angle at which a ray weighs half.
        rounds: Number of rounds of reweighting.
    """
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    at = positions[tracks.photograph]
    weights = np.ones(len(at))
    points = np.full((tracks.count, 3), np.nan)
    for _ in range(rounds):
        normal = summed(across * weights[:, None, None], tracks.point, tracks.count)
        right = summed(np.einsum("oij,oj->oi", across, at) * weights[:, None], tracks.point, tracks.count)
        stable = np.linalg.det(normal) > 1e-9 * np.trace(normal, axis1=1, axis2=2) ** 3
        points[stable] = np.linalg.solve(normal[stable], right[stable][:, :, None])[:, :, 0]
        points[~stable] = np.nan
        ahead = points[tracks.point] - at
        distance = np.linalg.norm(ahead, axis=1)
        off = np.linalg.norm(np.cross(directions, ahead), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            # an angle's error, not a length's: over the squared distance
            weights = np.nan_to_num(1.0 / (distance**2 * (1.0 + (off / distance / soft_rad) ** 2)))
            weights = np.where((ahead * directions).sum(axis=1) > 0, weights, weights * 1e-3)
    return points


def widest_angles(tracks: Tracks, points: FloatArray, positions: FloatArray) -> FloatArray:
    """Return the largest angle (P,) between two of each point's rays, rad: between the first and any, bounded."""
    with np.errstate(invalid="ignore"):
        ahead = points[tracks.point] - positions[tracks.photograph]
        ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    begins = np.searchsorted(tracks.point, np.arange(tracks.count))
    cosine = (ahead * ahead[begins][tracks.point]).sum(axis=1)
    least = np.full(tracks.count, 1.0)
    np.minimum.at(least, tracks.point, np.nan_to_num(cosine, nan=1.0))
    return np.asarray(np.arccos(np.clip(least, -1, 1)))


def summed(values: FloatArray, group: IntArray, count: int) -> FloatArray:
    """Return the sums of ``values`` (O, …) over each of ``count`` groups."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    sums = np.empty((count, flat.shape[1]))
    for k in range(flat.shape[1]):
        sums[:, k] = np.bincount(group, flat[:, k], count)
    return np.asarray(sums.reshape(count, *values.shape[1:]))
