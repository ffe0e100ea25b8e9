"""Procedural materials: seeded textures with metric scale at any resolution.

A material takes a generator, height and width in texels, texels per metre and a base colour, and returns
(h, w, 3) uint8 RGB.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]
Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]
Material: TypeAlias = Callable[[np.random.Generator, int, int, float, Colour], Pixels]


def shift(colour: Colour, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Colour:
    """Return the colour with its hue rotated (1 is a full turn) and saturation and value scaled."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    r, g, b = colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), min(1.0, v * value))
    return round(r * 255), round(g * 255), round(b * 255)


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Field:
    """Return zero-mean value noise (h, w), mostly within -1..1; ``cell`` is the coarsest wavelength (texels)."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(1.0, cell / 2**octave)
        grid = rng.normal(0, 0.45, (int(height / size) + 2, int(width / size) + 2)).astype(np.float32)
        fine = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += fine.reshape(height, width) / 2**octave
    return total


def tint(colour: Colour, lightness: Field) -> Pixels:
    """Return ``colour`` scaled per texel by 1 + lightness."""
    pixels = np.asarray(colour, np.float32) * (1 + lightness)[..., None]
    return np.asarray(np.clip(pixels, 0, 255), dtype=np.uint8)


def plaster(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Rendered wall: blotches, grain and rain streaks."""
    blotches = 0.05 * noise(rng, height, width, 2.5 * texels)
    grain = 0.035 * rng.normal(0, 1, (height, width)).astype(np.float32)
    streaks = (
        0.03 * noise(rng, 1, width, 0.35 * texels, 2) * np.linspace(1, 0.2, height, dtype=np.float32)[:, None]
    )
    return tint(colour, blotches + grain + streaks)


def _coursed(
    length_m: float, height_m: float, spread: float, *, saturation: float = 1.0, value: float = 1.0
) -> Material:
    """Make a material of blocks in running bond.

    Args:
        length_m: Block length (m).
        height_m: Block height (m).
        spread: Standard deviation of the lightness between blocks.
        saturation: Saturation of the joints relative to the blocks.
        value: Value of the joints relative to the blocks.
    """

    def paint(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
        length, rise = length_m * texels, max(height_m * texels, 2.0)
        y = np.arange(height)[:, None] / rise
        row = y.astype(int)
        x = np.arange(width)[None, :] / length + 0.5 * (row % 2)
        column = x.astype(int)
        lightness = spread * rng.normal(0, 1, (row.max() + 1, column.max() + 1)).astype(np.float32)
        pixels = tint(colour, lightness[row, column] + 0.04 * noise(rng, height, width, 2 * texels))
        joints = ((x - column) < min(0.3, 0.9 / length)) | ((y - row) < min(0.4, 0.9 / rise))
        joint = shift(colour, saturation=saturation, value=value)
        pixels[joints] = (0.45 * pixels[joints] + 0.55 * np.array(joint)).astype(np.uint8)
        return pixels

    return paint


def boards(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Horizontal weatherboards, shaded below each overlap."""
    y = np.arange(height)[:, None] / max(0.2 * texels, 2)
    row = y.astype(int)
    lightness = 0.05 * rng.normal(0, 1, row.max() + 1).astype(np.float32)[row] - 0.22 * ((y - row) > 0.8)
    return tint(colour, lightness.astype(np.float32) + 0.05 * noise(rng, height, width, 1.5 * texels))


def roof_tiles(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Roof tiles in courses, darker towards the upper overlap."""
    rise = max(0.34 * texels, 2)
    y = np.arange(height)[:, None] / rise
    row = y.astype(int)
    column = (np.arange(width)[None, :] / (0.3 * texels) + 0.5 * (row % 2)).astype(int)
    lightness = 0.09 * rng.normal(0, 1, (row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    lightness += (0.22 * (y - row) - 0.12).astype(np.float32)
    return tint(colour, lightness + 0.07 * noise(rng, height, width, 2 * texels))


def _rough(grain: float, blotches: float, cell_m: float) -> Material:
    """Make a material of white noise plus blotches of size ``cell_m`` (m)."""

    def paint(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
        white = grain * rng.normal(0, 1, (height, width)).astype(np.float32)
        return tint(colour, white + blotches * noise(rng, height, width, cell_m * texels))

    return paint


brick = _coursed(0.3, 0.1, 0.11, saturation=0.35, value=1.25)
slabs = _coursed(0.6, 0.6, 0.06, value=0.7)
asphalt = _rough(0.06, 0.07, 4)
grass = _rough(0.16, 0.14, 1.5)

WALLS: dict[str, Material] = {
    "plaster": plaster,
    "brick": brick,
    "stone": _coursed(0.8, 0.42, 0.06, value=0.65),
    "boards": boards,
    "panels": _coursed(1.5, 1.5, 0.035, value=0.55),
    "ceramic": _coursed(0.24, 0.24, 0.14, saturation=0.4, value=1.3),
}
"""Wall material by name."""
