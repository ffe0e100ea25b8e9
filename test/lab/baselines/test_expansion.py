from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.lab.baselines import ExpansionConfig
from geowarp_ros.lab.baselines.expansion import QueryExpansion
from geowarp_ros.lab.baselines.neighbours import gallery_neighbours, unit_rows
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of


def _at(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in the plane."""
    return np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees], np.float32)


def _scores(config: ExpansionConfig, places: NDArray[np.float32], query: NDArray[np.float32]) -> dict[int, float]:
    ranked = QueryExpansion(MemoryGallery(places), config)(query_of(query), candidates_of(range(len(places))))
    return {c.index: score for c, score in zip(ranked, scores_of(ranked), strict=True)}


def test_nothing_averaged_is_the_cosine() -> None:
    config = ExpansionConfig(neighbours=0, augment_neighbours=0)
    scores = _scores(config, 3 * _at(0, 30, 90), 5 * _at(60)[0])
    assert scores == pytest.approx(
        {0: 0.5, 1: math.cos(math.radians(30)), 2: math.cos(math.radians(30))}, abs=1e-6
    )


def test_one_neighbour_at_alpha_0_halves_the_angle() -> None:
    """Query at 0°, nearest at 20°: their mean looks at 10°."""
    config = ExpansionConfig(neighbours=1, augment_neighbours=0, alpha=0.0)
    scores = _scores(config, _at(20, -30, 50), _at(0)[0])
    expected = {i: math.cos(math.radians(a)) for i, a in enumerate((10, 40, 40))}
    assert scores == pytest.approx(expected, abs=1e-6)


def test_alpha_weighs_neighbours_by_their_cosine() -> None:
    """q + cos(60°)²·d, worked by hand: (1 + 0.25·0.5, 0.25·sin 60°)."""
    config = ExpansionConfig(neighbours=1, augment_neighbours=0, alpha=2.0)
    expanded = np.array([1.125, 0.25 * math.sqrt(3) / 2])
    expanded /= np.linalg.norm(expanded)
    assert _scores(config, _at(60), _at(0)[0])[0] == pytest.approx(float(_at(60)[0] @ expanded), abs=1e-6)


def test_augmentation_halves_the_angle_to_the_nearest_place() -> None:
    """Places at 0°, 20°, 90°: each looks half-way to its nearest – 10°, 10°, 55°."""
    config = ExpansionConfig(neighbours=0, augment_neighbours=1, alpha=0.0)
    scores = _scores(config, _at(0, 20, 90), _at(0)[0])
    expected = {i: math.cos(math.radians(a)) for i, a in enumerate((10, 10, 55))}
    assert scores == pytest.approx(expected, abs=1e-6)


def test_expansion_brings_forward_what_the_first_candidates_resemble() -> None:
    """The place at 40° is nearer to the query; the one at -45° is near to the query's two nearest."""
    places = _at(-10, -20, 40, -45)
    plain = _scores(ExpansionConfig(neighbours=0, augment_neighbours=0), places, _at(0)[0])
    expanded = _scores(ExpansionConfig(neighbours=2, augment_neighbours=0), places, _at(0)[0])
    assert plain[2] > plain[3]
    assert expanded[3] > expanded[2]


def test_neighbours_equal_brute_force_also_among_twins() -> None:
    rng = np.random.default_rng(1)
    unit = unit_rows(rng.normal(size=(12, 5)))
    unit[7] = unit[3]  # a place photographed twice
    indices, cosines = gallery_neighbours(unit, 4)
    for row in range(12):
        products = unit @ unit[row]
        products[row] = -2.0
        nearest = np.argsort(-products, kind="stable")[:4]
        assert row not in indices[row]
        assert sorted(indices[row]) == sorted(nearest)
        assert cosines[row] == pytest.approx(products[nearest], abs=1e-5)


def test_neighbours_are_no_more_than_there_are() -> None:
    unit = unit_rows(np.eye(3))
    assert gallery_neighbours(unit, 10)[0].shape == (3, 2)
    assert gallery_neighbours(unit, 0)[0].shape == (3, 0)
    assert gallery_neighbours(unit[:1], 5)[0].shape == (1, 0)
