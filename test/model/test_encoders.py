from __future__ import annotations

import numpy as np
import pytest
import torch

from geowarp_ros.model.encoders import CHANNELS, EncoderName, build_encoder
from test.model import naive
from test.model.torchvision_layout import shapes
from test.model.weights import CONVOLUTIONAL, make_model

# METHOD's table, torchvision's name -> place in the truncated network
PLACES = {
    "features": "",
    "conv1": "0.",
    "bn1": "1.",
    "layer1": "4.",
    "layer2": "5.",
    "layer3": "6.",
    "layer4": "7.",
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_keys_and_shapes_are_torchvisions(name: EncoderName) -> None:
    expected = {}
    for key, shape in shapes(name, head=False).items():
        head, _, rest = key.partition(".")
        expected[PLACES[head] + rest] = shape
    with torch.device("meta"):
        found = {key: tuple(t.shape) for key, t in build_encoder(name).state_dict().items()}
    assert found == expected


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("alexnet", {0, 3, 6, 8, 10}),
        ("vgg16", {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}),
        ("resnet18", {0, 1, 4, 5, 6}),
        ("resnet50", {0, 1, 4, 5, 6}),
        ("mobilenet_v2", set(range(15))),
        ("resnet101_layer4", {0, 1, 4, 5, 6, 7}),
    ],
)
def test_parameters_stand_where_the_method_says(name: EncoderName, numbers: set[int]) -> None:
    with torch.device("meta"):
        assert {int(key.split(".")[0]) for key in build_encoder(name).state_dict()} == numbers


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_feature_map_has_stride_16_or_32_and_is_signed_only_without_a_last_relu(name: EncoderName) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        feature_map = build_encoder(name).eval()(torch.randn(1, 3, 112, 160))
    cells = (6, 9) if name == "alexnet" else (4, 5) if name.endswith("_layer4") else (7, 10)
    assert feature_map.shape == (1, CHANNELS[name], *cells)
    assert (feature_map.min() < 0) == (name in ("alexnet", "vgg16"))


def test_resnet18_has_the_promised_size() -> None:
    assert sum(p.numel() for p in build_encoder("resnet18").parameters()) == 2_782_784


@pytest.mark.parametrize("size", [(48, 64), (53, 77)])
def test_mobilenet_equals_its_papers_table_in_float64(size: tuple[int, int]) -> None:
    model = make_model("mobilenet_v2").double()
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        found = model.encoder(image[None])[0].numpy()
    expected = naive.encode("mobilenet_v2", model.state_dict(), image.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.shape == (576, -(-size[0] // 16), -(-size[1] // 16))
    assert 0.1 < (found == 0).mean() < 0.9 and (found < 6).mean() > 0.5  # neither end of ReLU6 is all there is
