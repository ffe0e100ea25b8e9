from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.errors import ModelError, SourceError
from geowarp_ros.evaluation.dataset import Contender, DatasetConfig, evaluate_model
from geowarp_ros.evaluation.sets import read_sets
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import distance_m
from geowarp_ros.images import read_image
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig

PLACES = 8
STEP_DEG = 20 / 111_132  # about 20 m of latitude


def _textured(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return cv2.resize(coarse, (96, 80), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight places 20 m apart; each query sees one of them shifted, 3 m away; the last is far from everything."""
    folder = tmp_path_factory.mktemp("set")
    rows = [["filename", "latitude", "longitude", "split"]]
    for i in range(PLACES):
        cv2.imwrite(str(folder / f"g_{i:03d}.png"), _textured(i))
        rows.append([f"g_{i:03d}.png", f"{45 + i * STEP_DEG:.8f}", "9.0", "gallery"])
    for i in range(4):
        cv2.imwrite(str(folder / f"g_{i:03d}q.png"), np.roll(_textured(i), 6, axis=1))
        north = 45 + i * STEP_DEG + 3 / 111_132 if i < 3 else 46.0
        rows.append([f"g_{i:03d}q.png", f"{north:.8f}", "9.0", "query"])
    with (folder / "positions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def contender() -> Contender:
    torch.manual_seed(0)
    return Contender("random", "ResNet-18", "GeM", Describer(GeoWarp(ModelConfig()), "cpu"))


@pytest.fixture(scope="module")
def gallery(folder, contender, tmp_path_factory) -> Gallery:
    output = tmp_path_factory.mktemp("galleries") / "all"
    build_gallery(read_sets(folder).gallery, contender.describer, output)
    return Gallery.open(output)


def _config(*methods: str, **values: object) -> DatasetConfig:
    return DatasetConfig(rerank=methods, recalls=(1, 5), **values)


def test_retrieval_equals_brute_force(folder, contender, gallery):
    sets = read_sets(folder)
    (outcome,), unreadable = evaluate_model(contender, gallery, sets.queries, _config("none"))
    assert unreadable == []
    assert outcome.error_m.shape == (4, 5)
    for row, query in enumerate(sets.queries):
        descriptor = contender.describer(read_image(query.path)).descriptor
        nearest = np.argsort(((gallery.descriptors - descriptor) ** 2).sum(axis=1))[:5]
        assert [c.index for c in outcome.ranked[row]] == nearest.tolist()
        here = query.place
        expected = [
            float(distance_m(here.latitude_deg, here.longitude_deg, p.latitude_deg, p.longitude_deg))
            for p in (gallery.places[index] for index in nearest)
        ]
        assert outcome.error_m[row] == pytest.approx(expected, rel=1e-4)
    assert outcome.nearest_m[:3] == pytest.approx([3.0] * 3, abs=0.02)
    assert outcome.nearest_m[3] > 100_000
    assert (outcome.describe_ms > 0).all()
    assert outcome.place_bytes == 256 * 4


def test_every_method_is_asked_the_same_and_keeps_its_candidates(folder, contender, gallery):
    methods = ("none", "geowarp", "geowarp-unwarped", "qe-dba", "diffusion", "sift", "dense-ransac", "one-way")
    outcomes, _ = evaluate_model(contender, gallery, read_sets(folder).queries, _config(*methods))
    assert [outcome.method for outcome in outcomes] == list(methods)
    plain = {row: {c.index for c in ranked} for row, ranked in enumerate(outcomes[0].ranked)}
    for outcome in outcomes:
        assert outcome.queries == outcomes[0].queries
        if outcome.method not in ("qe-dba", "diffusion"):  # five re-ranked of five shown: the same set
            assert {row: {c.index for c in ranked} for row, ranked in enumerate(outcome.ranked)} == plain
    sift = next(outcome for outcome in outcomes if outcome.method == "sift")
    assert (sift.error_m[:3, 0] < 4).all(), "a shifted texture is verified beyond doubt"


def test_neighbours_in_the_sequence_are_left_out(folder, contender, gallery):
    methods = ("none", "qe-dba", "sift")
    config = _config(*methods, exclude_neighbours=2)
    outcomes, _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    for outcome in outcomes:
        for number, ranked in enumerate(outcome.ranked):
            assert ranked
            assert all(abs(c.index - number) > 2 for c in ranked), outcome.method
        # the nearest place that remains of query 0 is number 3: 60 m less the query's own 3 m
        assert outcome.nearest_m[0] == pytest.approx(57.0, abs=0.1)


def test_fewer_places_than_candidates_are_shown_as_none(folder, contender, gallery):
    config = DatasetConfig(rerank=("none",), recalls=(20,))
    (outcome,), _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    assert np.isfinite(outcome.error_m[:, :PLACES]).all()
    assert np.isinf(outcome.error_m[:, PLACES:]).all()


def test_an_unreadable_query_is_named_and_the_others_answered(folder, contender, gallery, tmp_path):
    queries = list(read_sets(folder).queries)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    queries[1] = type(queries[1])(queries[1].place, lambda: read_image(broken))
    (outcome,), unreadable = evaluate_model(contender, gallery, queries, _config("none"))
    assert unreadable == ["g_001q.png"]
    assert len(outcome.queries) == 3
    with pytest.raises(SourceError, match="no query can be read: 1 of 1"):
        evaluate_model(contender, gallery, queries[1:2], _config("none"))


def test_a_method_without_its_weights_is_refused_before_any_query(folder, contender, gallery):
    with pytest.raises(ModelError, match=r"rerank\.weights = ''"):
        evaluate_model(contender, gallery, read_sets(folder).queries, _config("loftr"))


def test_memory_and_time_are_measured(folder, contender, gallery):
    config = _config("geowarp", localizer=LocalizerConfig(rerank=RerankConfig(candidates=8)))
    (outcome,), _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    assert (outcome.total_ms > outcome.rerank_ms).all()
    assert all(math.isnan(mib) or mib >= 0 for mib in outcome.peak_mib)
