from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geowarp_ros.model.matching import correlate, pool_local_features, similarity
from test.model import naive


def unit_features(channels: int = 8, seed: int = 0) -> Tensor:
    f = torch.randn(1, channels, 15, 15, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(f, dim=1)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_local_features_equal_means_over_bins(height: int, width: int) -> None:
    feature_map = torch.randn(1, 3, height, width, dtype=torch.float64)
    expected = naive.local_features(feature_map[0].numpy())
    np.testing.assert_allclose(pool_local_features(feature_map)[0], expected, atol=1e-12)


def test_correlation_equals_the_quadruple_loop() -> None:
    f_q, f_p = unit_features(3, 1), unit_features(3, 2)
    q, p = f_q[0].numpy(), f_p[0].numpy()
    expected = np.zeros((225, 15, 15))
    for i in range(15):
        for j in range(15):
            for x in range(15):
                for y in range(15):  # k runs column by column over the first image
                    expected[x * 15 + y, i, j] = max(0.0, q[:, y, x] @ p[:, i, j])
            expected[:, i, j] /= np.sqrt((expected[:, i, j] ** 2).sum() + 1e-6)
    np.testing.assert_allclose(correlate(f_q, f_p)[0], expected, atol=1e-12)
    np.testing.assert_allclose(naive.correlate(q, p), expected, atol=1e-12)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (0, 3), (4, 1)])
def test_correlation_of_a_shifted_map_peaks_at_the_shift(down: int, right: int) -> None:
    f_q = unit_features(64)
    f_p = torch.roll(f_q, (down, right), dims=(2, 3))  # what q has at (y, x), p has at (y + down, x + right)
    best = correlate(f_q, f_p)[0].argmax(dim=0)
    for i in range(15):
        for j in range(15):
            y, x = (i - down) % 15, (j - right) % 15
            assert best[i, j] == x * 15 + y


def test_similarity_is_the_sum_of_inner_products() -> None:
    f_q, f_p = unit_features(seed=1), unit_features(seed=2)
    expected = sum(float(f_q[0, :, i, j] @ f_p[0, :, i, j]) for i in range(15) for j in range(15))
    assert similarity(f_q, f_p).item() == pytest.approx(expected)
    assert similarity(f_q, f_q).item() == pytest.approx(225)
