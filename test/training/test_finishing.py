from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.cli import main
from geowarp_ros.gallery.readers import read_source
from geowarp_ros.model.checkpoints import load_model, read_header, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.training.finishing import Weighed, best_weight, weigh_retrieval
from geowarp_ros.training.grounds import Ground, read_validation
from geowarp_ros.training.recall import retrieve
from geowarp_ros.training.session import seeded
from test.training.street import write_street


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_street(data / "street", places=4, shots=3, split="val")
    return data


@pytest.fixture(scope="module")
def model() -> GeoWarp:
    with seeded(0):
        return GeoWarp(ModelConfig())


def test_best_weight_is_that_of_the_best_mean_and_the_smallest_of_equals() -> None:
    found = [
        Weighed(10, 50.0, np.array([50.0, 60.0, 58.0, 58.0]), 80.0),
        Weighed(90, 50.0, np.array([50.0, 50.0, 54.0, 54.0]), 80.0),
    ]
    assert best_weight(found, (0.0, 1.0, 10.0, 100.0)) == 10.0
    assert best_weight(found[:1], (0.0, 1.0, 10.0, 100.0)) == 1.0


def test_a_heavy_weight_is_retrieval(lane: Path, model: GeoWarp) -> None:
    ground = Ground(path="street", split="train", val_split="val", val_radius_m=5.0)
    validation = read_validation([ground], lane, resolution=0, memory_mb=10)
    (found,) = weigh_retrieval(model, validation, weights=(0.0, 1e9), candidates=3)
    assert found.queries == 4
    assert found.reranked[1] == found.retrieval <= found.best_possible
    (few,) = weigh_retrieval(model, validation, weights=(0.0,), candidates=3, most_queries=2)
    assert few.queries == 2


def test_a_query_is_no_candidate_of_its_own(lane: Path, model: GeoWarp) -> None:
    images = read_source(lane / "street").images
    found = retrieve(Describer(model, "cpu"), images, images, candidates=11)
    for row, candidates in enumerate(found.indices):
        assert sorted(candidates) == [other for other in range(12) if other != row]
    descriptors = np.stack([query.descriptor for query in found.queries]).astype(float)
    expected = ((descriptors[:, None] - descriptors[found.indices]) ** 2).sum(axis=2)
    np.testing.assert_allclose(found.distance, expected, rtol=1e-4, atol=1e-6)


def test_the_command_writes_a_model_that_ships(
    lane: Path, model: GeoWarp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(model, tmp_path / "in.safetensors")
    (tmp_path / "recipe.yaml").write_text("{grounds: [{path: street, val_split: val, val_radius_m: 5.0}]}")
    files = f"--data {lane} --model {tmp_path / 'in.safetensors'} --output {tmp_path / 'out.safetensors'}"
    assert main(f"train finish {tmp_path / 'recipe.yaml'} {files} --resolution 64 --candidates 3".split()) == 0
    said = capsys.readouterr().out
    assert "| street (4) |" in said and "best of 3" in said
    finished = load_model(tmp_path / "out.safetensors")
    assert finished.config.resolution == 64
    assert f"retrieval_weight {finished.config.retrieval_weight:g};" in said
    assert read_header(tmp_path / "out.safetensors")["made_by"] == "geowarp train finish"
    smaller = (tmp_path / "out.safetensors").stat().st_size / (tmp_path / "in.safetensors").stat().st_size
    assert smaller < 0.55
