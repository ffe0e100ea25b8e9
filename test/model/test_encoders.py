from __future__ import annotations

import pytest
import torch

from geowarp_ros.model.encoders import CHANNELS, EncoderName, build_encoder
from test.model.torchvision_layout import shapes

# METHOD's table, torchvision's name -> place in the truncated network
PLACES = {"features": "", "conv1": "0.", "bn1": "1.", "layer1": "4.", "layer2": "5.", "layer3": "6."}


@pytest.mark.parametrize("name", CHANNELS)
def test_keys_and_shapes_are_torchvisions(name: EncoderName) -> None:
    expected = {}
    for key, shape in shapes(name, head=False).items():
        head, _, rest = key.partition(".")
        expected[PLACES[head] + rest] = shape
    assert {key: tuple(t.shape) for key, t in build_encoder(name).state_dict().items()} == expected


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("alexnet", {0, 3, 6, 8, 10}),
        ("vgg16", {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}),
        ("resnet18", {0, 1, 4, 5, 6}),
        ("resnet50", {0, 1, 4, 5, 6}),
    ],
)
def test_parameters_stand_where_the_method_says(name: EncoderName, numbers: set[int]) -> None:
    assert {int(key.split(".")[0]) for key in build_encoder(name).state_dict()} == numbers


@pytest.mark.parametrize(
    ("name", "cells"), [("alexnet", (6, 9)), ("vgg16", (7, 10)), ("resnet18", (7, 10)), ("resnet50", (7, 10))]
)
def test_feature_map_has_stride_16_and_is_signed_only_without_a_last_relu(
    name: EncoderName, cells: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        feature_map = build_encoder(name).eval()(torch.randn(1, 3, 112, 160))
    assert feature_map.shape == (1, CHANNELS[name], *cells)
    assert (feature_map.min() < 0) == (not name.startswith("resnet"))


def test_resnet18_has_the_promised_size() -> None:
    assert sum(p.numel() for p in build_encoder("resnet18").parameters()) == 2_782_784
