from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.lab.baselines import DiffusionConfig
from geowarp_ros.lab.baselines.diffusion import Diffusion, normalised_affinity
from geowarp_ros.lab.baselines.neighbours import unit_rows
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of


def _dense_affinity(unit: NDArray[np.float32], config: DiffusionConfig) -> NDArray[np.float64]:
    """The definition, edge by edge."""
    count = len(unit)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2.0)
    nearest = [set(np.argsort(-row)[: config.neighbours]) for row in cosines]
    affinity = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i in nearest[j] and j in nearest[i]:
                affinity[i, j] = max(cosines[i, j], 0.0) ** config.gamma
    degrees = affinity.sum(axis=1)
    scale = np.array([d**-0.5 if d > 0 else 0.0 for d in degrees])
    affinity *= scale[:, None] * scale[None]
    return affinity


def test_scores_equal_the_closed_form() -> None:
    """f = (I - alpha·S)⁻¹ y, solved densely."""
    rng = np.random.default_rng(0)
    places, query = rng.random((20, 6)), rng.random(6)
    config = DiffusionConfig(neighbours=4, query_neighbours=3, alpha=0.95, gamma=2.0)
    unit = unit_rows(places)
    affinity = _dense_affinity(unit, config)
    assert normalised_affinity(unit, config).toarray() == pytest.approx(affinity, abs=1e-5)
    cosines = unit @ unit_rows(query[None])[0]
    start = np.argsort(-cosines)[:3]
    y = np.zeros(20)
    y[start] = cosines[start] ** 2
    expected = np.linalg.solve(np.eye(20) - 0.95 * affinity, y)
    ranked = Diffusion(MemoryGallery(places), config)(query_of(query), candidates_of(range(20)))
    assert np.array([c.score for c in sorted(ranked, key=lambda c: c.index)]) == pytest.approx(expected, abs=1e-4)
    assert scores_of(ranked) == sorted(scores_of(ranked), reverse=True)


def test_it_follows_a_chain_that_cosines_do_not_see() -> None:
    """Two arcs leave the query's neighbourhood; only one of them holds together."""
    chain, far = np.radians([0, 12, 24, 36, 48, 60]), np.radians([-55])
    angles = np.concatenate([chain, far])
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    config = DiffusionConfig(neighbours=2, query_neighbours=1, alpha=0.95)
    ranked = Diffusion(MemoryGallery(places), config)(query_of([1.0, 0.0]), candidates_of(range(7)))
    order = [c.index for c in ranked]
    assert order.index(5) < order.index(6), "60° on the chain before 55° off it"


def test_without_spread_only_the_start_has_a_score_and_the_rest_keeps_its_order() -> None:
    rng = np.random.default_rng(2)
    places = rng.random((8, 4))
    config = DiffusionConfig(query_neighbours=2, alpha=0.0)
    candidates = candidates_of([5, 1, 7, 0, 2, 3, 6, 4])
    ranked = Diffusion(MemoryGallery(places), config)(query_of(rng.random(4)), candidates)
    assert [score > 0 for score in scores_of(ranked)] == [True, True] + [False] * 6
    started = {c.index for c in ranked[:2]}
    assert [c.index for c in ranked[2:]] == [c.index for c in candidates if c.index not in started]


def test_a_lone_place_has_no_edges_and_does_no_harm() -> None:
    ranked = Diffusion(MemoryGallery(np.ones((1, 3))), DiffusionConfig())(query_of(np.ones(3)), candidates_of([0]))
    assert ranked[0].score == pytest.approx(1.0)
