"""Nearest neighbours among the places of a gallery, by the cosine of their descriptors."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.index.search import ExactIndex
from geowarp_ros.types import FloatArray


def unit_rows(descriptors: FloatArray) -> NDArray[np.float32]:
    """Return the rows (N, D) with unit length, float32; a row of zeros stays."""
    rows = np.asarray(descriptors, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def gallery_neighbours(
    unit: NDArray[np.float32], count: int, without: Collection[int] = ()
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the nearest other rows of each row.

    Args:
        unit: (N, D) rows of unit length.
        count: Number K of neighbours; fewer where the gallery is smaller.
        without: Rows to ignore: neighbours of no row, without neighbours themselves.

    Returns:
        Indices (N, K) and cosines (N, K), nearest first; cosine 0 in the ignored rows.
    """
    kept = np.setdiff1d(np.arange(len(unit)), np.fromiter(without, np.intp, len(without)))
    count = max(0, min(count, len(kept) - 1))
    indices, cosines = np.zeros((len(unit), count), np.intp), np.zeros((len(unit), count), np.float32)
    if count:
        distances, found = ExactIndex(unit[kept]).search(unit[kept], count + 1)
        # a row finds itself – or, first, one that equals it: drop it wherever it is, else the farthest
        others = found != np.arange(len(kept))[:, None]
        others[others.all(axis=1), -1] = False
        indices[kept] = kept[found[others].reshape(-1, count)]
        cosines[kept] = 1.0 - distances[others].reshape(-1, count) / 2.0  # |a - b|² = 2 - 2 a·b
    return indices, cosines
