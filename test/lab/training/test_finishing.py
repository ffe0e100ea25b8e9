from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.finishing import Weighed, best_weight, mean_model, read_held_out, weigh_retrieval
from geowarp_ros.lab.training.grounds import Ground
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.model.checkpoints import fingerprint, load_model, read_header, save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from test.lab.training.street import write_street


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_street(data / "street", places=4, shots=3, split="val")
    return data


@pytest.fixture(scope="module")
def model() -> GeoWarp:
    with seeded(0):
        return GeoWarp(ModelConfig())


def test_best_weight_gains_most_where_it_gains_least() -> None:
    weights = (0.0, 1.0, 10.0, 100.0)
    found = [
        Weighed(10, 50.0, np.array([70.0, 60.0, 53.0, 53.0]), 80.0),
        Weighed(90, 40.0, np.array([35.0, 41.0, 44.0, 44.0]), 80.0),
    ]
    assert best_weight(found, weights) == 10.0  # +3 and +4; 0 would gain 20 here and lose 5 there
    assert best_weight(found[:1], weights) == 0.0
    tied = [*found, Weighed(5, 50.0, np.array([50.0, 51.0, 51.0, 51.0]), 80.0)]
    assert best_weight(tied, weights) == 1.0  # +1 at worst, as with 10 and 100, but more on the others


def test_the_mean_of_models(model: GeoWarp) -> None:
    with seeded(1):
        other = GeoWarp(ModelConfig(retrieval_weight=3.0))
    before = model.state_dict()["encoder.0.weight"].clone()
    mean = mean_model([model, other, other])
    expected = (before + 2 * other.state_dict()["encoder.0.weight"]) / 3
    torch.testing.assert_close(mean.state_dict()["encoder.0.weight"], expected)
    assert torch.equal(model.state_dict()["encoder.0.weight"], before)
    assert mean.config == model.config
    assert fingerprint(mean_model([model])) == fingerprint(model)
    with pytest.raises(TrainingError, match="aggregation = 'gem' and 'netvlad'"):
        mean_model([model, GeoWarp(ModelConfig(aggregation="netvlad"))])


def test_a_heavy_weight_is_retrieval(lane: Path, model: GeoWarp) -> None:
    ground = Ground(path="street", split="train", val_split="val", val_radius_m=5.0)
    validation = list(read_held_out([ground], lane).values())
    (found,) = weigh_retrieval(model, validation, weights=(0.0, 1e9), candidates=3)
    assert found.queries == 4
    assert found.reranked[1] == found.retrieval <= found.best_possible
    (few,) = weigh_retrieval(model, validation, weights=(0.0,), candidates=3, most_queries=2)
    assert few.queries == 2


def test_held_out_images_are_looked_for_among_all(lane: Path) -> None:
    ground = Ground(path="street", hold_out=("*/000_*",))
    held_out = read_held_out([ground, Ground(path="elsewhere")], lane)["street"]
    assert [image.place.name for image in held_out.queries] == [f"images/000_{shot}.png" for shot in range(3)]
    assert len(held_out.gallery) == 12
    with pytest.raises(TrainingError, match="nothing to choose the weight by"):
        read_held_out([Ground(path="street")], lane)


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
