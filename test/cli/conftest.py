"""A model that is made in no time."""

from __future__ import annotations

import pytest
import torch

from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", regression=False)), path)
    return str(path)
