"""What all the baselines have in common: they are built by their names and rank as the product's re-rankers do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from geowarp_ros.config import LocalizerConfig, RerankMethod
from geowarp_ros.errors import ModelError
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines import WITH_WEIGHTS, Baseline, BaselinesConfig, Method, build_method
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.rerank import Reranker
from test.rerank.conftest import MemoryGallery, candidates_of, scores_of, textured

WITHOUT_WEIGHTS = [method for method in get_args(Baseline) if method not in WITH_WEIGHTS]


def build(method: Method, gallery: Gallery, describer: Describer, without: Collection[int] = ()) -> Reranker:
    return build_method(method, LocalizerConfig(), BaselinesConfig(), gallery, describer, without)


@pytest.mark.parametrize("method", WITHOUT_WEIGHTS)
def test_every_method_returns_the_same_candidates_and_finds_the_query_itself(
    method: Baseline, gallery: MemoryGallery, describer: Describer
) -> None:
    reranker = build(method, gallery, describer)
    ranked = reranker(describer(gallery.images[3]), candidates_of([0, 1, 3, 5, 4, 2]))
    assert sorted(c.index for c in ranked) == [0, 1, 2, 3, 4, 5]
    if method != "one-way":  # random warps: no oracle but the brute force of test_one_way
        assert ranked[0].index == 3
    scores = scores_of(ranked)
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("method", WITHOUT_WEIGHTS)
def test_no_candidates_are_no_trouble(method: Baseline, gallery: MemoryGallery, describer: Describer) -> None:
    assert build(method, gallery, describer)(describer(textured(9)), []) == []


def test_a_warp_needs_a_regression(gallery: MemoryGallery) -> None:
    plain = Describer(GeoWarp(ModelConfig(regression=False)), "cpu")
    with pytest.raises(ModelError, match="no warping regression"):
        build("one-way", gallery, plain)


def test_the_products_methods_are_built_as_the_product_does(gallery: MemoryGallery, describer: Describer) -> None:
    from geowarp_ros.rerank import build_reranker

    query, candidates = describer(textured(7)), candidates_of(range(6))
    for method in set(get_args(RerankMethod)) - set(WITH_WEIGHTS):
        config = LocalizerConfig.model_validate({"rerank": {"method": method}})
        product = build_reranker(config, gallery, describer)
        ours, theirs = build(method, gallery, describer)(query, candidates), product(query, candidates)
        assert [(c.index, c.score) for c in ours] == [(c.index, c.score) for c in theirs]


def test_rows_left_out_do_not_help(describer: Describer) -> None:
    """With and without its twin in the gallery a place is augmented differently."""
    rng = np.random.default_rng(0)
    descriptors = rng.random((5, 8)).astype(np.float32)
    descriptors[4] = descriptors[0] + 0.01
    gallery = MemoryGallery(descriptors)
    query = describer(textured(1))
    query = replace(query, descriptor=rng.random(8).astype(np.float32))
    candidates = candidates_of([0, 1, 2, 3])
    for method in ("qe-dba", "diffusion"):
        whole = build(method, gallery, describer)(query, candidates)
        without = build(method, gallery, describer, without=[4])(query, candidates)
        alone = build(method, MemoryGallery(descriptors[:4]), describer)(query, candidates)
        assert {c.index: c.score for c in without} == pytest.approx({c.index: c.score for c in alone})
        assert {c.index: c.score for c in whole} != pytest.approx({c.index: c.score for c in without}, abs=1e-4)
