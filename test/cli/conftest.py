"""A model that is made in no time, a gallery that nobody opens, a terminal."""

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


@pytest.fixture
def g(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``g`` name a gallery, for verbs whose localizer is a stand-in."""
    folder = tmp_path_factory.mktemp("galleries")
    (folder / "g").mkdir()
    (folder / "g" / "gallery.json").touch()
    monkeypatch.chdir(folder)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what capsys captures be a terminal: bars are shown."""
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: True, raising=False)
