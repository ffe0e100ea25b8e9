"""Numbering against a plain list."""

from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.gallery.rows import RowNumbers, Stacked, among


@pytest.mark.parametrize("removed", [[], [0], [9], [0, 1, 2], [3, 5, 4, 9], list(range(10))])
def test_rows_are_what_is_left(removed: list[int]) -> None:
    numbers = RowNumbers(10, np.array(removed, np.int64))
    kept = np.array([row for row in range(10) if row not in removed], np.int64)
    assert len(numbers) == len(kept)
    np.testing.assert_array_equal(numbers.stored(np.arange(len(kept))), kept)
    np.testing.assert_array_equal(numbers.rows(kept), np.arange(len(kept)))


@pytest.mark.parametrize("ascending", [[], [3], [0, 2, 9], list(range(10))])
def test_among(ascending: list[int]) -> None:
    rows = np.array([[5, 0, 9], [2, 3, 10]])
    np.testing.assert_array_equal(among(rows, np.array(ascending, np.int64)), np.isin(rows, ascending))


def test_stacked_is_the_concatenation() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(count, 3)).astype(np.float32) for count in (4, 0, 5, 1)]
    stacked, whole = Stacked(parts), np.concatenate(parts)
    rows = rng.integers(0, 10, (6, 4))
    assert (len(stacked), stacked.width) == (10, 3)
    np.testing.assert_array_equal(stacked[rows], whole[rows])
    np.testing.assert_array_equal(Stacked(parts[:1])[rows % 4], whole[rows % 4])
    for first, second in [stacked.split(4), stacked.split(9), stacked.split(10)]:
        np.testing.assert_array_equal(np.concatenate([*first.arrays, *second.arrays]), whole)
    assert [len(part) for part in stacked.split(9)] == [9, 1]
