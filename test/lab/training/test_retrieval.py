from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.cli import main
from geowarp_ros.errors import SourceError, TrainingError
from geowarp_ros.lab.training.data import Photographs, common_frame, read_photographs
from geowarp_ros.lab.training.netvlad import sample_cells, start_from_data
from geowarp_ros.lab.training.parameters import RetrievalTraining
from geowarp_ros.lab.training.retrieval import (
    read_places,
    starting_model,
    train_retrieval,
    validate,
)
from geowarp_ros.lab.training.session import SETTINGS, seeded
from geowarp_ros.model.aggregation import AggregationName, NetVLAD
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.combination import combine
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from test.lab.training.street import HEIGHT, WIDTH, stripes, write_street

QUICK = RetrievalTraining(
    height=HEIGHT, width=WIDTH, batch_size=2, queries_per_round=4, negatives=2, negative_pool=20, iterations=4,
    learning_rate=1e-3, tensorboard=False, save_every=2, tilt=0.1, zoom=0.2,
)  # fmt: skip


def scratch(aggregation: AggregationName = "gem") -> GeoWarp:
    with seeded(0):
        return starting_model("scratch", ModelConfig(aggregation=aggregation, regression=False))


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_street(tmp_path_factory.mktemp("lane"), places=6, shots=3)
    return write_street(folder, places=4, shots=3, first=50, split="val")


@pytest.mark.parametrize("loss", ["triplet", "multi-similarity"])
def test_a_killed_training_goes_on_bit_for_bit(loss: str, lane: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"loss": loss, "save_every": 1, "images_per_place": 2})
    whole, parts = scratch(), scratch()
    train_retrieval([lane], tmp_path / "whole", config, whole)
    train_retrieval([lane], tmp_path / "parts", config.model_copy(update={"iterations": 3}), parts)
    resumed = scratch()
    train_retrieval([lane], tmp_path / "parts", config, resumed, resume=True)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    assert json.loads((tmp_path / "whole" / SETTINGS).read_text())["settings"]["loss"] == loss


def test_no_positives_is_refused_before_training(lane: Path) -> None:
    with pytest.raises(TrainingError, match=r"training: none of 6 queries has a positive within 0\.5 m"):
        read_places([lane], QUICK.model_copy(update={"positive_radius_m": 0.5}))


def test_a_source_without_splits_is_split_by_area(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "street", places=40, shots=3, split="")
    training, validation = read_places([folder], QUICK.model_copy(update={"hold_out": ("0.2",)}))
    apart = np.linalg.norm(training.positions_m[:, None] - validation.positions_m[None], axis=2)
    assert apart.min() >= 25.0 and len(validation) >= 24 and len(training) + len(validation) <= 120
    with pytest.raises(TrainingError, match="have the splits train"):
        read_places([write_street(tmp_path / "train", places=6)], QUICK.model_copy(update={"hold_out": ("0.2",)}))


def test_an_absent_split_is_refused_by_name(lane: Path) -> None:
    with pytest.raises(SourceError, match="no image of split 'validation'"):
        read_places([lane], QUICK.model_copy(update={"val_split": "validation"}))


def test_too_few_images_are_refused(lane: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="expected 30 negatives"):
        train_retrieval([lane], tmp_path / "a", QUICK.model_copy(update={"negatives": 30}), scratch())
    many = QUICK.model_copy(update={"loss": "multi-similarity", "batch_size": 64})
    with pytest.raises(TrainingError, match="fewer than the 64 places of a batch"):
        train_retrieval([lane], tmp_path / "b", many, scratch())


def test_an_image_that_rots_during_training_is_skipped(tmp_path: Path) -> None:
    folder = write_street(tmp_path / "rot", places=6, shots=3)
    write_street(folder, places=4, shots=3, first=50, split="val")
    (folder / "images" / "002_0.png").write_bytes(b"rotten")
    (folder / "images" / "051_2.png").write_bytes(b"rotten")
    model = scratch()
    train_retrieval([folder], tmp_path / "out", QUICK, model)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_validation_equals_brute_force(lane: Path) -> None:
    _, places = read_places([lane], QUICK)
    model = scratch()
    from geowarp_ros.lab.training.data import describe

    descriptors, positions = describe(model, places), places.positions_m
    queries, gallery = places.roles()
    hits = 0
    for query in queries:
        nearest = min(gallery, key=lambda g: float(((descriptors[g] - descriptors[query]) ** 2).sum()))
        hits += bool(np.linalg.norm(positions[nearest] - positions[query]) <= 25.0)
    assert validate(model, places, 25.0, 1) == pytest.approx(100.0 * hits / len(queries))


def test_without_queries_each_image_is_one_but_never_its_own_positive(lane: Path) -> None:
    images = read_photographs([lane], "train/gallery")
    places = Photographs(images, common_frame(images))
    queries, gallery = places.roles()
    assert queries.tolist() == gallery.tolist() == list(range(12))
    for query, near in enumerate(places.near(10.0, queries, gallery)):
        assert near.tolist() == [query ^ 1]  # two shots a place are in the gallery


def test_netvlad_starts_from_the_data(lane: Path) -> None:
    images = read_photographs([lane], "train")
    model = scratch("netvlad")
    cells = sample_cells(model, Photographs(images, common_frame(images)), np.random.default_rng(0))
    assert isinstance(model.pool, NetVLAD)
    centroids = start_from_data(model.pool, cells, seed=0)
    logits = cells @ model.pool.conv.weight.detach().numpy()[:, :, 0, 0].T
    first, second = np.sort(logits, axis=1)[:, [-1, -2]].T
    assert float((first - second).mean()) == pytest.approx(np.log(100.0), rel=1e-3)
    random = np.random.default_rng(0).normal(size=centroids.shape)
    random /= np.linalg.norm(random, axis=1, keepdims=True)

    def misfit(centres: NDArray[np.floating]) -> float:
        return float(((cells[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1).mean())

    assert misfit(centroids) < 0.8 * misfit(cells[:: len(cells) // 64][:64].mean(axis=0, keepdims=True))
    assert misfit(centroids) < 0.5 * misfit(random)
    with pytest.raises(TrainingError, match="63 feature vectors for 64"):
        start_from_data(model.pool, cells[:63], seed=0)


def test_a_model_to_start_from_keeps_its_regression(tmp_path: Path) -> None:
    with seeded(1):
        model = GeoWarp(ModelConfig())
    save_model(model, tmp_path / "start.safetensors")
    started = starting_model(str(tmp_path / "start.safetensors"), ModelConfig(encoder="vgg16"))
    assert started.config.encoder == "resnet18"
    assert all(torch.equal(value, started.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_model_of_two_networks_is_trained_in_parts(tmp_path: Path) -> None:
    with seeded(1):
        model = GeoWarp(ModelConfig(regression=False))
    save_model(combine(model, model), tmp_path / "both.safetensors")
    with pytest.raises(TrainingError, match="retrieves by a network of its own: train that"):
        starting_model(str(tmp_path / "both.safetensors"), ModelConfig())


def test_training_from_scratch_improves_recall(tmp_path: Path) -> None:
    """New photographs of the street in new light: an untrained network mistakes light for place."""
    street = write_street(tmp_path / "street", places=40, wall=stripes)
    write_street(street, places=40, shots=2, first_shot=10, split="val", wall=stripes)
    config = RetrievalTraining(
        loss="multi-similarity", batch_size=10, images_per_place=3, iterations=50, queries_per_round=1000,
        learning_rate=2e-4, height=32, width=48, resolution=32, tilt=0.05, zoom=0.1, colour=0.5, mirror=False,
        batch_norm="frozen", tensorboard=False,
    )  # fmt: skip
    _, places = read_places([street], config)
    model = scratch()
    before = validate(model, places, 25.0, 1)
    train_retrieval([street], tmp_path / "out", config, model)
    after = validate(load_model(tmp_path / "out" / "best.safetensors"), places, 25.0, 1)
    assert after >= before + 15.0, (before, after)


def test_the_command_line_trains(lane: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        f"train retrieval {lane} --output {tmp_path / 'out'} --height 64 --width 96 --batch-size 2 --iterations 1 "
        "--queries-per-round 2 --negatives 2 --no-tensorboard --encoder resnet18 --aggregation netvlad"
    )
    assert main(words.split()) == 0
    assert "best.safetensors" in capsys.readouterr().out
    assert load_model(tmp_path / "out" / "best.safetensors").config.aggregation == "netvlad"
    assert main(words.split()) == 1
    assert "holds a training already" in capsys.readouterr().err
    assert main([*words.split(), "--margin", "-1"]) == 1
    assert "margin = '-1'" in capsys.readouterr().err
