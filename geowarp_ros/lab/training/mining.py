"""Which images show the same place, which do not, and which of those teach most. NumPy and scikit-learn only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KDTree

from geowarp_ros.errors import TrainingError
from geowarp_ros.types import FloatArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tuples:
    """Queries with what to compare them to, ready for the triplet loss.

    Attributes:
        query: (T,) index among the queries.
        positive: (T,) index in the gallery.
        negatives: (T, N) indices in the gallery, hardest first.
    """

    query: Indices
    positive: Indices
    negatives: Indices


def within(query_m: FloatArray, gallery_m: FloatArray, radius_m: float) -> list[Indices]:
    """Return for each query the gallery indices within ``radius_m``, ascending."""
    found = KDTree(gallery_m).query_radius(query_m, radius_m)
    return [np.sort(np.asarray(indices, np.int64)) for indices in found]


def mine_tuples(
    query: FloatArray,
    gallery: FloatArray,
    positives: Sequence[Indices],
    forbidden: Sequence[Indices],
    pool: Indices,
    *,
    chosen: Indices,
    negatives: int = 10,
) -> Tuples:
    """Choose the best positive and the hardest negatives by descriptor (NetVLAD protocol, METHOD.md).

    Args:
        query: (Q, D) descriptors; NaN rows are unreadable and passed over.
        gallery: (G, D) descriptors; only rows of ``pool`` and ``positives`` need be filled, the others NaN.
        positives: By query, the gallery indices within 10 m.
        forbidden: By query, the gallery indices within 25 m: no negatives.
        pool: Gallery indices among which negatives are looked for.
        chosen: Query indices to mine for.
        negatives: How many.

    Returns:
        A tuple for each chosen query that has a readable positive and enough readable negatives.
    """
    found: list[tuple[int, int, Indices]] = []
    pool = pool[np.isfinite(gallery[pool, 0])]
    pool_squares = (gallery[pool] ** 2).sum(axis=1)
    for index in chosen:
        near = positives[index]
        near = near[np.isfinite(gallery[near, 0])] if len(near) else near
        far = ~np.isin(pool, forbidden[index])
        if not len(near) or far.sum() < negatives or not np.isfinite(query[index, 0]):
            continue
        best = near[np.argmin(((gallery[near] - query[index]) ** 2).sum(axis=1))]
        distances = pool_squares[far] - 2 * gallery[pool[far]] @ query[index]
        hardest = np.argsort(distances, kind="stable")[:negatives]
        found.append((int(index), int(best), pool[far][hardest]))
    if not found:
        none = np.zeros(0, np.int64)
        return Tuples(none, none, np.zeros((0, negatives), np.int64))
    queries, nearest, hard = zip(*found, strict=True)
    return Tuples(np.array(queries, np.int64), np.array(nearest, np.int64), np.stack(hard))


def same_and_different(
    positions_m: FloatArray,
    *,
    positive_radius_m: float,
    negative_radius_m: float,
    names: Sequence[str] = (),
    ambiguous_m: float = 0.0,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell pairs that show the same place from pairs that do not; a pair may be neither.

    Args:
        positions_m: (N, 2).
        positive_radius_m: The same place up to here.
        negative_radius_m: Different places beyond this.
        names: Of the images, for ``ambiguous_m``.
        ambiguous_m: Images of one folder that lie farther apart than this are neither: for sets whose positions
            hold within a recording only, and whose folders hold recordings that may cross. 0: off.

    Returns:
        Same, different: (N, N) bool each; the diagonal is the same.
    """
    apart_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=2)
    different = apart_m > negative_radius_m
    if ambiguous_m > 0:
        _, folder = np.unique([str(PurePosixPath(name).parent) for name in names], return_inverse=True)
        different &= ~((folder[:, None] == folder[None]) & (apart_m > ambiguous_m))
    return apart_m <= positive_radius_m, different


def check_radii(positive_radius_m: float, negative_radius_m: float) -> None:
    """Refuse radii that call one pair both the same place and another.

    Raises:
        TrainingError: ``negative_radius_m`` is the smaller.
    """
    if negative_radius_m < positive_radius_m:
        raise TrainingError(
            f"negative radius {negative_radius_m:g} m is below the positive radius {positive_radius_m:g} m: "
            "an image would be positive and negative at once"
        )
