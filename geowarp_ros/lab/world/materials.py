"""What things are made of: seeded textures in metres, drawn at any fineness.

Every function takes a generator, a size in texels, the texels per metre and an RGB colour; it returns (h, w, 3)
uint8.
"""

from __future__ import annotations

import colorsys
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[int, int, int]
Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]


def shift(colour: Colour, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Colour:
    """Return the colour with its hue turned (1 is the full circle) and saturation and value scaled."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    r, g, b = colorsys.hsv_to_rgb((h + hue) % 1.0, min(1.0, s * saturation), min(1.0, v * value))
    return round(r * 255), round(g * 255), round(b * 255)


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Field:
    """Return smooth noise (h, w) about 0, mostly within -1..1; the coarsest blobs are ``cell`` texels wide."""
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
    """Rendered wall: blotches, grain and streaks of rain."""
    blotches = 0.05 * noise(rng, height, width, 2.5 * texels)
    grain = 0.035 * rng.normal(0, 1, (height, width)).astype(np.float32)
    streaks = (
        0.03 * noise(rng, 1, width, 0.35 * texels, 2) * np.linspace(1, 0.2, height, dtype=np.float32)[:, None]
    )
    return tint(colour, blotches + grain + streaks)


def courses(
    rng: np.random.Generator,
    shape: tuple[int, int],
    texels: float,
    colour: Colour,
    unit_m: tuple[float, float],
    joint: Colour,
    spread: float,
) -> Pixels:
    """Bricks or ashlar in running bond; ``unit_m`` is (length, height) of one, ``spread`` how much they differ."""
    height, width = shape
    length, rise = unit_m[0] * texels, max(unit_m[1] * texels, 2.0)
    y = np.arange(height)[:, None] / rise
    row = y.astype(int)
    x = np.arange(width)[None, :] / length + 0.5 * (row % 2)
    column = x.astype(int)
    lightness = spread * rng.normal(0, 1, (row.max() + 1, column.max() + 1)).astype(np.float32)
    pixels = tint(colour, lightness[row, column] + 0.04 * noise(rng, height, width, 2 * texels))
    gap_x, gap_y = min(0.3, 0.9 / length), min(0.4, 0.9 / rise)
    joints = ((x - column) < gap_x) | ((y - row) < gap_y)
    pixels[joints] = (0.45 * pixels[joints] + 0.55 * np.array(joint)).astype(np.uint8)
    return pixels


def brick(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Brickwork with pale mortar."""
    return courses(
        rng, (height, width), texels, colour, (0.3, 0.1), shift(colour, saturation=0.35, value=1.25), 0.11
    )


def stone(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Ashlar blocks with dark joints."""
    return courses(rng, (height, width), texels, colour, (0.8, 0.42), shift(colour, value=0.65), 0.06)


def boards(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Horizontal weatherboards, each shaded under its lap."""
    y = np.arange(height)[:, None] / max(0.2 * texels, 2)
    row = y.astype(int)
    lightness = 0.05 * rng.normal(0, 1, row.max() + 1).astype(np.float32)[row] - 0.22 * ((y - row) > 0.8)
    return tint(colour, lightness.astype(np.float32) + 0.05 * noise(rng, height, width, 1.5 * texels))


def panels(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Concrete or metal panels with thin dark joints."""
    return courses(rng, (height, width), texels, colour, (1.5, 1.5), shift(colour, value=0.55), 0.035)


def ceramic(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Glazed tiles, strongly varied."""
    return courses(
        rng, (height, width), texels, colour, (0.24, 0.24), shift(colour, saturation=0.4, value=1.3), 0.14
    )


def roof_tiles(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Tiles in courses, darker towards the upper lap, some replaced."""
    rise = max(0.34 * texels, 2)
    y = np.arange(height)[:, None] / rise
    row = y.astype(int)
    column = (np.arange(width)[None, :] / (0.3 * texels) + 0.5 * (row % 2)).astype(int)
    lightness = 0.09 * rng.normal(0, 1, (row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    lightness += (0.22 * (y - row) - 0.12).astype(np.float32)
    return tint(colour, lightness + 0.07 * noise(rng, height, width, 2 * texels))


def asphalt(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Road surface: grain, worn tracks, patches."""
    lightness = 0.06 * rng.normal(0, 1, (height, width)).astype(np.float32) + 0.07 * noise(
        rng, height, width, 4 * texels
    )
    return tint(colour, lightness)


def slabs(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Pavement slabs."""
    return courses(rng, (height, width), texels, colour, (0.6, 0.6), shift(colour, value=0.7), 0.06)


def grass(rng: np.random.Generator, height: int, width: int, texels: float, colour: Colour) -> Pixels:
    """Lawn or hedge."""
    lightness = 0.16 * rng.normal(0, 1, (height, width)).astype(np.float32) + 0.14 * noise(
        rng, height, width, 1.5 * texels
    )
    return tint(colour, lightness)


WALLS = {
    "plaster": plaster,
    "brick": brick,
    "stone": stone,
    "boards": boards,
    "panels": panels,
    "ceramic": ceramic,
}
"""Wall material by name."""
