from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.pairs import mine_pairs, mine_pairs_within


def test_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    q_m, g_m = rng.uniform(0, 100, (30, 2)), rng.uniform(0, 100, (50, 2))
    q_d, g_d = rng.normal(size=(30, 4)), rng.normal(size=(50, 4))
    expected = [
        (i, j)
        for i in range(30)
        for j in range(50)
        if np.hypot(*(q_m[i] - g_m[j])) < 25 and ((q_d[i] - g_d[j]) ** 2).sum() < 3
    ]
    pairs = mine_pairs(q_m, q_d, g_m, g_d, t_geo_m=25, t_feat=3)
    assert len(expected) > 5
    assert [tuple(pair) for pair in pairs.tolist()] == expected


def test_thresholds_are_strict() -> None:
    origin, east = np.zeros((1, 2)), np.array([[25.0, 0.0], [24.9, 0.0]])
    same = np.zeros((2, 1))
    assert mine_pairs(origin, same[:1], east, same).tolist() == [[0, 1]], "eq. 14: nearer than t_geo"
    with pytest.raises(TrainingError, match="none of 1 pairs"):
        mine_pairs(origin, same[:1], east[1:], np.array([[np.sqrt(1.2) + 1e-9]]))


def test_says_which_threshold_leaves_nothing() -> None:
    here, there = np.zeros((1, 2)), np.array([[3.0, 0.0]])
    with pytest.raises(TrainingError, match="t_geo = 2 m"):
        mine_pairs(here, here, there, here, t_geo_m=2)
    with pytest.raises(TrainingError, match=r"t_feat = 1.2; the smallest is 9"):
        mine_pairs(here, here, there, there)


def test_within_one_set_gives_each_pair_once() -> None:
    line = np.stack([np.arange(4) * 10.0, np.zeros(4)], axis=1)
    pairs = mine_pairs_within(line, np.zeros((4, 1)), t_geo_m=15)
    assert pairs.tolist() == [[0, 1], [1, 2], [2, 3]]
    with pytest.raises(TrainingError, match="no two images"):
        mine_pairs_within(line, np.zeros((4, 1)), t_geo_m=5)
