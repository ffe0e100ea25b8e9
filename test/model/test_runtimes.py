"""ONNX Runtime answers what torch answers, and who is asked."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.geometry import full_frame
from geowarp_ros.model import runtimes
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer, Warper, open_describer
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.fused import Fused
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import for_inference
from geowarp_ros.model.runtimes import OnnxLayers, Runtime, graph_of
from test.model.conftest import Models, picture
from test.model.weights import KINDS, make_model, regression_of

CPU = torch.device("cpu")


def images(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


def runtimes_of(network: GeoWarp) -> tuple[str, str]:
    """Of encoder and regression."""
    layers = network.encoder, regression_of(network).conv
    first, second = ("onnxruntime" if isinstance(each, OnnxLayers) else "torch" for each in layers)
    return first, second


def assert_equal(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("encoder", KINDS)
def test_every_encoder_at_any_size_and_batch(encoder: EncoderName, models: Models) -> None:
    model = models(encoder)
    network = for_inference(model, CPU, "float32", "onnxruntime")
    assert runtimes_of(network) == ("onnxruntime", "onnxruntime")
    with torch.inference_mode():
        for shape in ((1, 70, 93), (3, 64, 80), (2, 97, 65)):
            assert_equal(network.feature_map(images(*shape)), model.feature_map(images(*shape)))
            for found, expected in zip(
                network.describe(images(*shape)), model.describe(images(*shape)), strict=True
            ):
                assert_equal(found, expected)


def test_the_regression_of_any_number_of_pairs(models: Models) -> None:
    model = models("resnet18")
    network = for_inference(model, CPU, "float32", "onnxruntime")
    with torch.inference_mode():
        for pairs in (1, 4):
            f_q, f_p = model.local_features(images(pairs, 64, 80)), model.local_features(images(pairs, 80, 64))
            expected = model.regress(f_q, f_p)
            torch.testing.assert_close(network.regress(f_q, f_p), expected, atol=1e-5, rtol=0)
            assert (expected[0] - full_frame(pairs, f_q)).abs().max() > 0.05  # the quads say something


@pytest.mark.parametrize("projection", [0, 24])
def test_images_are_described_and_warped_alike(projection: int) -> None:
    """The whole way, with candidates of one size (a batch) and of several (one by one)."""
    model = make_model("mobilenet_v2", resolution=48, projection=projection)
    described: list[list[np.ndarray]] = []
    for runtime in ("torch", "onnxruntime"):
        describer = Describer(model, CPU, "float32", runtime)
        assert describer.runtime == runtime
        candidates = [
            describer.prepare(picture(*size, seed=n)) for n, size in enumerate([(60, 80), (60, 80), (72, 64)])
        ]
        descriptors, features = describer.describe_batch(candidates)
        query = describer(picture(60, 80, seed=9))
        scores = Warper(describer)(query, candidates, features)
        described.append([query.descriptor, descriptors, features, scores.score, scores.quads_q, scores.quads_p])
    for by_torch, by_onnx in zip(*described, strict=True):
        np.testing.assert_allclose(
            by_onnx, by_torch, atol=1e-4 * np.abs(by_torch).max() + 1e-3 * (by_torch.dtype == np.float16)
        )
    assert np.ptp(described[0][3]) > 0.1


@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
def test_auto_takes_the_faster(capability: str, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    chosen = {
        name: runtimes_of(for_inference(models(name), CPU, runtime="auto"))
        for name in ("resnet18", "mobilenet_v2")
    }
    resnet = "onnxruntime" if capability == "AVX512" else "torch"
    assert chosen == {"resnet18": (resnet, "torch"), "mobilenet_v2": ("onnxruntime", "torch")}
    assert for_inference(models("resnet18"), CPU, runtime="torch").encoder.__class__ is Fused


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_without_the_package_auto_is_torch_and_the_name_is_refused(
    package: str, models: Models, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with caplog.at_level(logging.INFO):
        assert runtimes_of(for_inference(models("mobilenet_v2"), CPU, runtime="auto")) == ("torch", "torch")
    assert f"needs {package}, which is not installed: pip install 'geowarp_ros[fast]'" in caplog.text
    with pytest.raises(ModelError, match=rf"^runtime = 'onnxruntime': needs {package}.*geowarp_ros\[fast\]"):
        for_inference(models("mobilenet_v2"), CPU, runtime="onnxruntime")


def test_a_graph_that_fails_is_torchs_with_a_warning(
    models: Models, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtimes, "graph_of", lambda layers: b"no graph")
    network = for_inference(models("mobilenet_v2"), CPU, runtime="auto")
    assert runtimes_of(network) == ("torch", "torch")
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "cannot compute this network" in record.message
    with pytest.raises(ModelError, match="cannot compute this network"):
        for_inference(models("mobilenet_v2"), CPU, runtime="onnxruntime")


def test_where_it_does_not_compute_it_is_refused(models: Models) -> None:
    with pytest.raises(ConfigError, match=r"^runtime = 'onnxruntime': computes on a CPU and the device is cuda"):
        runtimes.check_runtime("onnxruntime", torch.device("cuda"), "float32")
    with pytest.raises(ConfigError, match="computes in float32 and precision = 'bfloat16'"):
        runtimes.check_runtime("onnxruntime", CPU, "bfloat16")


def test_the_graph_is_valid_and_knows_its_layers(models: Models) -> None:
    onnx.checker.check_model(
        onnx.load_from_string(graph_of(Fused(models("mobilenet_v2").encoder, CPU, torch.float32)))
    )
    with pytest.raises(TypeError, match="no ONNX for GELU"):
        graph_of(Fused(nn.Sequential(nn.GELU()), CPU, torch.float32))


def test_nothing_is_reported_to_anybody(tmp_path: Path) -> None:
    # ONNX Runtime 1.29 and later keep an identifier of the device and a queue of events in the home folder
    asked = (
        "import sys, torch\nfrom torch import nn\n"
        "from geowarp_ros.model.fused import Fused\nfrom geowarp_ros.model.runtimes import OnnxLayers\n"
        "layers = Fused(nn.Sequential(nn.ReLU()), torch.device('cpu'), torch.float32)\n"
        "OnnxLayers(layers)(torch.zeros(1, 3, 4, 4))\n"
    )
    quiet = ("CI", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", asked], env=env, check=True, timeout=120)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_the_settings_name_runtime_and_threads(runtime: Runtime, tmp_path: Path, models: Models) -> None:
    save_model(models("resnet18"), tmp_path / "m.safetensors")
    before = torch.get_num_threads()
    try:
        describer = open_describer(
            LocalizerConfig(model=str(tmp_path / "m.safetensors"), device="cpu", runtime=runtime, threads=2)
        )
        assert torch.get_num_threads() == 2
        assert describer.runtime == runtime
        if isinstance(describer.network.encoder, OnnxLayers):
            assert describer.network.encoder._session.get_session_options().intra_op_num_threads == 2
    finally:
        torch.set_num_threads(before)
