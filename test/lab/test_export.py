"""What ONNX Runtime makes of the exported graphs is what the network makes of the same images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.cli import main
from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import full_frame
from geowarp_ros.lab.export import export_onnx
from geowarp_ros.model.checkpoints import fingerprint, save_model
from geowarp_ros.model.combination import combine
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from test.model.weights import make_model


def run(path: Path, **inputs: Tensor) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return outputs


def assert_equal(found: Sequence[NDArray[Any]], expected: Sequence[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == tuple(theirs.shape)
        assert np.abs(ours - theirs.numpy()).max() <= 1e-4 * float(theirs.abs().max())


@pytest.fixture(scope="module")
def model() -> GeoWarp:
    return make_model("resnet18")


@pytest.fixture(scope="module")
def graphs(model: GeoWarp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, of a saved model."""
    folder = tmp_path_factory.mktemp("onnx")
    save_model(model, folder / "model.safetensors")
    command = ["export", "--model", str(folder / "model.safetensors"), "--size", "96x80"]
    assert main([*command, "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.parametrize("batch", [1, 3])
def test_features_and_regression_equal_the_networks(batch: int, model: GeoWarp, graphs: Path) -> None:
    images = torch.randn(2 * batch, 3, 80, 96, generator=torch.Generator().manual_seed(batch))
    with torch.inference_mode():
        descriptors, local_features = model.describe(images)
        quads = model.regress(local_features[:batch], local_features[batch:])
    assert_equal(run(graphs / "features.onnx", images=images), (descriptors, local_features))
    pair = {"f_q": local_features[:batch], "f_p": local_features[batch:]}
    assert_equal(run(graphs / "regression.onnx", **pair), quads)
    assert (quads[0] - full_frame(batch, quads[0])).abs().max() > 0.1  # the quads say something


def test_graphs_are_whole_and_say_whose_they_are(model: GeoWarp, graphs: Path) -> None:
    for name in ("features.onnx", "regression.onnx"):
        graph = onnx.load(graphs / name)
        onnx.checker.check_model(graph)
        about = {item.key: item.value for item in graph.metadata_props}
        assert about["geowarp_fingerprint"] == fingerprint(model)
        assert json.loads(about["geowarp_config"])["encoder"] == "resnet18"


def test_netvlad_without_a_regression_is_one_graph(tmp_path: Path) -> None:
    model = make_model("alexnet", "netvlad", regression=False)
    (path,) = export_onnx(model, tmp_path, 80, 96)
    images = torch.randn(2, 3, 80, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_equal(run(path, images=images), model.describe(images))


def test_what_resizes_its_input_resizes_in_the_graph(tmp_path: Path) -> None:
    square = make_model("resnet18", regression=False, resolution=64, square=True)
    images = torch.randn(2, 3, 96, 80, generator=torch.Generator().manual_seed(0))
    for number, model in enumerate((square, combine(square, make_model("alexnet", regression=False)))):
        (path,) = export_onnx(model, tmp_path / str(number), 96, 80)
        with torch.inference_mode():
            assert_equal(run(path, images=images), model.describe(images))


def test_a_transformer_with_its_class_token_is_one_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(encoder="dinov2_vits14", depth=1, aggregation="salad", regression=False)
    model = GeoWarp(config).eval()
    (path,) = export_onnx(model, tmp_path, 120, 160)  # sides that are no multiples of 14
    images = torch.randn(3, 3, 120, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_equal(run(path, images=images), model.describe(images))


def test_without_the_packages_the_extra_is_named(
    model: GeoWarp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError, match=r"onnxscript.*geowarp_ros\[export\]"):
        export_onnx(model, tmp_path, 80, 96)
