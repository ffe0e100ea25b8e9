"""The fused copy answers what the network answers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from geowarp_ros.errors import ConfigError
from geowarp_ros.model import fused as fused_layers
from geowarp_ros.model import inference
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.inference import Precision, for_inference
from test.model.conftest import Models, needs_bfloat16
from test.model.weights import KINDS, make_model

CPU = torch.device("cpu")


def images(seed: int = 0, batch: int = 2, height: int = 70, width: int = 93) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("encoder", KINDS)
@pytest.mark.parametrize("onednn", [True, False])
def test_every_encoder_fused_equals_itself(
    encoder: EncoderName, onednn: bool, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not onednn:
        monkeypatch.setattr(fused_layers, "_onednn_fuses", lambda device: False)
    model = models(encoder)
    fused = for_inference(model, CPU)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.encoder.modules())
    given = images()
    with torch.inference_mode():
        expected, found = model.feature_map(given.clone()), fused.feature_map(given)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(given, images(), atol=0, rtol=0)  # the blocks overwrite what is theirs alone


@pytest.mark.parametrize("onednn", [True, False])
def test_the_regression_fused_equals_itself(onednn: bool, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    if not onednn:
        monkeypatch.setattr(fused_layers, "_onednn_fuses", lambda device: False)
    model = models("resnet18")
    with torch.inference_mode():
        f_q, f_p = model.local_features(images(1)), model.local_features(images(2))
        expected = model.regress(f_q, f_p)
        found = for_inference(model, CPU).regress(f_q, f_p)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_model_stays_as_it_is_and_later_changes_do_not_reach_the_copy() -> None:
    model = make_model("resnet18").train()
    before, keys = fingerprint(model), list(model.state_dict())
    fused = for_inference(model, CPU)
    assert model.training and fingerprint(model) == before and list(model.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.inference_mode():
        answer = fused.feature_map(images())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with torch.inference_mode():
        torch.testing.assert_close(fused.feature_map(images()), answer, atol=0, rtol=0)


@needs_bfloat16
@pytest.mark.parametrize("encoder", KINDS)
def test_bfloat16_keeps_two_digits_and_hands_out_float32(encoder: EncoderName, models: Models) -> None:
    model = models(encoder)
    with torch.inference_mode():
        expected, found = model.feature_map(images()), for_inference(model, CPU, "bfloat16").feature_map(images())
    assert found.dtype == torch.float32
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.03


def test_a_precision_that_the_device_lacks_is_refused(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "cpu_has_bfloat16", lambda: False)
    refused: tuple[tuple[Precision, str], ...] = (("float16", "needs CUDA"), ("bfloat16", "no such instructions"))
    for precision, said in refused:
        with pytest.raises(ConfigError, match=f"^precision = '{precision}': .*{said}"):
            for_inference(models("resnet18"), CPU, precision)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN's limits are names of x86's")
@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE"])
def test_an_instruction_set_without_bfloat16_is_recognised(limit: str) -> None:
    """Both emulate: as a CPU with AVX2 only, and as one of the first with AVX-512, which torch calls able."""
    code = "from geowarp_ros.model.inference import cpu_has_bfloat16; print(cpu_has_bfloat16())"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": limit}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False"]
