"""The fused copy answers what the network answers."""

from __future__ import annotations

import pytest
import torch

from geowarp_ros.errors import ConfigError
from geowarp_ros.model import inference
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.inference import for_inference
from test.model.weights import make_model

CPU = torch.device("cpu")


def images(seed=0, batch=2, height=70, width=93):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("encoder", ["alexnet", "vgg16", "resnet18", "resnet50"])
@pytest.mark.parametrize("onednn", [True, False])
def test_every_encoder_fused_equals_itself(encoder, onednn, models, monkeypatch):
    if not onednn:
        monkeypatch.setattr(inference, "_onednn_fuses", lambda device: False)
    model = models(encoder)
    fused = for_inference(model, CPU)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.encoder.modules())
    given = images()
    with torch.inference_mode():
        expected, found = model.feature_map(given.clone()), fused.feature_map(given)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    torch.testing.assert_close(given, images(), atol=0, rtol=0)  # the blocks overwrite what is theirs alone


@pytest.mark.parametrize("onednn", [True, False])
def test_the_regression_fused_equals_itself(onednn, models, monkeypatch):
    if not onednn:
        monkeypatch.setattr(inference, "_onednn_fuses", lambda device: False)
    model = models("resnet18")
    with torch.inference_mode():
        f_q, f_p = model.local_features(images(1)), model.local_features(images(2))
        expected = model.regress(f_q, f_p)
        found = for_inference(model, CPU).regress(f_q, f_p)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_model_stays_as_it_is_and_later_changes_do_not_reach_the_copy():
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


@pytest.mark.parametrize("encoder", ["alexnet", "vgg16", "resnet18", "resnet50"])
def test_bfloat16_keeps_two_digits_and_hands_out_float32(encoder, models):
    if not inference._cpu_has_bfloat16():
        with pytest.raises(ConfigError, match="no such instructions"):
            for_inference(models(encoder), CPU, "bfloat16")
        return
    model = models(encoder)
    with torch.inference_mode():
        expected, found = model.feature_map(images()), for_inference(model, CPU, "bfloat16").feature_map(images())
    assert found.dtype == torch.float32
    error = (found - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.03


def test_a_precision_that_the_device_lacks_is_refused(models, monkeypatch):
    monkeypatch.setattr(inference, "_cpu_has_bfloat16", lambda: False)
    for precision, said in (("float16", "needs CUDA"), ("bfloat16", "no such instructions")):
        with pytest.raises(ConfigError, match=f"^precision = '{precision}': .*{said}"):
            for_inference(models("resnet18"), CPU, precision)
