"""Query–positive pairs for the weakly supervised losses, mined once before the training (paper eq. 14-15)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KDTree

from geowarp_ros.errors import TrainingError
from geowarp_ros.types import FloatArray

IndexPairs = NDArray[np.int64]


def mine_pairs(
    query_positions_m: FloatArray,
    query_descriptors: FloatArray,
    gallery_positions_m: FloatArray,
    gallery_descriptors: FloatArray,
    *,
    t_geo_m: float = 25.0,
    t_feat: float = 1.2,
) -> IndexPairs:
    """Return all pairs that are near on the ground and alike to the encoder (eq. 14-15).

    An index over the positions keeps this below the |Q|·|G| of a full table.

    Args:
        query_positions_m: (Q, 2 or 3) in one metric frame (geodesy.LocalFrame) with the gallery's.
        query_descriptors: (Q, D).
        gallery_positions_m: (G, 2 or 3).
        gallery_descriptors: (G, D).
        t_geo_m: Pairs lie nearer than this, in m (eq. 14).
        t_feat: Their squared descriptor distance is below this (eq. 15).

    Returns:
        (P, 2) query and gallery index, by query, then by gallery; P > 0.

    Raises:
        TrainingError: No pair is left; says which of the two thresholds leaves none.
    """
    near = KDTree(gallery_positions_m).query_radius(query_positions_m, t_geo_m)
    queries = np.repeat(np.arange(len(near)), [len(indices) for indices in near])
    places = np.concatenate([np.sort(indices) for indices in near]).astype(np.int64)
    apart_m = np.linalg.norm(query_positions_m[queries] - gallery_positions_m[places], axis=1)
    queries, places = queries[apart_m < t_geo_m], places[apart_m < t_geo_m]
    if not len(places):
        raise TrainingError(f"no query has a gallery image within t_geo = {t_geo_m:g} m: no pairs to train on")
    squared = ((query_descriptors[queries] - gallery_descriptors[places]) ** 2).sum(axis=1)
    alike = squared < t_feat
    if not alike.any():
        raise TrainingError(
            f"none of {len(places)} pairs within {t_geo_m:g} m has a squared descriptor distance below "
            f"t_feat = {t_feat:g}; the smallest is {squared.min():.3g}"
        )
    pairs: IndexPairs = np.stack([queries, places], axis=1)[alike]
    return pairs


def mine_pairs_within(
    positions_m: FloatArray, descriptors: FloatArray, *, t_geo_m: float = 25.0, t_feat: float = 1.2
) -> IndexPairs:
    """:func:`mine_pairs` of one set with itself, for data without queries: each pair once, none with itself.

    Raises:
        TrainingError: No pair is left.
    """
    pairs = mine_pairs(positions_m, descriptors, positions_m, descriptors, t_geo_m=t_geo_m, t_feat=t_feat)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    if not len(pairs):
        raise TrainingError(f"no two images within t_geo = {t_geo_m:g} m are alike below t_feat = {t_feat:g}")
    return pairs
