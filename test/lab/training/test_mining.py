from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.mining import check_radii, mine_tuples, same_and_different, within


def test_within_equals_the_full_table() -> None:
    rng = np.random.default_rng(0)
    query, gallery = rng.uniform(0, 100, (20, 2)), rng.uniform(0, 100, (50, 2))
    apart = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    for row, found in enumerate(within(query, gallery, 30.0)):
        assert found.tolist() == np.flatnonzero(apart[row] <= 30.0).tolist()


def test_the_best_positive_and_the_hardest_negatives_by_hand() -> None:
    # places on a line; descriptors are one number, so that distances can be read off
    query = np.array([[0.0], [10.0]], np.float32)
    gallery = np.array([[3.0], [-1.0], [0.5], [9.0], [4.0], [20.0]], np.float32)
    positives = [np.array([0, 1]), np.array([3])]  # image 1 is nearer in descriptor than image 0
    forbidden = [np.array([0, 1, 2]), np.array([3, 4])]  # image 2 is most alike, but within the negative radius
    mined = mine_tuples(query, gallery, positives, forbidden, np.arange(6), chosen=np.array([0, 1]), negatives=2)
    assert mined.query.tolist() == [0, 1]
    assert mined.positive.tolist() == [1, 3]
    assert mined.negatives.tolist() == [[4, 3], [0, 2]]


def test_negatives_come_from_the_pool_only() -> None:
    descriptors = np.arange(6, dtype=np.float32)[:, None]
    mined = mine_tuples(
        descriptors[:1], descriptors, [np.array([0])], [np.array([0])], np.array([5, 2, 4]), chosen=np.array([0]),
        negatives=2,
    )  # fmt: skip
    assert mined.negatives.tolist() == [[2, 4]]


def test_unreadable_images_are_passed_over() -> None:
    query = np.array([[0.0], [np.nan]], np.float32)
    gallery = np.array([[np.nan], [2.0], [np.nan], [5.0]], np.float32)
    near = [np.array([0, 1]), np.array([0])]
    mined = mine_tuples(query, gallery, near, near, np.arange(4), chosen=np.array([0, 1]), negatives=1)
    assert (mined.query.tolist(), mined.positive.tolist(), mined.negatives.tolist()) == ([0], [1], [[3]])


def test_a_query_without_enough_is_left_out() -> None:
    one = np.zeros((1, 1), np.float32)
    none = np.zeros(0, np.int64)
    assert not len(mine_tuples(one, one, [none], [none], np.arange(1), chosen=np.arange(1), negatives=1).query)
    near = [np.array([0])]
    assert not len(mine_tuples(one, one, near, near, np.arange(1), chosen=np.arange(1), negatives=1).query)


def test_same_different_and_neither() -> None:
    positions = np.array([[0.0, 0.0], [5.0, 0.0], [20.0, 0.0], [300.0, 0.0]])
    names = ["floor1/a1.jpg", "floor1/a2.jpg", "floor1/a3.jpg", "floor1/b1.jpg"]
    same, different = same_and_different(positions, positive_radius_m=10.0, negative_radius_m=18.0)
    assert np.flatnonzero(same[0]).tolist() == [0, 1]
    assert np.flatnonzero(different[0]).tolist() == [2, 3]
    assert not (same | different)[1, 2]
    _, sure = same_and_different(
        positions, positive_radius_m=10.0, negative_radius_m=18.0, names=names, ambiguous_m=100.0
    )
    assert np.flatnonzero(sure[0]).tolist() == [2]
    _, elsewhere = same_and_different(
        positions, positive_radius_m=10.0, negative_radius_m=18.0, names=[*names[:3], "floor2/b1.jpg"],
        ambiguous_m=100.0,
    )  # fmt: skip
    assert np.flatnonzero(elsewhere[0]).tolist() == [2, 3]


def test_radii_that_contradict_are_refused() -> None:
    check_radii(10.0, 10.0)
    with pytest.raises(TrainingError, match="negative radius 5 m is below the positive radius 10 m"):
        check_radii(10.0, 5.0)
