"""Mining by position and descriptor: hard negatives, and query-positive pairs (paper eq. 14-15)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.errors import TrainingError
from geowarp_ros.types import FloatArray

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]


class PlaceConfig(Section):
    """Definition of a place, and the validation images."""

    hold_out: tuple[str, ...] = Field(
        (),
        description="Name patterns (*video*) of validation images, excluded from training in any split; or, where "
        "the source has no splits, a share of its places such as 0.2, in squares with a gap around them.",
    )
    val_radius_m: float = Field(25.0, gt=0.0, description="Maximum distance of a correct candidate (m).")
    positive_radius_m: float = Field(10.0, gt=0.0, description="Maximum distance of positives (m).")
    negative_radius_m: float = Field(25.0, gt=0.0, description="Minimum distance of negatives (m).")
    ambiguous_m: float = Field(
        0.0, ge=0.0, description="Images of one folder farther apart than this (m) are no negatives; 0: off."
    )

    def check_radii(self) -> None:
        """Check that no pair can be positive and negative at once.

        Raises:
            TrainingError: ``negative_radius_m`` is below ``positive_radius_m``.
        """
        if self.negative_radius_m < self.positive_radius_m:
            raise TrainingError(
                f"negative radius {self.negative_radius_m:g} m is below the positive radius "
                f"{self.positive_radius_m:g} m: an image would be positive and negative at once"
            )

    def label(self, positions_m: FloatArray, names: Sequence[str]) -> tuple[Mask, Mask]:
        """Label pairs of images as same place, different place or neither.

        ``ambiguous_m`` is for folders of recordings that may cross although their positions are not comparable.

        Args:
            positions_m: (N, 2).
            names: (N,) image names.

        Returns:
            Same, different: (N, N) each; the diagonal is the same place.
        """
        apart_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=2)
        different = apart_m > self.negative_radius_m
        if self.ambiguous_m > 0:
            _, folder = np.unique([str(PurePosixPath(name).parent) for name in names], return_inverse=True)
            different &= ~((folder[:, None] == folder[None]) & (apart_m > self.ambiguous_m))
        return apart_m <= self.positive_radius_m, different


def within(query_m: FloatArray, gallery_m: FloatArray, radius_m: float) -> list[Indices]:
    """Return the gallery indices within ``radius_m`` of each query, ascending."""
    from sklearn.neighbors import KDTree

    found = KDTree(gallery_m).query_radius(query_m, radius_m)
    return [np.sort(np.asarray(indices, np.int64)) for indices in found]


def mine_tuples(
    queries: Indices,
    query_descriptors: FloatArray,
    descriptors: FloatArray,
    positives: Sequence[Indices],
    forbidden: Sequence[Indices],
    pool: Indices,
    negatives: int = 10,
) -> Indices:
    """Mine the nearest positive and the hardest negatives by descriptor (Arandjelović et al., CVPR 2016).

    Args:
        queries: (Q,) images to mine for.
        query_descriptors: (Q, D); NaN rows (unreadable images) are skipped.
        descriptors: (N, D) of the images in ``pool`` and ``positives``, NaN where unreadable.
        positives: Per query, the images within the positive radius.
        forbidden: Per query, the images within the negative radius.
        pool: Images to mine negatives from.
        negatives: Number of negatives per query.

    Returns:
        (T, 2 + negatives): query, positive and negatives, hardest first, where there are a readable positive and
        enough readable negatives.
    """
    readable = np.isfinite(descriptors[:, 0])
    pool = pool[readable[pool]]
    squares = (descriptors[pool] ** 2).sum(axis=1)
    found: list[Indices] = []
    for query, asked, near, excluded in zip(queries, query_descriptors, positives, forbidden, strict=True):
        near, far = near[readable[near]], ~np.isin(pool, excluded) & (pool != query)
        if np.isfinite(asked[0]) and len(near) and far.sum() >= negatives:
            best = near[np.argmin(((descriptors[near] - asked) ** 2).sum(axis=1))]
            distances = squares[far] - 2 * descriptors[pool[far]] @ asked
            hardest = np.argsort(distances, kind="stable")[:negatives]
            found.append(np.array([query, best, *pool[far][hardest]], np.int64))
    return np.array(found, np.int64).reshape(-1, 2 + negatives)


def mine_pairs(
    positions_m: FloatArray,
    descriptors: FloatArray,
    queries: Mask | None = None,
    *,
    t_geo_m: float = 25.0,
    t_feat: float = 1.2,
) -> Indices:
    """Return all query-gallery pairs below both the geographic and the descriptor threshold (eq. 14-15).

    Args:
        positions_m: (N, 2 or 3) in a metric frame.
        descriptors: (N, D); NaN rows (unreadable images) are skipped.
        queries: (N,) mask; the other images are the gallery. Pairs are formed among all images, each once, if it
            is None or one of the two kinds is absent.
        t_geo_m: Maximum distance (m), exclusive (eq. 14).
        t_feat: Maximum squared descriptor distance, exclusive (eq. 15).

    Returns:
        (P, 2) indices, sorted; P > 0.

    Raises:
        TrainingError: One of the thresholds leaves no pair.
    """
    readable = np.isfinite(descriptors[:, 0])
    asked = np.zeros(len(readable), bool) if queries is None else queries
    query, gallery = np.flatnonzero(readable & asked), np.flatnonzero(readable & ~asked)
    among_all = not (len(query) and len(gallery))
    if among_all:
        query = gallery = np.flatnonzero(readable)
    near = within(positions_m[query], positions_m[gallery], t_geo_m)
    first, second = np.repeat(query, [len(indices) for indices in near]), gallery[np.concatenate(near)]
    kept = np.linalg.norm(positions_m[first] - positions_m[second], axis=1) < t_geo_m
    if among_all:
        kept &= first < second
    first, second = first[kept], second[kept]
    if not len(first):
        raise TrainingError(f"no two images to pair lie within t_geo = {t_geo_m:g} m: no pairs to train on")
    squared = ((descriptors[first] - descriptors[second]) ** 2).sum(axis=1)
    alike = squared < t_feat
    if not alike.any():
        raise TrainingError(
            f"none of {len(first)} pairs within {t_geo_m:g} m has a squared descriptor distance below "
            f"t_feat = {t_feat:g}; the smallest is {squared.min():.3g}"
        )
    return np.stack([first[alike], second[alike]], axis=1)
