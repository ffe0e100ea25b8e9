from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import pytest

from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import cpu_has_bfloat16
from geowarp_ros.types import Image
from test.model.weights import make_model

Models: TypeAlias = Callable[..., GeoWarp]
"""The fixture models: (encoder, aggregation) -> model."""

needs_bfloat16 = pytest.mark.skipif(
    not cpu_has_bfloat16(),
    reason="this CPU has no bfloat16 instructions: emulated, it takes up to 35 times as long",
)


def picture(height: int, width: int, seed: int = 0) -> Image:
    """A smooth coloured picture with structure at several scales, uint8 RGB."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[0:height, 0:width] / 16
    waves = np.zeros((height, width, 3))
    for _ in range(12):
        fx, fy, phase = rng.normal(size=3) * (1, 1, 3)
        waves += np.sin(fx * xs + fy * ys + phase)[:, :, None] * rng.normal(size=3)
    return np.asarray((127.5 + 30 * waves).clip(0, 255), np.uint8)


@pytest.fixture(scope="session")
def models() -> Models:
    """make_model(encoder, aggregation), each pair made once."""
    return cache(make_model)


@pytest.fixture(scope="session")
def pictures() -> tuple[Image, Image]:
    """Two pictures of different size."""
    return picture(48, 64, seed=1), picture(56, 50, seed=2)
