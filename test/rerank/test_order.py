from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest

from geowarp_ros.config import (
    LearnedMatcher,
    LocalizerConfig,
    MatchMethod,
    RerankConfig,
    RerankMethod,
    RerankMode,
)
from geowarp_ros.errors import ModelError
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.learned import keypoints_of
from geowarp_ros.rerank import Reranker, build_reranker
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.order import best_first, best_with_retrieval
from geowarp_ros.rerank.verification import KIND_OF
from test.rerank.conftest import MemoryGallery, candidates_of, scores_of, textured
from test.untrained import store

METHODS = get_args(RerankMethod)


@pytest.fixture(scope="module", autouse=True)
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks that nobody trained, where those of others are looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path_factory.mktemp("weights"))))
        yield


def _gallery(method: RerankMethod, gallery: MemoryGallery) -> MemoryGallery:
    """The gallery, with the keypoints that the method matches."""
    kind = KIND_OF.get(method, "sift")
    if kind == "sift":
        return gallery
    config = keypoints_of(kind).model_copy(update={"count": 200})
    return MemoryGallery(gallery.descriptors, gallery.images, keypoints=config)


def _build(method: RerankMethod, gallery: Gallery, describer: Describer) -> Reranker:
    return build_reranker(LocalizerConfig(rerank=RerankConfig(method=method, mode="exact")), gallery, describer)


def test_largest_score_first_equals_keep_their_order_and_nan_is_last() -> None:
    scores = [1.0, float("nan"), 3.0, None, 1.0, 3.0]
    scored = [replace(c, score=s) for c, s in zip(candidates_of(range(6)), scores, strict=True)]
    assert [c.index for c in best_first(scored)] == [2, 5, 0, 4, 1, 3]


def test_retrieval_has_its_say_by_its_weight_and_nan_stays_last() -> None:
    """Mean cosines 0.4, 0.5, 0.6 at distances 0, 0.1, 0.2: a weight beyond 1 turns their order."""
    scores = [0.4, 0.5, 0.6, float("nan")]
    scored = [replace(c, score=s) for c, s in zip(candidates_of(range(4)), scores, strict=True)]
    assert [c.index for c in best_with_retrieval(scored, 0.0)] == [2, 1, 0, 3]
    assert [c.index for c in best_with_retrieval(scored, 0.9)] == [2, 1, 0, 3]
    assert [c.index for c in best_with_retrieval(scored, 1.1)] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_returns_the_same_candidates_and_finds_the_query_itself(
    method: RerankMethod, gallery: MemoryGallery, describer: Describer
) -> None:
    query = describer(gallery.images[3])
    candidates = candidates_of([0, 1, 3, 5, 4, 2])
    reranker = _build(method, _gallery(method, gallery), describer)
    ranked = reranker(query, candidates)
    assert sorted(c.index for c in ranked) == [0, 1, 2, 3, 4, 5]
    if method == "none":
        assert ranked == candidates
        return
    # random warps: no oracle but the whole network, pair by pair; random matches: none here
    if method != "geowarp" and method not in get_args(LearnedMatcher):
        assert ranked[0].index == 3
    scores = scores_of(ranked)
    assert scores == sorted(scores, reverse=True)
    units = {c.score_unit for c in ranked}
    if method in get_args(MatchMethod):
        assert units == {"inliers"} and scores == [c.inliers for c in ranked]
    else:
        assert units == {"mean cosine"} and all(-1.0 <= score <= 1.0 + 1e-3 for score in scores)


@pytest.mark.parametrize("method", METHODS)
def test_no_candidates_are_no_trouble(method: RerankMethod, gallery: MemoryGallery, describer: Describer) -> None:
    assert _build(method, _gallery(method, gallery), describer)(describer(textured(9)), []) == []


def test_a_warp_needs_a_regression(gallery: MemoryGallery) -> None:
    plain = Describer(GeoWarp(ModelConfig(regression=False)), "cpu")
    with pytest.raises(ModelError, match="no warping regression"):
        _build("geowarp", gallery, plain)


def test_without_a_regression_gated_is_fast_and_says_so(
    gallery: MemoryGallery, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Describer(GeoWarp(ModelConfig(regression=False)), "cpu")
    modes: tuple[RerankMode, ...] = ("fast", "gated")
    fast, gated = (
        build_reranker(LocalizerConfig(rerank=RerankConfig(mode=mode)), gallery, plain) for mode in modes
    )
    assert type(fast) is type(gated) is FastReranker
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no warping regression: rerank.mode = 'gated' is the fast mode alone" in caplog.text
