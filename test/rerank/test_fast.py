from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.rerank import build_reranker
from geowarp_ros.rerank.fast import FastReranker, coherence, likeness
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of, textured


def _unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    features: NDArray[np.float32] = rng.normal(size=shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=-3, keepdims=True)
    return features


def _naive(f_q: NDArray[np.float32], f_p: NDArray[np.float32]) -> tuple[float, float]:
    """Likeness and coherence by loops over cells (row, column) and pairs of matches."""
    cells = [(i, j) for i in range(15) for j in range(15)]
    cosine = {(a, b): float(f_q[:, a[0], a[1]] @ f_p[:, b[0], b[1]]) for a in cells for b in cells}
    best_p = {a: max((cosine[a, b], b) for b in cells)[1] for a in cells}
    best_q = {b: max((cosine[a, b], a) for a in cells)[1] for b in cells}
    like = (sum(cosine[a, best_p[a]] for a in cells) + sum(cosine[best_q[b], b] for b in cells)) / 450
    matches = [(a, best_p[a]) for a in cells if best_q[best_p[a]] == a]
    alike = pairs = 0
    for number, (a, b) in enumerate(matches):
        for other, (c, d) in enumerate(matches):
            if other != number and abs(a[0] - c[0]) <= 4 and abs(a[1] - c[1]) <= 4:
                pairs += 1
                moved = [(b[k] - a[k]) - (d[k] - c[k]) for k in (0, 1)]
                alike += max(abs(moved[0]), abs(moved[1])) <= 1
    return like, alike / pairs


def test_likeness_and_coherence_equal_loops() -> None:
    rng = np.random.default_rng(0)
    f_q = _unit(rng, 6, 15, 15)
    f_p = np.roll(f_q, (2, -1), axis=(1, 2)) + rng.normal(scale=0.3, size=f_q.shape)
    f_p = (f_p / np.linalg.norm(f_p, axis=0)).astype(np.float32)
    products = f_q.reshape(6, 225).T @ f_p.reshape(6, 225)
    like, alike = _naive(f_q, f_p)
    assert 0.1 < alike < 0.9
    assert likeness(products) == pytest.approx(like, abs=1e-5)
    assert coherence(products) == pytest.approx(alike, abs=1e-9)


def test_the_same_image_has_everything_and_a_shift_costs_nothing_but_the_border() -> None:
    f = _unit(np.random.default_rng(1), 32, 15, 15)
    itself = f.reshape(32, 225).T @ f.reshape(32, 225)
    assert likeness(itself) == pytest.approx(1, abs=1e-5) and coherence(itself) == 1.0
    shifted = np.roll(f, 3, axis=2).reshape(32, 225)
    moved = f.reshape(32, 225).T @ shifted
    assert likeness(moved) == pytest.approx(1, abs=1e-5)
    assert 0.8 < coherence(moved) < 1.0  # what left on one side came in on the other


def test_matches_that_agree_on_nothing_and_a_lone_match_have_no_coherence() -> None:
    assert coherence(np.eye(225, dtype=np.float32)[np.random.default_rng(0).permutation(225)]) < 0.1
    lone = np.zeros((225, 225), np.float32)
    lone[:, 7] = lone[3, :] = 0.5  # every cell likes cell 7 best, and cell 7 likes cell 3 best
    lone[3, 7] = 1.0
    assert coherence(lone) == 0.0


def test_candidates_are_sorted_by_score_and_retrieval(describer: Describer) -> None:
    rng = np.random.default_rng(2)
    local = _unit(rng, 4, 8, 15, 15).astype(np.float16)
    query = query_of(local=local[2:3].astype(np.float32))
    gallery = MemoryGallery(np.zeros((4, 1)), local_features=local)
    ranked = FastReranker(gallery)(query, candidates_of([0, 1, 2, 3]))
    assert ranked[0].index == 2 and scores_of(ranked) == sorted(scores_of(ranked), reverse=True)
    assert ranked[0].score == pytest.approx(1.1, rel=1e-3)
    assert ranked[0].score_unwarped == pytest.approx(1.0, rel=1e-3)
    key = {c.index: s - 0.3 * 2.0 * c.distance for c, s in zip(ranked, scores_of(ranked), strict=True)}
    mixed = FastReranker(gallery, retrieval_weight=2.0)(query, candidates_of([0, 1, 2, 3]))
    assert [c.index for c in mixed] == sorted(key, key=lambda index: -key[index])


def test_the_configuration_chooses_it_and_no_encoder_pass_is_made(
    gallery: MemoryGallery, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, candidates = describer(gallery.images[3]), candidates_of(range(6))
    reranker = build_reranker(LocalizerConfig(rerank=RerankConfig(mode="fast")), gallery, describer)

    def refuse(*_: object) -> None:
        raise AssertionError("an encoder pass")

    monkeypatch.setattr(describer.network.encoder, "forward", refuse)
    monkeypatch.setattr(gallery, "image", refuse, raising=False)
    assert reranker(query, candidates)[0].index == 3


def test_fast_needs_no_regression(gallery: MemoryGallery) -> None:
    torch.manual_seed(0)
    plain = Describer(GeoWarp(ModelConfig(regression=False)), "cpu")
    query = replace(plain(textured(3)), local_features=torch.zeros(1, 256, 15, 15))
    reranker = build_reranker(LocalizerConfig(rerank=RerankConfig(mode="fast")), gallery, plain)
    assert len(reranker(query, candidates_of([0, 1]))) == 2
