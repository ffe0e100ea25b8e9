from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import full_frame, warp
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.regression import WarpRegression
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
