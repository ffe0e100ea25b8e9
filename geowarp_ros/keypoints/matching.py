"""Matching of keypoints: nearest neighbours with the ratio test (Lowe, IJCV 2004, sec. 7.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(M, 2): number of the first set's keypoint, number of the second's."""

NO_PAIRS: Pairs = np.empty((0, 2), np.int64)


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], ratio: float) -> Pairs:
    """Match each descriptor of ``first`` with its nearest of ``second``, where that is clearly the nearest.

    Where several of ``first`` choose the same one, the nearest of them keeps it.

    Args:
        first: (N, 128).
        second: (M, 128).
        ratio: Maximum ratio of the distances to the nearest and the second-nearest.

    Returns:
        (K, 2), in the order of ``first``.
    """
    if len(first) == 0 or len(second) < 2:
        return NO_PAIRS
    a, b = first.astype(np.float32), second.astype(np.float32)
    # |a - b|² = |a|² + |b|² - 2 a·b, exact in float32: all terms are whole numbers below 2^24
    squared = a @ b.T
    squared *= -2.0
    squared += (b * b).sum(axis=1)
    rows = np.arange(len(a))
    nearest = squared.argmin(axis=1)
    of_a = (a * a).sum(axis=1)
    best = squared[rows, nearest] + of_a
    squared[rows, nearest] = np.inf
    runner_up = squared.min(axis=1) + of_a
    good = np.flatnonzero(best < ratio**2 * runner_up)
    order = good[np.argsort(best[good], kind="stable")]
    _, firsts = np.unique(nearest[order], return_index=True)
    kept = np.sort(order[firsts])
    return np.stack([kept, nearest[kept]], axis=1)
