from functools import cache

import numpy as np
import pytest
import torch

from test.model.weights import make_model

torch.set_num_threads(1)  # two cores are shared, and tiny convolutions gain nothing from more


def picture(height, width, seed=0):
    """A smooth coloured picture with structure at several scales, uint8 RGB."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:height, 0:width] / 16
    waves = np.zeros((height, width, 3))
    for _ in range(12):
        fx, fy, phase = rng.normal(size=3) * (1, 1, 3)
        waves += np.sin(fx * xs + fy * ys + phase)[:, :, None] * rng.normal(size=3)
    return (127.5 + 30 * waves).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def models():
    """make_model(encoder, aggregation), each pair made once."""
    return cache(make_model)


@pytest.fixture(scope="session")
def pictures():
    """Two pictures of different size."""
    return picture(48, 64, seed=1), picture(56, 50, seed=2)
