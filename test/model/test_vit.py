"""Vision transformers, small ones; that they are the published ones test_dinov2.py shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.model.encoders import CHANNELS
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.inference import for_inference
from geowarp_ros.model.vit import SIZES, Size, TransformerName, VisionTransformer
from test.model.conftest import needs_bfloat16

CPU = torch.device("cpu")
NAMES: tuple[TransformerName, ...] = ("dinov2_vits14", "dinov2_vits14_reg", "boq_vitb14", "cricavpr_vitb14")
"""One of each kind."""


def drawn(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every parameter and statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                scale = 1 / math.sqrt(tensor[0].numel()) if tensor.ndim > 1 and "embed" not in key else 0.3
                around = 1.0 if key.endswith(("gamma", "running_var", "norm1.weight", "norm2.weight")) else 0.0
                tensor.copy_(around + scale * torch.rand(tensor.shape, generator=generator).mul_(2).sub_(1))
    return network.eval()


def model_of(name: TransformerName) -> GeoWarp:
    model = drawn(GeoWarp(ModelConfig(encoder=name, depth=1, regression=False)))
    model.pool[1].p.data.fill_(3.0)  # type: ignore[index, union-attr]
    assert isinstance(model, GeoWarp)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[-1]))


def naive_tokens(network: VisionTransformer, patches: NDArray[np.float64], places: Tensor) -> NDArray[np.float64]:
    """The equations of Vaswani et al. and Dosovitskiy et al., token by token and head by head."""
    state = {key: t.double().numpy() for key, t in network.state_dict().items()}
    weight, bias = state["patch_embed.proj.weight"].reshape(128, -1), state["patch_embed.proj.bias"]
    x = [state["cls_token"][0, 0], *(weight @ patch.ravel() + bias for patch in patches)]
    x = [token + place for token, place in zip(x, places[0].double().numpy(), strict=True)]
    x[1:1] = list(state["register_tokens"][0])

    def normed(token: NDArray[np.float64], key: str) -> NDArray[np.float64]:
        centred = token - token.mean()
        scaled = centred / np.sqrt((centred**2).mean() + 1e-6)
        return np.asarray(scaled * state[f"{key}.weight"] + state[f"{key}.bias"])

    def linear(token: NDArray[np.float64], key: str) -> NDArray[np.float64]:
        return np.asarray(state[f"{key}.weight"] @ token + state[f"{key}.bias"])

    for block in ("blocks.0", "blocks.1"):
        given = [linear(normed(token, f"{block}.norm1"), f"{block}.attn.qkv") for token in x]
        q, k, v = np.stack([each.reshape(3, 2, 64) for each in given], axis=1)
        for index, token in enumerate(x):
            heads = []
            for head in range(2):
                weights = np.exp(k[:, head] @ q[index, head] / 8)
                heads.append(weights @ v[:, head] / weights.sum())
            mixed = linear(np.concatenate(heads), f"{block}.attn.proj")
            x[index] = token + state[f"{block}.ls1.gamma"] * mixed
        for index, token in enumerate(x):
            hidden = linear(normed(token, f"{block}.norm2"), f"{block}.mlp.fc1")
            gelu = np.array([h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in hidden])
            x[index] = token + state[f"{block}.ls2.gamma"] * linear(gelu, f"{block}.mlp.fc2")
    return np.asarray([normed(token, "norm") for token in x], np.float64)


def test_tokens_equal_the_papers_equations() -> None:
    network = drawn(VisionTransformer(Size(128, 2, registers=4)))
    assert isinstance(network, VisionTransformer)
    network.double()
    image = images(1, 3, 28, 42).double()
    with torch.inference_mode():
        feature_map, token = network.tokens(image)
        positions = network._positions(2, 3)
    patches = [part.numpy() for row in image[0].split(14, 1) for part in row.split(14, 2)]
    expected = naive_tokens(network, np.stack(patches), positions)
    np.testing.assert_allclose(token[0], expected[0], atol=1e-5)  # positions are interpolated in float32
    np.testing.assert_allclose(feature_map[0].flatten(1).T, expected[5:], atol=1e-5)


@pytest.mark.parametrize("registers", [0, 4])
def test_positions_are_the_stored_ones_at_518_px_and_between_them_elsewhere(registers: int) -> None:
    network = VisionTransformer(Size(64, 1, registers))
    assert network._positions(37, 37) is network.pos_embed
    places = torch.arange(37.0)
    with torch.no_grad():  # one channel says the row, one the column
        network.pos_embed[0, 1:, 0] = places.repeat_interleave(37)
        network.pos_embed[0, 1:, 1] = places.repeat(37)
        found = network._positions(11, 20)[0]
    torch.testing.assert_close(found[0], network.pos_embed[0, 0])
    grid = found[1:].unflatten(0, (11, 20))
    for channel, count, along, across in ((0, 11, grid[:, 9], grid[5]), (1, 20, grid[5], grid[:, 9])):
        centres = (torch.arange(count) + 0.5) * 37 / count - 0.5
        torch.testing.assert_close(along[:, channel], centres, atol=0.4, rtol=0)
        assert (across[:, channel] - across[0, channel]).abs().max() < 1e-4


@pytest.mark.parametrize(("side", "cells"), [(14, 1), (20, 1), (22, 2), (224, 16), (6, 1)])
def test_sides_become_the_nearest_multiple_of_14(side: int, cells: int) -> None:
    network = VisionTransformer(Size(64, 1)).eval()
    with torch.inference_mode():
        given = images(2, 3, side, 30)
        feature_map, token = network.tokens(given)
        resized = F.interpolate(given, (14 * cells, 28), mode="bilinear", antialias=True)
        torch.testing.assert_close(network(given), network(resized))
    assert feature_map.shape == (2, 64, cells, 2) and token.shape == (2, 64)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_its_images_one_by_one_and_the_copy_for_inference_the_model(name: TransformerName) -> None:
    model = model_of(name)
    network, given = for_inference(model, CPU, "float32", "auto"), images(3, 3, 84, 126)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with torch.inference_mode():
        together = model.describe(given)
        apart = [network.describe(image[None]) for image in given]
        assert model.feature_map(given).shape == (3, CHANNELS[name], 6, 9)
    for found, expected in zip(zip(*apart, strict=True), together, strict=True):
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-4)
    assert together[1].shape == (3, CHANNELS[name], 15, 15)


@needs_bfloat16
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_keeps_two_digits_and_hands_out_float32(name: TransformerName) -> None:
    model, given = model_of(name), images(2, 3, 84, 126)
    with torch.inference_mode():
        expected, found = model.feature_map(given), for_inference(model, CPU, "bfloat16").feature_map(given)
    assert found.dtype == torch.float32
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.03


def test_onnxruntime_is_refused_by_name_and_auto_is_torch() -> None:
    model = model_of("dinov2_vits14")
    with pytest.raises(ModelError, match="runtime = 'onnxruntime': cannot compute this network"):
        for_inference(model, CPU, "float32", "onnxruntime")
    assert isinstance(for_inference(model, CPU, "float32", "auto").encoder, VisionTransformer)


def test_a_transformer_cut_short_has_the_first_blocks() -> None:
    whole = ModelConfig(encoder="dinov2_vits14", regression=False)
    short = ModelConfig(encoder="dinov2_vits14", depth=2, regression=False)
    assert "depth" not in whole.model_dump() and short.model_dump()["depth"] == 2
    keys = {key.split(".")[2] for key in GeoWarp(short).state_dict() if key.startswith("encoder.blocks.")}
    assert keys == {"0", "1"}
    assert len(VisionTransformer(SIZES["dinov2_vits14"]).blocks) == 12


@pytest.mark.parametrize(
    ("name", "millions"), [("dinov2_vits14", 21), ("dinov2_vitb14", 86), ("dinov2_vitl14", 300)]
)
def test_sizes_are_those_of_dinov2s_table(name: TransformerName, millions: int) -> None:
    with torch.device("meta"):
        for of in (SIZES[name], SIZES[f"{name}_reg"]):  # type: ignore[index]
            count = sum(parameter.numel() for parameter in VisionTransformer(of).parameters())
            assert count / 1e6 == pytest.approx(millions, rel=0.06)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"encoder": "dinov2_vits14", "depth": 13}, "depth = 13: expected at most 12"),
        ({"encoder": "resnet18", "depth": 2}, "depth = 2: expected at most 0 with encoder = 'resnet18'"),
        ({"encoder": "resnet18", "aggregation": "salad"}, "'salad': expected a vision transformer: one of dinov2"),
    ],
)
def test_what_does_not_go_together_is_refused(entries: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(ModelConfig, entries)
