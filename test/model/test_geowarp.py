from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.autograd import gradcheck

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.geometry import full_frame, warp
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig, sized
from geowarp_ros.model.inference import for_inference
from geowarp_ros.model.regression import WarpRegression
from geowarp_ros.model.runtimes import Runtime
from test.model import naive
from test.model.weights import make_model, published


def local_features(seed: int, batch: int = 2, channels: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    f = torch.randn(batch, channels, 15, 15, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(f, dim=1)


@pytest.fixture(scope="module")
def double() -> GeoWarp:
    return make_model("resnet18").double()


def test_regression_has_the_published_keys_and_starts_at_the_full_frame() -> None:
    regression = WarpRegression().eval()
    expected = {"linear.weight": (16, 64), "linear.bias": (16,)}
    channels = (225, 128, 128, 64, 64, 64, 64)
    for block, kernel in enumerate((7, 5, 5, 5, 5, 5)):
        expected[f"conv.{3 * block}.weight"] = (channels[block + 1], channels[block], kernel, kernel)
        expected[f"conv.{3 * block}.bias"] = (channels[block + 1],)
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"conv.{3 * block + 1}.{name}"] = (channels[block + 1],)
        expected[f"conv.{3 * block + 1}.num_batches_tracked"] = ()
    assert {key: tuple(t.shape) for key, t in regression.state_dict().items()} == expected
    with torch.no_grad():
        quads = regression(torch.rand(3, 225, 15, 15))
    frame = full_frame(3, quads)
    torch.testing.assert_close(quads, torch.cat([frame, frame], dim=1), atol=0, rtol=0)


def test_regress_equals_the_mean_of_both_orders(double: GeoWarp) -> None:
    f_q, f_p = local_features(1), local_features(2)
    with torch.no_grad():
        quads_q, quads_p = double.regress(f_q, f_p)
    state = published(double)[1]
    for row in range(2):
        a, b = f_q[row].numpy(), f_p[row].numpy()
        first_qp, second_qp = naive.regression(state, naive.correlate(a, b))
        first_pq, second_pq = naive.regression(state, naive.correlate(b, a))
        np.testing.assert_allclose(quads_q[row], (first_qp + second_pq) / 2, atol=1e-9)
        np.testing.assert_allclose(quads_p[row], (second_qp + first_pq) / 2, atol=1e-9)
        assert np.abs(first_qp - second_pq).max() > 1e-3  # R is not symmetric: the mean is no formality


def test_regress_of_the_swapped_pair_is_swapped(double: GeoWarp) -> None:
    with torch.no_grad():
        there = double.regress(local_features(1), local_features(2))
        back = double.regress(local_features(2), local_features(1))
    torch.testing.assert_close(there, back[::-1], atol=1e-12, rtol=0)


def test_regress_has_true_gradients(double: GeoWarp) -> None:
    f_q, f_p = local_features(1, 1).requires_grad_(), local_features(2, 1).requires_grad_()
    assert gradcheck(double.regress, (f_q, f_p), fast_mode=True, atol=1e-4)


def test_match_of_a_batch_equals_one_by_one(double: GeoWarp) -> None:
    g = torch.Generator().manual_seed(0)
    image_q, image_p = (torch.randn(2, 3, h, 64, generator=g, dtype=torch.float64) for h in (48, 56))
    with torch.inference_mode():
        batch = double.match(image_q, image_p)
        single = [double.match(image_q[row : row + 1], image_p[row : row + 1]) for row in range(2)]
    for ours, parts in zip(batch, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(parts), atol=1e-9, rtol=0)


def test_a_projection_is_of_every_cell_before_its_length_is_one() -> None:
    model = make_model("mobilenet_v2", projection=20).double()
    assert model.projection is not None and model.projection.bias is not None
    model.projection.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    image = torch.randn(1, 3, 80, 96, dtype=torch.float64)
    with torch.inference_mode():
        feature_map, features = model.feature_map(image)[0], model.local_features(image)[0]
    weight, bias = (p.detach().numpy() for p in (model.projection.weight[:, :, 0, 0], model.projection.bias))
    projected = np.einsum("nc,chw->nhw", weight, feature_map.numpy()) + bias[:, None, None]
    np.testing.assert_allclose(features, naive.local_features(projected), atol=1e-9)


def test_an_untrained_model_warps_nothing() -> None:
    model = GeoWarp(ModelConfig()).eval()
    image = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        score, quad_q, quad_p = model.match(image, image)
        torch.testing.assert_close(quad_q, full_frame(1, image))
        torch.testing.assert_close(warp(image, quad_p), image, atol=1e-5, rtol=0)
    assert score.item() == pytest.approx(225, abs=0.05)


def test_without_regression_a_model_describes_and_refuses_to_regress() -> None:
    model = GeoWarp(ModelConfig(regression=False)).eval()
    assert not any(key.startswith("regression") for key in model.state_dict())
    descriptor, features = model.describe(torch.randn(1, 3, 48, 64))
    assert descriptor.shape == (1, model.descriptor_dim) == (1, 256)
    assert features.shape == (1, model.channels, 15, 15)
    with pytest.raises(ModelError, match="no warping regression"):
        model.regress(features, features)


@pytest.mark.parametrize(
    ("shorter", "square", "expected"),
    [
        (32, False, (32, 43)),
        (60, False, (60, 80)),
        (90, False, (60, 80)),
        (0, False, (60, 80)),
        (32, True, (32, 32)),
    ],
)
def test_an_encoder_gets_the_size_it_is_made_for(shorter: int, square: bool, expected: tuple[int, int]) -> None:
    image = torch.randn(1, 3, 60, 80, generator=torch.Generator().manual_seed(1))
    found = sized(image, shorter, square)
    assert tuple(found.shape[-2:]) == expected
    for ours, channel in zip(found[0], image[0], strict=True):
        pillow = Image.fromarray(channel.numpy()).resize(expected[::-1], Image.Resampling.BICUBIC)
        np.testing.assert_allclose(ours, np.asarray(pillow), atol=1e-5)
    assert sized(found, shorter, square) is found  # what has the size is left as it is


def test_a_square_input_is_enlarged_too_and_local_features_see_it() -> None:
    images = torch.randn(2, 3, 40, 90, generator=torch.Generator().manual_seed(2))
    plain, square = make_model("resnet18"), make_model("resnet18", resolution=48, square=True)
    with torch.inference_mode():
        given = sized(images, 48, square=True)
        assert given.shape == (2, 3, 48, 48)
        torch.testing.assert_close(square.describe(images), plain.describe(given), atol=0, rtol=0)
        torch.testing.assert_close(square.local_features(images), plain.local_features(given), atol=0, rtol=0)


def test_an_encoder_may_see_less_than_the_working_resolution() -> None:
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    plain, shrunk = make_model("resnet18"), make_model("resnet18", resolution=96, input_resolution=48)
    with torch.inference_mode():
        torch.testing.assert_close(shrunk.describe(images), plain.describe(sized(images, 48, False)))
        torch.testing.assert_close(shrunk.describe(images[..., :40, :]), plain.describe(images[..., :40, :]))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"square": True}, "square = true: expected a resolution"),
        ({"dimension": 64}, "dimension = 64: expected 0, it has its own with aggregation = 'gem'"),
        ({"aggregation": "gem_linear"}, "dimension = 0: expected the number of values .* 'gem_linear'"),
        ({"aggregation": "mixvpr", "dimension": 512, "resolution": 320}, "expected a square input of 320 px"),
        (
            {"aggregation": "mixvpr", "dimension": 100, "resolution": 320, "square": True},
            "dimension = 100: expected one of 4096, 512, 128 with mixvpr",
        ),
        ({"aggregation": "boq", "dimension": 100}, "dimension = 100: expected a multiple of 128 with boq"),
        ({"retrieval": {"encoder": "alexnet", "square": True}}, "square = true: expected a resolution"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ModelConfig, entries)


def test_two_networks_describe_and_match_each_at_its_own_size() -> None:
    """The descriptor is the one's, the local features are the other's, of the same images."""
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(4))
    retrieval = make_model("alexnet", "netvlad", regression=False, resolution=80, square=True)
    matching = make_model("resnet18", resolution=96, input_resolution=64, projection=20)
    config = parse_config(
        ModelConfig,
        {
            **matching.config.model_dump(),
            "aggregation": "netvlad",
            "retrieval": {"encoder": "alexnet", "resolution": 80, "square": True},
        },
    )
    both = GeoWarp(config).eval()
    weights = {key: t for key, t in matching.state_dict().items() if not key.startswith("pool.")}
    for key, tensor in retrieval.state_dict().items():
        weights[key.replace("encoder.", "retrieval.", 1)] = tensor
    both.load_state_dict(weights)
    assert (both.descriptor_dim, both.channels) == (256 * 64, 20)
    with torch.inference_mode():
        descriptors, features = both.describe(images)
        torch.testing.assert_close(descriptors, retrieval.describe(images)[0], atol=0, rtol=0)
        torch.testing.assert_close(features, matching.describe(images)[1], atol=0, rtol=0)
        runtimes: tuple[Runtime, ...] = ("torch", "onnxruntime")
        for runtime in runtimes:
            answering = for_inference(both, "cpu", runtime=runtime)
            assert answering.retrieval is not None and not any(
                isinstance(module, torch.nn.BatchNorm2d) for module in answering.retrieval.modules()
            )
            torch.testing.assert_close(answering.describe(images)[0], descriptors, atol=1e-4, rtol=0)
