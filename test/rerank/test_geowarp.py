from __future__ import annotations

import pytest
import torch

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.images import to_tensor
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.rerank import build_reranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from test.rerank.conftest import MemoryGallery, candidates_of, scores_of, textured


def test_scores_and_quads_are_those_of_the_whole_network_pair_by_pair(
    gallery: MemoryGallery, describer: Describer, model: GeoWarp
) -> None:
    """Stored local features (float16) and batches do not change what GeoWarp.match says of each pair."""
    image = textured(7)
    ranked = GeoWarpReranker(gallery, Warper(describer))(describer(image), candidates_of(range(6)))
    assert scores_of(ranked) == sorted(scores_of(ranked), reverse=True)
    for candidate in ranked:
        with torch.inference_mode():
            score, quad_q, quad_p = model.match(to_tensor(image), to_tensor(gallery.images[candidate.index]))
        assert candidate.score == pytest.approx(float(score) / 225, rel=1e-3)
        assert candidate.quad_q == pytest.approx(quad_q[0].numpy(), abs=5e-3)
        assert candidate.quad_p == pytest.approx(quad_p[0].numpy(), abs=5e-3)


def test_a_retrieval_weight_mixes_the_distance_into_the_order(
    gallery: MemoryGallery, describer: Describer, model: GeoWarp
) -> None:
    query, candidates = describer(textured(7)), candidates_of(range(6))
    plain = GeoWarpReranker(gallery, Warper(describer))(query, candidates)
    mixed = GeoWarpReranker(gallery, Warper(describer), retrieval_weight=0.02)(query, candidates)
    key = {c.index: score - 0.02 * c.distance for c, score in zip(plain, scores_of(plain), strict=True)}
    assert [c.index for c in mixed] == sorted(key, key=lambda index: -key[index])
    assert {c.index: c.score for c in mixed} == {c.index: c.score for c in plain}
    ruled = GeoWarpReranker(gallery, Warper(describer), retrieval_weight=1000.0)(query, candidates)
    assert [c.index for c in ruled] == list(range(6))  # retrieval's order


def test_the_models_own_weight_holds_unless_another_is_asked_for(
    gallery: MemoryGallery, describer: Describer, model: GeoWarp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "config", model.config.model_copy(update={"retrieval_weight": 1000.0}))
    query, candidates = describer(textured(7)), candidates_of(range(6))

    def order(**rerank: float) -> list[int]:
        reranker = build_reranker(LocalizerConfig(rerank=RerankConfig(**rerank)), gallery, describer)
        return [c.index for c in reranker(query, candidates)]

    assert order() == list(range(6))
    plain = GeoWarpReranker(gallery, Warper(describer))(query, candidates)
    assert order(retrieval_weight=0.0) == [c.index for c in plain] != list(range(6))
