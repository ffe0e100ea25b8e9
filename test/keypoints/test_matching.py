"""Matching against a loop in whole numbers, and against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.keypoints import matching
from geowarp_ros.keypoints.matching import REST, STRONGEST, Comparison, Nearest, Prepared, match, prepare


def descriptors(count: int, seed: int, like: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Random ones, or those of ``like`` in another order with noise; ``count`` in all."""
    rng = np.random.default_rng(seed)
    random = rng.integers(0, 120, (count, 128))
    if like is not None:
        kept = rng.permutation(len(like))[: count // 2]
        random[: len(kept)] = np.clip(like[kept] + rng.integers(-25, 26, (len(kept), 128)), 0, 255)
    return random.astype(np.uint8)


def by_loop(a: NDArray[np.uint8], b: NDArray[np.uint8], ratio: float) -> list[tuple[int, int]]:
    chosen: dict[int, tuple[int, int]] = {}
    for i, one in enumerate(a.astype(int)):
        squared = ((one - b.astype(int)) ** 2).sum(axis=1)
        order = np.argsort(squared, kind="stable")
        best, second = int(squared[order[0]]), int(squared[order[1]])
        j = int(order[0])
        if best < ratio**2 * second and (j not in chosen or best < chosen[j][0]):
            chosen[j] = (best, i)
    return sorted((i, j) for j, (_, i) in chosen.items())


@pytest.mark.parametrize(("count", "other"), [(40, 30), (300, 500), (257, 2), (1, 600)])
@pytest.mark.parametrize("ratio", [0.7, 0.9, 1.0])
def test_matches_are_those_of_a_loop(count: int, other: int, ratio: float) -> None:
    b = descriptors(other, 1)
    a = descriptors(count, 2, like=b)
    expected = by_loop(a, b, ratio)
    assert [tuple(pair) for pair in match(a, b, ratio).tolist()] == expected
    assert expected or count == 1


def test_matches_are_those_of_opencv_where_each_is_chosen_once() -> None:
    b = descriptors(400, 3)
    a = descriptors(300, 4, like=b)
    two = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a.astype(np.float32), b.astype(np.float32), 2)
    good = [(m.queryIdx, m.trainIdx) for m, n in two if m.distance < 0.8 * n.distance]
    assert len(good) > 100 and len({j for _, j in good}) == len(good)
    assert [tuple(pair) for pair in match(a, b, 0.8).tolist()] == good


@pytest.mark.parametrize(
    ("count", "other", "strongest"), [(200, 300, 120), (40, 300, 120), (200, 30, 120), (9, 1, 5)]
)
def test_parts_that_are_compared_once_match_as_by_themselves(
    count: int, other: int, strongest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks in whatever order, the matches are those of a loop over the descriptors that he asks for."""
    rng = np.random.default_rng(5)
    b = descriptors(other, 6)
    a = descriptors(count, 7, like=b)
    part, usable = rng.integers(0, 3, other).astype(np.int8), rng.random(count) < 0.8
    compared = Comparison(prepare(a, strongest), prepare(b, strongest, part))
    computed, plain = [0], matching.nearest

    def counting(x: Prepared, y: Prepared) -> Nearest:
        computed[0] += len(x.numbers) * len(y.numbers)
        return plain(x, y)

    monkeypatch.setattr(matching, "nearest", counting)
    asked = [((0, 1, 2), (STRONGEST,), None), ((0,), (STRONGEST, REST), usable), ((1,), (STRONGEST, REST), usable)]
    for parts, halves, rows in asked:
        own = np.flatnonzero(np.arange(count) < (strongest if halves == (STRONGEST,) else count))
        own = own if rows is None else own[rows[own]]
        place = np.flatnonzero(
            np.isin(part, parts) & (np.arange(other) < (strongest if REST not in halves else other))
        )
        expected = by_loop(a[own], b[place], 0.8) if len(place) > 1 else []
        found = compared.pairs(0.8, parts, halves, rows)
        assert [tuple(pair) for pair in found.tolist()] == [(own[i], place[j]) for i, j in expected]
        assert expected or other < 40
    assert computed[0] <= count * other, "a distance was computed twice"


def test_extreme_descriptors_do_not_overflow() -> None:
    a = np.stack([np.zeros(128), np.full(128, 255)]).astype(np.uint8)
    assert match(a, a[::-1].copy(), 0.8).tolist() == [[0, 1], [1, 0]]


def test_nothing_to_match() -> None:
    some, none = descriptors(5, 0), np.empty((0, 128), np.uint8)
    for first, second in ((none, some), (some, none), (some, some[:1]), (none, none)):
        assert match(first, second, 0.8).shape == (0, 2)
