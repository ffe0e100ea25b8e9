"""Lighting, weather and sensor model.

Albedo is lit (ambient + sun × cosine × visibility), attenuated by fog, composited over the sky, then degraded by
exposure, white balance, vignetting, blur and noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.materials import Colour, Pixels, noise
from geowarp_ros.lab.world.randomness import draw_seed, generator
from geowarp_ros.types import Image

Weather: TypeAlias = Literal["clear", "overcast", "dusk", "fog", "rain"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Conditions:
    """Imaging conditions of one photograph.

    Attributes:
        weather: Sky and lighting preset.
        sun_azimuth_deg: Compass azimuth of the sun.
        sun_elevation_deg: Elevation of the sun above the horizon.
        gain: Exposure factor; 1 is correct exposure.
        warmth: White balance, -1 (blue) to 1 (yellow).
        contrast: Contrast factor.
        noise: Standard deviation of the sensor noise (grey levels).
        blur_px: Standard deviation of the blur; 0: none.
        vignette: Relative darkening of the corners; 0: none.
        fog_per_m: Extinction coefficient (1/m).
        occluders: Density of cars and people; 0: none.
        traffic: Seed of cars, people and clouds.
        frame: Seed of the sensor noise and rain streaks.
    """

    weather: Weather = "overcast"
    sun_azimuth_deg: float = 200.0
    sun_elevation_deg: float = 40.0
    gain: float = 1.0
    warmth: float = 0.0
    contrast: float = 1.0
    noise: float = 2.0
    blur_px: float = 0.0
    vignette: float = 0.14
    fog_per_m: float = 0.0012
    occluders: float = 1.0
    traffic: int = 0
    frame: int = 0

    @property
    def sun(self) -> Vector:
        """(3,) unit vector towards the sun (ENU)."""
        azimuth, elevation = math.radians(self.sun_azimuth_deg), math.radians(self.sun_elevation_deg)
        level = math.cos(elevation)
        return np.array([level * math.sin(azimuth), level * math.cos(azimuth), math.sin(elevation)])


class Light(NamedTuple):
    """Appearance of a kind of weather; colours are RGB, 0..1 for light and 0..255 for the sky."""

    probability: float  # share of random conditions
    fog_per_m: float  # mean extinction coefficient
    cover: float  # noise above this threshold is cloud
    ambient: tuple[float, float, float]
    sun: tuple[float, float, float]
    haze: Colour  # horizon and fog
    zenith: Colour
    clouds: Colour


LIGHTS: dict[Weather, Light] = {
    "clear": Light(
        0.42, 0.001, 0.35, (0.60, 0.65, 0.74), (0.62, 0.56, 0.44), (204, 220, 234), (74, 130, 200), (252, 252, 252)
    ),
    "overcast": Light(
        0.3, 0.002, -0.5, (0.94, 0.95, 0.97), (0.08, 0.08, 0.08), (206, 210, 214), (176, 184, 194), (226, 228, 232)
    ),
    "dusk": Light(
        0.12, 0.002, 0.1, (0.58, 0.57, 0.70), (0.62, 0.36, 0.18), (226, 178, 148), (72, 82, 134), (238, 152, 122)
    ),
    "fog": Light(
        0.06, 0.018, 2.0, (0.84, 0.86, 0.88), (0.0, 0.0, 0.0), (208, 212, 214), (200, 205, 210), (208, 212, 214)
    ),
    "rain": Light(
        0.1, 0.006, -0.4, (0.74, 0.77, 0.81), (0.0, 0.0, 0.0), (168, 176, 184), (120, 130, 142), (142, 150, 160)
    ),
}


def random_conditions(
    rng: np.random.Generator, weather: Weather | None = None, occluders: float = 1.0
) -> Conditions:
    """Draw random conditions, optionally for a given weather."""
    kinds = tuple(LIGHTS)
    drawn = kinds[int(rng.choice(len(kinds), p=[light.probability for light in LIGHTS.values()]))]
    kind = weather or drawn
    low, high = (6.0, 16.0) if kind == "dusk" else (22.0, 60.0)
    return Conditions(
        weather=kind,
        sun_azimuth_deg=rng.uniform(90, 270),
        sun_elevation_deg=rng.uniform(low, high),
        gain=float(np.exp(rng.normal(0.0, 0.14))),
        warmth=float(np.clip(rng.normal(0, 0.35), -1, 1)),
        contrast=rng.uniform(0.88, 1.18),
        noise=rng.uniform(1.0, 4.0) * (1.8 if kind == "dusk" else 1.0),
        blur_px=float(rng.choice([0.0, 0.0, 0.0, 0.5, 0.8])),
        fog_per_m=LIGHTS[kind].fog_per_m * rng.uniform(0.7, 1.6),
        occluders=occluders,
        traffic=draw_seed(rng),
        frame=draw_seed(rng),
    )


@lru_cache(maxsize=24)
def _sky_dome(weather: Weather, variant: int) -> Pixels:
    """Return the sky (128, 1024, 3): columns are azimuth 0..360°, rows elevation 90..0°."""
    light, rng = LIGHTS[weather], generator(variant, "sky", weather)
    height, width = 128, 1024
    climb = np.linspace(1, 0, height, dtype=np.float32)[:, None, None] ** 0.6
    sky = np.array(light.haze) * (1 - climb) + np.array(light.zenith) * climb
    sky = np.broadcast_to(sky, (height, width, 3)).copy()
    field = noise(rng, height, width // 2, 46, 5)
    field = np.concatenate([field, field[:, ::-1]], axis=1)  # seamless at 0/360°
    amount = np.clip((field - light.cover) * 1.8, 0, 1)[..., None] * 0.92
    shading = 1 - 0.16 * np.clip(field, 0, 1)[..., None]
    sky = sky * (1 - amount) + np.array(light.clouds) * shading * amount
    return np.asarray(np.clip(sky, 0, 255), dtype=np.uint8)


def paint_sky(camera: Camera, conditions: Conditions) -> Image:
    """Render the sky (H, W, 3); the horizon colour continues below it."""
    dome = _sky_dome(conditions.weather, conditions.traffic % 7)
    # half resolution: clouds have no fine detail
    x, y = np.arange(0, camera.width_px, 2, dtype=np.float32), np.arange(0, camera.height_px, 2, dtype=np.float32)
    rays = (camera.camera_from_world.T @ np.linalg.inv(camera.matrix)).astype(np.float32)
    east, north, up = (np.add.outer(b * y + c, a * x) for a, b, c in rays)
    azimuth = np.arctan2(east, north) / np.float32(2 * math.pi) + np.float32(conditions.traffic % 97 / 97)
    elevation = np.arctan2(up, np.hypot(east, north)) / np.float32(math.pi / 2)
    columns = (azimuth % 1.0) * dome.shape[1]
    rows = np.clip((1 - elevation) * (dome.shape[0] - 1), 0, dome.shape[0] - 1)
    clouds = cv2.remap(dome, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(cv2.resize(clouds, (camera.width_px, camera.height_px)), dtype=np.uint8)


def light_up(
    albedo: Floats, coverage: Floats, sunlight: Floats, depth: Floats, sky: Pixels, conditions: Conditions
) -> Floats:
    """Shade the surfaces, apply fog and composite over the sky.

    Args:
        albedo: (H, W, 3) 0..255, premultiplied by the coverage.
        coverage: (H, W) 0..1, share of the pixel that is not sky.
        sunlight: (H, W) 0..1, cosine of incidence × sun visibility × coverage.
        depth: (H, W) in m.
        sky: (H, W, 3).
        conditions: Light and weather.

    Returns:
        (H, W, 3) 0..255, not clipped.
    """
    light = LIGHTS[conditions.weather]
    ambient, sun, haze = (np.array(colour, np.float32) for colour in (light.ambient, light.sun, light.haze))
    lit = albedo * (ambient + sunlight[..., None] * sun)
    through = np.exp(-conditions.fog_per_m * depth)[..., None]
    surface = lit * through + (haze * coverage[..., None]) * (1 - through)
    result: Floats = surface + sky * (1 - coverage[..., None])
    return result


@lru_cache(maxsize=1)
def _noise_tile() -> Floats:
    """Return unit noise (1024, 1024, 3), cropped at random for each frame."""
    return generator(0, "sensor").normal(0, 1, (1024, 1024, 3)).astype(np.float32)


def photograph(light: Floats, conditions: Conditions) -> Image:
    """Apply the sensor model to radiance (H, W, 3); return uint8."""
    height, width = light.shape[:2]
    balance = np.array([1 + 0.1 * conditions.warmth, 1.0, 1 - 0.1 * conditions.warmth], np.float32)
    picture: Floats = light * (conditions.gain * balance)
    picture = (picture - 118) * conditions.contrast + 118
    rng = generator(conditions.frame, "frame")
    if conditions.weather == "rain":
        picture = _rain(picture, rng)
    if conditions.blur_px:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), conditions.blur_px), np.float32)
    if conditions.vignette:
        picture = picture * (1 - conditions.vignette * _corners(height, width))
    if conditions.noise:
        tile = _noise_tile()
        repeats = (-(-height // 512), -(-width // 512))
        dy, dx = rng.integers(0, 512, 2)
        grain = np.tile(tile[dy : dy + 512, dx : dx + 512], (*repeats, 1)) if max(repeats) > 1 else tile[dy:, dx:]
        picture = picture + conditions.noise * grain[:height, :width]
    return np.asarray(np.clip(picture + 0.5, 0, 255), dtype=np.uint8)


@lru_cache(maxsize=4)
def _corners(height: int, width: int) -> Floats:
    """Return (H, W, 1): 0 in the centre, 1 in the corners."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    result: Floats = ((x**2 + y**2) / 2).astype(np.float32)[..., None]
    return result


def _rain(picture: Floats, rng: np.random.Generator) -> Floats:
    height, width = picture.shape[:2]
    veil: Pixels = np.zeros((height, width), np.uint8)
    length, slant = max(3, height // 16), rng.uniform(-0.3, 0.3)
    for x, y in rng.uniform((0, 0), (width, height), (width // 3, 2)):
        end = (int(x + slant * length), int(y + length))
        cv2.line(veil, (int(x), int(y)), end, int(rng.integers(60, 150)), 1, cv2.LINE_AA)
    amount = (veil.astype(np.float32) * np.float32(0.22 / 255))[..., None]
    return np.asarray(picture * (1 - amount) + 225 * amount, np.float32)
