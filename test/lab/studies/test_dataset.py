from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from geowarp_ros.config import LocalizerConfig, RerankConfig, parse_config
from geowarp_ros.errors import ModelError, SourceError
from geowarp_ros.evaluation.asking import Question, ask, way, without_places_within
from geowarp_ros.evaluation.calibration import collect
from geowarp_ros.evaluation.sets import Neighbours, read_sets
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.manifest import StoredModel
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import distance_m
from geowarp_ros.images import read_image
from geowarp_ros.lab.benchmark.synthetic import write_gallery
from geowarp_ros.lab.studies.dataset import Contender, DatasetConfig, evaluate_model
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import Image

PLACES = 8
STEP_DEG = 20 / 111_132  # about 20 m of latitude


def _textured(seed: int) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (96, 80), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def gallery(folder: Path, contender: Contender, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    output = tmp_path_factory.mktemp("galleries") / "all"
    build_gallery(read_sets(folder).gallery, contender.describer, output)
    return Gallery.open(output)


def _config(*methods: str, **values: object) -> DatasetConfig:
    return DatasetConfig(rerank=methods, recalls=(1, 5), **values)


def test_retrieval_equals_brute_force(folder: Path, contender: Contender, gallery: Gallery) -> None:
    sets = read_sets(folder)
    (outcome,), unreadable = evaluate_model(contender, gallery, sets.queries, _config("none"))
    assert unreadable == []
    assert outcome.error_m.shape == (4, 5)
    for row, query in enumerate(sets.queries):
        descriptor = contender.describer(query.read()).descriptor
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


def test_every_method_is_asked_the_same_and_keeps_its_candidates(
    folder: Path, contender: Contender, gallery: Gallery
) -> None:
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


def test_neighbours_in_the_sequence_are_left_out(folder: Path, contender: Contender, gallery: Gallery) -> None:
    methods = ("none", "qe-dba", "sift")
    config = _config(*methods, exclude_neighbours=2)
    outcomes, _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    for outcome in outcomes:
        for number, ranked in enumerate(outcome.ranked):
            assert ranked
            assert all(abs(c.index - number) > 2 for c in ranked), outcome.method
        # the nearest place that remains of query 0 is number 3: 60 m less the query's own 3 m
        assert outcome.nearest_m[0] == pytest.approx(57.0, abs=0.1)


def test_fewer_places_than_candidates_are_shown_as_none(
    folder: Path, contender: Contender, gallery: Gallery
) -> None:
    config = DatasetConfig(rerank=("none",), recalls=(20,))
    (outcome,), _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    assert np.isfinite(outcome.error_m[:, :PLACES]).all()
    assert np.isinf(outcome.error_m[:, PLACES:]).all()


def test_an_unreadable_query_is_named_and_the_others_answered(
    folder: Path, contender: Contender, gallery: Gallery, tmp_path: Path
) -> None:
    queries = list(read_sets(folder).queries)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    queries[1] = type(queries[1])(queries[1].place, lambda: read_image(broken))
    (outcome,), unreadable = evaluate_model(contender, gallery, queries, _config("none"))
    assert unreadable == ["g_001q.png"]
    assert len(outcome.queries) == 3
    with pytest.raises(SourceError, match="no query can be read: 1 of 1"):
        evaluate_model(contender, gallery, queries[1:2], _config("none"))


def test_a_method_without_its_weights_is_refused_before_any_query(
    folder: Path, contender: Contender, gallery: Gallery
) -> None:
    with pytest.raises(ModelError, match=r"matcher_weights = '': loftr needs weights"):
        evaluate_model(contender, gallery, read_sets(folder).queries, _config("loftr"))


def test_memory_and_time_are_measured(folder: Path, contender: Contender, gallery: Gallery) -> None:
    config = _config("geowarp", localizer=LocalizerConfig(rerank=RerankConfig(candidates=8)))
    (outcome,), _ = evaluate_model(contender, gallery, read_sets(folder).queries, config)
    assert (outcome.total_ms > outcome.rerank_ms).all()
    assert all(math.isnan(mib) or mib >= 0 for mib in outcome.peak_mib)


CITY = 1700


@pytest.fixture(scope="module")
def city(contender: Contender, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """1700 places of one model, ten at each point of a lattice of 10 m; descriptors of no images."""
    folder, model = tmp_path_factory.mktemp("city"), contender.describer.model
    cv2.imwrite(str(folder / "place.png"), _textured(0))
    stored = StoredModel(
        fingerprint=contender.describer.fingerprint,
        config=model.config,
        descriptor_dim=model.descriptor_dim,
        channels=model.channels,
    )
    write_gallery(folder / "gallery", CITY, model.descriptor_dim, 0, stored, folder / "place.png")
    return Gallery.open(folder / "gallery")


def _plain_localizer(contender: Contender, gallery: Gallery) -> Localizer:
    config = parse_config(LocalizerConfig, {"rerank": {"method": "none"}, "position": {"verify": "none"}})
    return Localizer.of(contender.describer, gallery, config)


@pytest.mark.parametrize("apart", [492, 750])  # 985 and 1501 places left out
def test_twenty_candidates_are_found_however_many_places_are_left_out(
    apart: int, contender: Contender, city: Gallery
) -> None:
    query = SourceImage(city.places[800], lambda: _textured(1))
    descriptor = contender.describer(_textured(1)).descriptor
    distances = ((city.descriptors - descriptor) ** 2).sum(axis=1)
    distances[800 - apart : 800 + apart + 1] = np.inf
    nearest = np.argsort(distances, kind="stable")[:20].tolist()
    leave_out = Neighbours(city.places, apart)
    assert len(leave_out(query.place)) == 2 * apart + 1
    (asked,) = ask(contender.describer, [Question.of(query)], [way(_plain_localizer(contender, city), leave_out)])
    assert [c.index for c in asked.ranked[0].candidates] == nearest
    config = DatasetConfig(rerank=("none", "qe-dba"), recalls=(20,), exclude_neighbours=apart)
    (plain, expanded), _ = evaluate_model(contender, city, [query], config)
    assert [c.index for c in plain.ranked[0]] == nearest
    assert len(expanded.ranked[0]) == 20
    assert all(np.isfinite(outcome.error_m).all() for outcome in (plain, expanded))


def test_a_calibration_loses_no_answer_where_a_thousand_places_are_left_out(
    contender: Contender, city: Gallery
) -> None:
    localizer, far = _plain_localizer(contender, city), without_places_within(city, 65.0)
    places = {row: city.places[row] for row in (905, 915)}
    questions = [Question(place.name, partial(_textured, row), place) for row, place in places.items()]
    assert all(len(far(place)) > 980 for place in places.values())
    as_it_is, without = collect(localizer, questions, (way(localizer), way(localizer, far)), 25.0)
    for collected in (as_it_is, without):
        assert [len(sample.evidence.weights) for sample in collected.samples] == [20, 20]
    assert all(sample.error_m > 55.0 for sample in without.samples)
