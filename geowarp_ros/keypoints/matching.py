"""Matching of keypoints: nearest neighbours with the ratio test (Lowe, IJCV 2004, sec. 7.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(M, 2): number of the first set's keypoint, number of the second's."""

NO_PAIRS: Pairs = np.empty((0, 2), np.int64)

_AT_ONCE = 256
"""Rows whose distances are looked at while they are in the cache."""


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
    of_a, of_b = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    minus_twice_b = (-2.0 * b).T
    nearest, (best, runner_up) = np.empty(len(a), np.int64), np.empty((2, len(a)), np.float32)
    for start in range(0, len(a), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        squared = a[block] @ minus_twice_b
        squared += of_b
        rows = np.arange(len(squared))
        nearest[block] = squared.argmin(axis=1)
        best[block] = squared[rows, nearest[block]]
        squared[rows, nearest[block]] = np.inf
        runner_up[block] = squared.min(axis=1)
    best, runner_up = best + of_a, runner_up + of_a
    good = np.flatnonzero(best < ratio**2 * runner_up)
    order = good[np.argsort(best[good], kind="stable")]
    _, firsts = np.unique(nearest[order], return_index=True)
    kept = np.sort(order[firsts])
    return np.stack([kept, nearest[kept]], axis=1)
