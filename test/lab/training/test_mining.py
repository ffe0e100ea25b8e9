from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.mining import PlaceConfig, mine_pairs, mine_tuples, within


def test_within_equals_the_full_table() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.uniform(0, 100, (20, 2)), rng.uniform(0, 100, (50, 2))
    apart = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    for row, found in enumerate(within(query, gallery, 30.0)):
        assert found.tolist() == np.flatnonzero(apart[row] <= 30.0).tolist()


def test_the_best_positive_and_the_hardest_negatives_by_hand() -> None:
    # places on a line; descriptors are one number, so that distances can be read off
    query, gallery = np.array([[0.0], [10.0]], np.float32), np.array([[3.0], [-1.0], [0.5], [9.0], [4.0], [20.0]])
    positives = [np.array([0, 1]), np.array([3])]  # image 1 is nearer in descriptor than image 0
    forbidden = [np.array([0, 1, 2]), np.array([3, 4])]  # image 2 is most alike, but within the negative radius
    mined = mine_tuples(np.array([6, 7]), query, gallery, positives, forbidden, np.arange(6), negatives=2)
    assert mined.tolist() == [[6, 1, 4, 3], [7, 3, 0, 2]]


def test_negatives_come_from_the_pool_only_and_are_never_the_query() -> None:
    descriptors = np.arange(6, dtype=np.float32)[:, None]
    one = np.array([1])
    query, pool = np.array([0]), np.array([5, 2, 0, 4])
    mined = mine_tuples(query, descriptors[query], descriptors, [one], [one], pool, negatives=2)
    assert mined.tolist() == [[0, 1, 2, 4]]


def test_unreadable_images_are_passed_over() -> None:
    query, gallery = np.array([[0.0], [np.nan]]), np.array([[np.nan], [2.0], [np.nan], [5.0]])
    near = [np.array([0, 1]), np.array([0])]
    assert mine_tuples(np.array([4, 5]), query, gallery, near, near, np.arange(4), 1).tolist() == [[4, 1, 3]]


def test_a_query_without_enough_is_left_out() -> None:
    one = np.zeros((1, 1))
    none, query = np.zeros(0, np.int64), np.array([1])
    assert mine_tuples(query, one, one, [none], [none], np.arange(1), negatives=1).shape == (0, 3)
    near = [np.array([0])]
    assert not len(mine_tuples(query, one, one, near, near, np.arange(1), negatives=1))


def test_pairs_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    positions, descriptors = rng.uniform(0, 100, (80, 2)), rng.normal(size=(80, 4))
    queries = np.arange(80) < 30
    descriptors[[3, 40]] = np.nan  # unreadable
    expected = [
        [i, j]
        for i in range(30)
        for j in range(30, 80)
        if np.hypot(*(positions[i] - positions[j])) < 25 and ((descriptors[i] - descriptors[j]) ** 2).sum() < 3
    ]
    assert len(expected) > 5
    assert mine_pairs(positions, descriptors, queries, t_geo_m=25, t_feat=3).tolist() == expected


def test_thresholds_of_pairs_are_strict_and_named_where_they_leave_nothing() -> None:
    positions, queries = np.array([[0.0, 0.0], [25.0, 0.0], [24.9, 0.0]]), np.array([True, False, False])
    assert mine_pairs(positions, np.zeros((3, 1)), queries).tolist() == [[0, 2]], "eq. 14: nearer than t_geo"
    with pytest.raises(TrainingError, match=r"no two images .* t_geo = 2 m"):
        mine_pairs(positions, np.zeros((3, 1)), queries, t_geo_m=2)
    apart = np.array([[0.0], [0.0], [3.0]])
    with pytest.raises(TrainingError, match=r"none of 1 pairs .* t_feat = 1.2; the smallest is 9"):
        mine_pairs(positions, apart, queries)
    apart[2] = np.sqrt(1.2) + 1e-9
    with pytest.raises(TrainingError, match="none of 1 pairs"):
        mine_pairs(positions, apart, queries)


def test_pairs_within_one_set_come_once() -> None:
    line = np.stack([np.arange(4) * 10.0, np.zeros(4)], axis=1)
    assert mine_pairs(line, np.zeros((4, 1)), t_geo_m=15).tolist() == [[0, 1], [1, 2], [2, 3]]
    with pytest.raises(TrainingError, match="no two images"):
        mine_pairs(line, np.zeros((4, 1)), t_geo_m=5)


def test_same_different_and_neither() -> None:
    positions = np.array([[0.0, 0.0], [5.0, 0.0], [20.0, 0.0], [300.0, 0.0]])
    names = ["floor1/a1.jpg", "floor1/a2.jpg", "floor1/a3.jpg", "floor1/b1.jpg"]
    plain = PlaceConfig(positive_radius_m=10.0, negative_radius_m=18.0)
    same, different = plain.label(positions, names)
    assert np.flatnonzero(same[0]).tolist() == [0, 1]
    assert np.flatnonzero(different[0]).tolist() == [2, 3]
    assert not (same | different)[1, 2]
    ambiguous = plain.model_copy(update={"ambiguous_m": 100.0})
    _, sure = ambiguous.label(positions, names)
    assert np.flatnonzero(sure[0]).tolist() == [2]
    _, elsewhere = ambiguous.label(positions, [*names[:3], "floor2/b1.jpg"])
    assert np.flatnonzero(elsewhere[0]).tolist() == [2, 3]


def test_radii_that_contradict_are_refused() -> None:
    PlaceConfig(positive_radius_m=10.0, negative_radius_m=10.0).check_radii()
    with pytest.raises(TrainingError, match="negative radius 5 m is below the positive radius 10 m"):
        PlaceConfig(positive_radius_m=10.0, negative_radius_m=5.0).check_radii()
