"""Recall of retrieval, with bootstrap intervals; :mod:`geowarp_ros.evaluation.fixes` judges fixes. NumPy only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.types import FloatArray


def recall_hits(error_m: FloatArray, first: int, threshold_m: float) -> NDArray[np.bool_]:
    """Say for each query whether one of its ``first`` candidates lies within ``threshold_m`` (paper sec. 4.1).

    Args:
        error_m: (Q, K) distance of each candidate from the truth, best first; infinite where there is none.
        first: N of Recall@N; more than K counts all K.
        threshold_m: A candidate at exactly this distance counts.

    Returns:
        (Q,).
    """
    return np.asarray((error_m[:, :first] <= threshold_m).any(axis=1))


def recall_at(error_m: FloatArray, first: int, threshold_m: float) -> float:
    """Share of the queries that :func:`recall_hits` counts, in percent of all queries; NaN without queries.

    A query with no gallery place near it counts as a miss, as in the paper.
    """
    return 100.0 * float(recall_hits(error_m, first, threshold_m).mean()) if len(error_m) else math.nan


def first_within(error_m: FloatArray, threshold_m: float) -> NDArray[np.intp]:
    """Return the rank (Q,) of the first candidate within ``threshold_m``, from 1; 0 where there is none."""
    near = error_m <= threshold_m
    return np.where(near.any(axis=1), near.argmax(axis=1) + 1, 0)


def bootstrap_interval(
    values: FloatArray | NDArray[np.bool_], seed: int, *, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron, "Bootstrap methods", 1979).

    Queries are drawn with replacement, as if each were independent of the others; those of one drive are not, so
    the true interval is wider.

    Args:
        values: (Q,) one number per query: hits, or differences of hits between two methods (a paired comparison).
        seed: Seed of the draws; the same for every method.
        draws: Number of draws of Q queries.
        level: Share of the draws' means inside the interval.

    Returns:
        Lower and upper end; NaN without queries.
    """
    if not len(values):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    numbers = np.asarray(values, float)
    means = np.array([numbers[rng.integers(len(numbers), size=len(numbers))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
