from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.model.describer import Describer, Query, Warper
from geowarp_ros.rerank import build_reranker
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.gated import GatedReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from geowarp_ros.types import Candidate
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of, textured


class Stub:
    """Gives candidates the scores that it is told, best first, and notes whom it was asked about."""

    def __init__(self, scores: dict[int, float]) -> None:
        self.scores = scores
        self.asked: list[int] = []

    def __call__(self, query: Query, candidates: Sequence[Candidate]) -> list[Candidate]:
        self.asked = [c.index for c in candidates]
        scored = [replace(c, score=self.scores.get(c.index)) for c in candidates]
        return sorted(scored, key=lambda c: -self.value(c))

    def value(self, candidate: Candidate) -> float:
        return float("-inf") if candidate.score is None else candidate.score


def test_the_exact_mode_is_asked_about_those_that_the_fast_one_cannot_tell_apart() -> None:
    fast: Any = Stub({0: 0.80, 1: 0.55, 2: 0.79, 3: 0.785})
    exact: Any = Stub({0: 0.4, 2: 0.3, 3: 0.5})
    ranked = GatedReranker(fast, exact, doubt=0.02)(query_of(), candidates_of(range(5)))
    assert exact.asked == [0, 2, 3]
    assert [(c.index, c.score) for c in ranked] == [(3, 0.5), (0, 0.4), (2, 0.3), (1, None), (4, None)]


@pytest.mark.parametrize("candidates", [[], [0], [0, 1, 4]])
def test_where_there_is_no_doubt_the_fast_mode_decides(candidates: list[int]) -> None:
    fast: Any = Stub({0: 0.80, 1: 0.55})
    exact: Any = Stub({})
    ranked = GatedReranker(fast, exact, doubt=0.02)(query_of(), candidates_of(candidates))
    assert exact.asked == []
    assert ranked == fast(query_of(), candidates_of(candidates))


def test_between_no_doubt_and_nothing_but_doubt_lie_the_two_modes(
    gallery: MemoryGallery, describer: Describer
) -> None:
    query, candidates = describer(textured(7)), candidates_of(range(4))
    fast, exact = FastReranker(gallery, 2.0), GeoWarpReranker(gallery, Warper(describer), 2.0)
    quick, thorough = fast(query, candidates), exact(query, candidates)
    assert [c.index for c in GatedReranker(fast, exact, doubt=-1.0)(query, candidates)] == [c.index for c in quick]
    always = GatedReranker(fast, exact, doubt=1e9)(query, candidates)
    assert [c.index for c in always] == [c.index for c in thorough]
    assert [c.score for c in always] == pytest.approx([c.score for c in thorough], rel=1e-5)
    assert {c.score_unit for c in always} == {"mean cosine"} and {c.score_unit for c in quick} == {"correlation"}
    assert all(c.quad_q is not None for c in always)


def test_what_the_fast_mode_sorts_by_is_what_doubt_is_measured_on(
    gallery: MemoryGallery, describer: Describer
) -> None:
    fast = FastReranker(gallery, 2.0)
    ranked = fast(describer(textured(7)), candidates_of(range(4)))
    values = [fast.value(c) for c in ranked]
    assert values == pytest.approx(
        [s - 0.3 * 2.0 * c.distance for c, s in zip(ranked, scores_of(ranked), strict=True)]
    )
    assert values == sorted(values, reverse=True)
    assert fast.value(candidates_of([0])[0]) == float("-inf")  # without a score


def test_the_configuration_chooses_it(gallery: MemoryGallery, describer: Describer) -> None:
    reranker = build_reranker(LocalizerConfig(rerank=RerankConfig(mode="gated")), gallery, describer)
    assert isinstance(reranker, GatedReranker)
