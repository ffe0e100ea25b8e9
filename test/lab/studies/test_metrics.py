from __future__ import annotations

import math

import numpy as np
import pytest

from geowarp_ros.lab.studies.metrics import bootstrap_interval, first_within, recall_at, recall_hits

ERROR_M = np.array([[3.0, 1.0], [25.0, 90.0], [60.0, 10.0], [math.inf, math.inf]])


def test_recall_by_hand() -> None:
    assert recall_hits(ERROR_M, 1, 25.0).tolist() == [True, True, False, False]
    assert recall_at(ERROR_M, 1, 25.0) == 50.0
    assert recall_at(ERROR_M, 1, 24.9) == 25.0
    assert recall_at(ERROR_M, 2, 10.0) == 50.0
    assert recall_at(ERROR_M, 20, 1000.0) == 75.0
    assert math.isnan(recall_at(np.empty((0, 2)), 1, 25.0))


def test_rank_of_the_first_near_candidate() -> None:
    assert first_within(ERROR_M, 2.0).tolist() == [2, 0, 0, 0]
    assert first_within(ERROR_M, 25.0).tolist() == [1, 1, 2, 0]


def test_bootstrap_of_hits_has_the_binomial_spread() -> None:
    """Resampled hits are binomial: the interval of 300 in 1000 is 30 % ± 1.96·√(0.3·0.7/1000)."""
    hits = np.arange(1000) < 300
    low, high = bootstrap_interval(hits, seed=1)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.003)
    assert high == pytest.approx(0.3 + half, abs=0.003)


def test_bootstrap_is_seeded_certain_of_constants_and_honest_about_nothing() -> None:
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) != bootstrap_interval(values, seed=6)
    assert bootstrap_interval(np.ones(9), seed=0) == (1.0, 1.0)
    assert all(math.isnan(end) for end in bootstrap_interval(np.empty(0), seed=0))


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    """Two methods that agree on all but three queries differ by three, whatever the queries' difficulty."""
    a = np.arange(100) < 50
    b = a.copy()
    b[50:53] = True
    low, high = bootstrap_interval(b.astype(float) - a, seed=0)
    assert 0.0 <= low < 0.03 < high < 0.08
