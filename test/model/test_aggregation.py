from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geowarp_ros.model.aggregation import AggregationName, GeM, NetVLAD, build_aggregation, descriptor_dim, l2_norm
from test.model import naive


def feature_maps(channels: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(2, channels, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_l2_norm_by_hand() -> None:
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1)
    np.testing.assert_allclose(l2_norm(x).flatten(), [0.6, 0.8], atol=1e-6)
    np.testing.assert_array_equal(l2_norm(torch.zeros(1, 2, 1)), torch.zeros(1, 2, 1))  # 1e-6 under the root


def test_gem_with_p_1_is_the_mean_and_with_large_p_the_maximum() -> None:
    x, layer = feature_maps().abs(), GeM().double()
    with torch.no_grad():
        layer.p.fill_(1.0)
        torch.testing.assert_close(layer(x), x.mean(dim=(2, 3)))
        layer.p.fill_(400.0)
        torch.testing.assert_close(layer(x), x.amax(dim=(2, 3)), rtol=0.02, atol=0)


def test_gem_starts_at_p_3_and_takes_negative_values_as_1e_6() -> None:
    layer = GeM().double()
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    assert layer(x).item() == pytest.approx((2.0**3 / 2) ** (1 / 3))
    assert layer(-x.abs()).item() == pytest.approx(1e-6)


def test_gem_aggregation_equals_a_loop_over_cells() -> None:
    layer = build_aggregation("gem", 6).double()
    x = feature_maps()
    for ours, feature_map in zip(layer(x).detach().numpy(), x.numpy(), strict=True):
        np.testing.assert_allclose(ours, naive.gem(feature_map, 3.0), rtol=1e-12)
    assert list(layer.state_dict()) == ["1.p"]


def test_netvlad_equals_the_double_loop() -> None:
    layer = NetVLAD(6, clusters=5).double()
    torch.nn.init.normal_(layer.conv.weight, std=3.0, generator=torch.Generator().manual_seed(1))
    parameters = [t.detach().flatten(1).numpy() for t in (layer.conv.weight, layer.centroids)]
    x = feature_maps()
    with torch.no_grad():
        ours = layer(x)
    for row, feature_map in zip(ours.numpy(), x.numpy(), strict=True):
        expected = naive.netvlad(feature_map, *parameters)
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


def test_netvlad_by_hand() -> None:
    """One cell (1, 0), two clusters at (0, 0) and (1, 1) with even assignment: residuals (1, 0) and (0, -1)."""
    layer = NetVLAD(2, clusters=2)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.centroids.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        descriptor = layer(torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1))
    np.testing.assert_allclose(descriptor[0], np.array([1, 0, 0, -1]) / np.sqrt(2), atol=1e-6)


@pytest.mark.parametrize(("name", "dim"), [("gem", 256), ("netvlad", 16384)])
def test_descriptor_dim_is_what_comes_out(name: AggregationName, dim: int) -> None:
    layer = build_aggregation(name, 256)
    assert descriptor_dim(name, 256) == dim
    assert layer(torch.randn(1, 256, 2, 3)).shape == (1, dim)
    if name == "netvlad":
        assert {k: tuple(t.shape) for k, t in layer.state_dict().items()} == {
            "conv.weight": (64, 256, 1, 1),
            "centroids": (64, 256),
        }
