from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Photographs, common_frame, read_photographs
from geowarp_ros.lab.training.projection import principal_components, start_projection
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.model.checkpoints import load_model, read_header, save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.matching import pool_local_features
from test.lab.training.street import write_lane
from test.model.weights import regression_of


def cells(count: int = 400) -> torch.Tensor:
    """Cells of 12 channels, most of their variance in a few directions, far from the origin."""
    g = torch.Generator().manual_seed(3)
    mixing = torch.randn(12, 12, generator=g) * torch.logspace(1, -1, 12)[:, None]
    return torch.randn(count, 12, generator=g) @ mixing + 50


def test_components_are_numpys() -> None:
    found = cells()
    weight, bias = principal_components(found, 5)
    centred = found.double().numpy() - found.double().numpy().mean(axis=0)
    rows = np.linalg.svd(centred, full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(np.sum(weight.numpy() * rows, axis=1)), 1.0, atol=1e-5)  # but for the sign
    projected = found @ weight.T + bias
    assert projected.mean(dim=0).abs().max() < 1e-3
    variances = projected.var(dim=0)
    assert (variances[:-1] > variances[1:]).all()


def test_cells_without_enough_directions_are_refused() -> None:
    flat = cells()[:, :3] @ torch.ones(3, 12)
    with pytest.raises(TrainingError, match="400 cells of 12 channels vary in fewer than 4 directions"):
        principal_components(flat, 4)
    with pytest.raises(TrainingError, match="fewer than 13 directions"):
        principal_components(cells(), 13)


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lane(tmp_path_factory.mktemp("data"))


def test_a_started_projection_keeps_what_tells_cells_apart(lane: Path) -> None:
    """Of what differs between cells it keeps far more than the random projection that a model begins with."""
    images = read_photographs([lane / "street"], "train")
    photographs = Photographs(images, common_frame(images), resolution=96)
    with seeded(0):
        model = GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=16, regression=False)).eval()

    def kept() -> float:
        with torch.no_grad():
            maps = model.feature_map(torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(1)))
            assert model.projection is not None
            local = pool_local_features(maps, model.projection)
            assert local.shape == (2, 16, 15, 15)
            projected = model.projection(maps)
        return float(projected.var(dim=(0, 2, 3)).sum() / maps.var(dim=(0, 2, 3)).sum())

    before = kept()
    start_projection(model, photographs)
    assert kept() > 2 * before
    with pytest.raises(TrainingError, match="no projection to start"):
        start_projection(GeoWarp(ModelConfig(regression=False)), photographs)


def test_the_command_line_starts_a_model(lane: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "{grounds: [{path: street, split: train, val_split: val}], resolution: 96}"
    )
    with seeded(4):
        donor = GeoWarp(ModelConfig())
    regression_of(donor).linear.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    save_model(donor, tmp_path / "donor.safetensors")
    words = f"train start {tmp_path / 'recipe.yaml'} --data {lane} --projection 8 --encoder mobilenet_v2"
    files = f"--warp {tmp_path / 'donor.safetensors'} --output {tmp_path / 'start.safetensors'}"
    assert main(f"{words} {files}".split()) == 0
    assert "start.safetensors" in capsys.readouterr().out
    model = load_model(tmp_path / "start.safetensors")
    assert (model.config.encoder, model.channels, model.config.resolution) == ("mobilenet_v2", 8, 96)
    assert torch.equal(regression_of(model).linear.weight, regression_of(donor).linear.weight)
    assert model.projection is not None
    rows = model.projection.weight[:, :, 0, 0]
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), atol=1e-5, rtol=0)
    assert read_header(tmp_path / "start.safetensors")["started_from"] == "scratch"
