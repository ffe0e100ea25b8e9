"""Pictures that show no place: from a camera that is covered, blinded, broken or turned to the sky."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from geowarp_ros.types import FloatArray, Image


def plain_pictures(height: int, width: int, seed: int = 0) -> Iterator[tuple[str, Image]]:
    """Yield (kind, picture (height, width, 3)): black, lens cap, uniform, noise, clear sky, clouded sky."""
    for kind, values in _plain(height, width, np.random.default_rng(seed)):
        yield kind, np.clip(values, 0, 255).astype(np.uint8)


def _plain(height: int, width: int, rng: np.random.Generator) -> Iterator[tuple[str, FloatArray]]:
    shape = (height, width, 3)
    yield "black", np.zeros(shape)
    for sensor_noise in (1.0, 4.0):
        yield "lens cap", _vignette(height, width) * rng.uniform(4, 20) + rng.normal(0, sensor_noise, shape)
    for level in rng.integers(30, 256, 2):
        yield "uniform", float(level) + rng.normal(0, 1.0, shape)
    for grain_px in (1, 1, 3, 8):  # white noise, and coarser
        small = rng.normal(128, rng.uniform(30, 90), (-(-height // grain_px), -(-width // grain_px), 3))
        yield "noise", np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), float)
    for _ in range(2):
        yield "clear sky", _clear_sky(height, width, rng) + rng.normal(0, 2.0, shape)
    for _ in range(4):
        share = np.clip(_clouds(height, width, rng) * rng.uniform(1, 3), 0, 1)[:, :, None]
        white = rng.uniform(170, 245) + rng.uniform(-8, 8, 3)
        yield "clouded sky", (1 - share) * _clear_sky(height, width, rng) + share * white


def _vignette(height: int, width: int) -> FloatArray:
    """Return brightness (height, width, 1) that falls towards the corners, 0..1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.asarray(1 - 0.4 * (x**2 + y**2))[:, :, None]


def _clear_sky(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Return (height, width, 3) from a deep blue above to a bright horizon."""
    top, bottom = rng.uniform((40, 80, 140), (110, 160, 230)), rng.uniform((150, 180, 200), (230, 235, 250))
    ramp = np.linspace(0, 1, height)[:, None, None]
    return np.asarray(np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)))


def _clouds(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Return a sum of octaves of noise (height, width) around 0: smooth patches with ragged edges."""
    total = np.zeros((height, width))
    for octave in range(6):
        cells = 2 ** (octave + 1)
        noise = rng.normal(0, 1, (cells, cells))
        total += 0.55**octave * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return total
