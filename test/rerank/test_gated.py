from __future__ import annotations

from dataclasses import replace

import pytest

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.model.describer import Warper
from geowarp_ros.rerank import build_reranker
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.gated import GatedReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from test.rerank.conftest import candidates_of, query_of, textured


class Stub:
    """Gives candidates the scores that it is told, best first, and notes whom it was asked about."""

    def __init__(self, scores):
        self.scores, self.asked = scores, []

    def __call__(self, query, candidates):
        self.asked = [c.index for c in candidates]
        scored = [replace(c, score=self.scores.get(c.index)) for c in candidates]
        return sorted(scored, key=lambda c: -self.value(c))

    def value(self, candidate):
        return float("-inf") if candidate.score is None else candidate.score


def test_the_exact_mode_is_asked_about_those_that_the_fast_one_cannot_tell_apart():
    fast = Stub({0: 0.80, 1: 0.55, 2: 0.79, 3: 0.785})
    exact = Stub({0: 100.0, 2: 90.0, 3: 120.0})
    ranked = GatedReranker(fast, exact, doubt=0.02)(query_of(), candidates_of(range(5)))
    assert exact.asked == [0, 2, 3]
    assert [(c.index, c.score) for c in ranked] == [(3, 120.0), (0, 100.0), (2, 90.0), (1, None), (4, None)]


@pytest.mark.parametrize("candidates", [[], [0], [0, 1, 4]])
def test_where_there_is_no_doubt_the_fast_mode_decides(candidates):
    fast, exact = Stub({0: 0.80, 1: 0.55}), Stub({})
    ranked = GatedReranker(fast, exact, doubt=0.02)(query_of(), candidates_of(candidates))
    assert exact.asked == []
    assert ranked == fast(query_of(), candidates_of(candidates))


def test_between_no_doubt_and_nothing_but_doubt_lie_the_two_modes(gallery, describer):
    query, candidates = describer(textured(7)), candidates_of(range(6))
    fast, exact = FastReranker(gallery, 4, 2.0), GeoWarpReranker(gallery, Warper(describer), 4, 2.0)
    quick, thorough = fast(query, candidates), exact(query, candidates)
    assert [c.index for c in GatedReranker(fast, exact, doubt=-1.0)(query, candidates)] == [c.index for c in quick]
    always = GatedReranker(fast, exact, doubt=1e9)(query, candidates)
    assert [c.index for c in always] == [c.index for c in thorough]
    assert [c.score for c in always[:4]] == pytest.approx([c.score for c in thorough[:4]], rel=1e-5)
    assert always[0].quad_q is not None and always[5].score is None


def test_what_the_fast_mode_sorts_by_is_what_doubt_is_measured_on(gallery, describer):
    fast = FastReranker(gallery, 3, 2.0)
    ranked = fast(describer(textured(7)), candidates_of(range(4)))
    values = [fast.value(c) for c in ranked]
    assert values[:3] == pytest.approx([c.score / 225 - 0.3 * 2.0 * c.distance for c in ranked[:3]])
    assert values[:3] == sorted(values[:3], reverse=True) and values[3] == float("-inf")


def test_the_configuration_chooses_it(gallery, describer):
    config = LocalizerConfig(rerank=RerankConfig(mode="gated", candidates=6))
    assert isinstance(build_reranker(config, gallery, describer), GatedReranker)
