from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.errors import ModelError
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.rerank import build_reranker
from geowarp_ros.rerank.order import best_first, best_with_retrieval
from test.rerank.conftest import MemoryGallery, candidates_of, textured

WITHOUT_WEIGHTS = (
    "none",
    "geowarp",
    "geowarp-unwarped",
    "one-way",
    "qe-dba",
    "diffusion",
    "dense-ransac",
    "sift",
    "orb",
)


def _config(method: str, **options: object) -> LocalizerConfig:
    return LocalizerConfig(rerank=RerankConfig(method=method, **options))


def test_largest_score_first_equals_keep_their_order_and_nan_is_last():
    scores = [1.0, float("nan"), 3.0, None, 1.0, 3.0]
    scored = [replace(c, score=s) for c, s in zip(candidates_of(range(6)), scores, strict=True)]
    assert [c.index for c in best_first(scored)] == [2, 5, 0, 4, 1, 3]


def test_retrieval_has_its_say_by_its_weight_and_nan_stays_last():
    """Mean cosines 0.4, 0.5, 0.6 at distances 0, 0.1, 0.2: a weight beyond 1 turns their order."""
    scores = [90.0, 112.5, 135.0, float("nan")]
    scored = [replace(c, score=s) for c, s in zip(candidates_of(range(4)), scores, strict=True)]
    assert [c.index for c in best_with_retrieval(scored, 0.0)] == [2, 1, 0, 3]
    assert [c.index for c in best_with_retrieval(scored, 0.9)] == [2, 1, 0, 3]
    assert [c.index for c in best_with_retrieval(scored, 1.1)] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", WITHOUT_WEIGHTS)
def test_every_method_returns_the_same_candidates_and_finds_the_query_itself(method, gallery, describer):
    query = describer(gallery.images[3])
    candidates = candidates_of([0, 1, 3, 5, 4, 2])
    ranked = build_reranker(_config(method, candidates=3), gallery, describer)(query, candidates)
    assert sorted(c.index for c in ranked) == [0, 1, 2, 3, 4, 5]
    if method == "none":
        assert ranked == candidates
    elif method != "one-way" and method != "geowarp":  # random warps: no oracle but the brute force below
        assert ranked[0].index == 3
    if method not in ("qe-dba", "diffusion"):
        assert ranked[3:] == candidates[3:], "what was not re-ranked keeps its order"


@pytest.mark.parametrize("method", WITHOUT_WEIGHTS)
def test_no_candidates_are_no_trouble(method, gallery, describer):
    assert build_reranker(_config(method), gallery, describer)(describer(textured(9)), []) == []


@pytest.mark.parametrize("method", ["geowarp", "one-way"])
def test_a_warp_needs_a_regression(method, gallery):
    plain = Describer(GeoWarp(ModelConfig(regression=False)), "cpu")
    with pytest.raises(ModelError, match="no warping regression"):
        build_reranker(_config(method), gallery, plain)


def test_rows_left_out_do_not_help(describer):
    """With and without its twin in the gallery a place is augmented differently."""
    rng = np.random.default_rng(0)
    descriptors = rng.random((5, 8)).astype(np.float32)
    descriptors[4] = descriptors[0] + 0.01
    gallery = MemoryGallery(descriptors)
    query = describer(textured(1))
    query = replace(query, descriptor=rng.random(8).astype(np.float32))
    candidates = candidates_of([0, 1, 2, 3])
    for method in ("qe-dba", "diffusion"):
        whole = build_reranker(_config(method), gallery, describer)(query, candidates)
        without = build_reranker(_config(method), gallery, describer, without=[4])(query, candidates)
        alone = build_reranker(_config(method), MemoryGallery(descriptors[:4]), describer)(query, candidates)
        assert {c.index: c.score for c in without} == pytest.approx({c.index: c.score for c in alone})
        assert {c.index: c.score for c in whole} != pytest.approx({c.index: c.score for c in without}, abs=1e-4)
