"""Light, weather and the camera's own faults.

Surfaces carry their albedo; here they are lit (ambient + sun × cosine × not in shadow), dimmed by fog with
distance, put before a sky, and spoilt as a camera spoils them: exposure, white balance, vignette, noise, blur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.materials import noise
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.types import Image

Weather: TypeAlias = Literal["clear", "overcast", "dusk", "fog", "rain"]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Conditions:
    """When and how a photograph is taken.

    Attributes:
        weather: Decides sky and light.
        sun_azimuth_deg: Compass direction of the sun.
        sun_elevation_deg: Height of the sun above the horizon.
        gain: Exposure; 1 is right.
        warmth: White balance, -1 (blue) to 1 (yellow).
        contrast: 1 is none added.
        noise: Standard deviation of the sensor's noise, in grey levels.
        blur_px: Standard deviation of the blur; 0 is sharp.
        vignette: How much darker the corners are; 0 is even.
        fog_per_m: Extinction coefficient.
        occluders: Density of cars and people; 0 empties the street.
        traffic: Seed of who is in the street: equal values, equal cars.
        frame: Seed of this photograph's noise.
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
        """(3,) unit vector towards the sun, ENU."""
        azimuth, elevation = math.radians(self.sun_azimuth_deg), math.radians(self.sun_elevation_deg)
        level = math.cos(elevation)
        return np.array([level * math.sin(azimuth), level * math.cos(azimuth), math.sin(elevation)])


PLAIN = Conditions(noise=0.0, vignette=0.0, occluders=0.0, fog_per_m=0.0)
"""An even light, a perfect camera, an empty street."""

AMBIENT: dict[Weather, tuple[float, float, float]] = {
    "clear": (0.60, 0.65, 0.74),
    "overcast": (0.94, 0.95, 0.97),
    "dusk": (0.58, 0.57, 0.70),
    "fog": (0.84, 0.86, 0.88),
    "rain": (0.74, 0.77, 0.81),
}
SUNSHINE: dict[Weather, tuple[float, float, float]] = {
    "clear": (0.62, 0.56, 0.44),
    "overcast": (0.08, 0.08, 0.08),
    "dusk": (0.62, 0.36, 0.18),
    "fog": (0.0, 0.0, 0.0),
    "rain": (0.0, 0.0, 0.0),
}
HAZE: dict[Weather, tuple[int, int, int]] = {
    "clear": (204, 220, 234),
    "overcast": (206, 210, 214),
    "dusk": (226, 178, 148),
    "fog": (208, 212, 214),
    "rain": (168, 176, 184),
}
ZENITH: dict[Weather, tuple[int, int, int]] = {
    "clear": (74, 130, 200),
    "overcast": (176, 184, 194),
    "dusk": (72, 82, 134),
    "fog": (200, 205, 210),
    "rain": (120, 130, 142),
}
CLOUDS: dict[Weather, tuple[int, int, int]] = {
    "clear": (252, 252, 252),
    "overcast": (226, 228, 232),
    "dusk": (238, 152, 122),
    "fog": (208, 212, 214),
    "rain": (142, 150, 160),
}


def random_conditions(
    rng: np.random.Generator, weather: Weather | None = None, occluders: float = 1.0
) -> Conditions:
    """Draw a time and a camera; ``weather`` fixes the weather, else it is drawn, too."""
    kinds: tuple[Weather, ...] = ("clear", "overcast", "dusk", "fog", "rain")
    drawn = kinds[int(rng.choice(5, p=(0.42, 0.3, 0.12, 0.06, 0.1)))]
    kind = weather or drawn
    fog = {"clear": 0.001, "overcast": 0.002, "dusk": 0.002, "fog": 0.018, "rain": 0.006}[kind]
    low, high = (6.0, 16.0) if kind == "dusk" else (22.0, 60.0)
    return Conditions(
        weather=kind,
        sun_azimuth_deg=float(rng.uniform(90, 270)),
        sun_elevation_deg=float(rng.uniform(low, high)),
        gain=float(np.exp(rng.normal(0.0, 0.14))),
        warmth=float(np.clip(rng.normal(0, 0.35), -1, 1)),
        contrast=float(rng.uniform(0.88, 1.18)),
        noise=float(rng.uniform(1.0, 4.0)) * (1.8 if kind == "dusk" else 1.0),
        blur_px=float(rng.choice([0.0, 0.0, 0.0, 0.5, 0.8])),
        fog_per_m=fog * float(rng.uniform(0.7, 1.6)),
        occluders=occluders,
        traffic=int(rng.integers(2**31)),
        frame=int(rng.integers(2**31)),
    )


@lru_cache(maxsize=24)
def _sky_dome(weather: Weather, variant: int) -> Pixels:
    """Return the sky (128, 1024, 3): columns are azimuth 0..360, rows elevation 90..0 degrees."""
    rng = generator(variant, "sky", weather)
    height, width = 128, 1024
    climb = np.linspace(1, 0, height, dtype=np.float32)[:, None, None] ** 0.6
    sky = np.array(HAZE[weather]) * (1 - climb) + np.array(ZENITH[weather]) * climb
    sky = np.broadcast_to(sky, (height, width, 3)).copy()
    field = noise(rng, height, width // 2, 46, 5)
    field = np.concatenate([field, field[:, ::-1]], axis=1)  # joins at 0/360
    cover = {"clear": 0.35, "overcast": -0.5, "dusk": 0.1, "fog": 2.0, "rain": -0.4}[weather]
    amount = np.clip((field - cover) * 1.8, 0, 1)[..., None] * 0.92
    light = 1 - 0.16 * np.clip(field, 0, 1)[..., None]
    sky = sky * (1 - amount) + np.array(CLOUDS[weather]) * light * amount
    return np.asarray(np.clip(sky, 0, 255), dtype=np.uint8)


def paint_sky(camera: Camera, conditions: Conditions) -> Image:
    """Return the sky behind everything, (H, W, 3); below the horizon its lowest row goes on."""
    dome = _sky_dome(conditions.weather, conditions.traffic % 7)
    # clouds are soft: every second pixel is enough
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
    """Light the surfaces and set them before the sky.

    Args:
        albedo: (H, W, 3) 0..255, already multiplied by the coverage.
        coverage: (H, W) 0..1, how much of the pixel is not sky.
        sunlight: (H, W) 0..1, cosine of incidence times what the shadows leave, times the coverage.
        depth: (H, W) in m.
        sky: (H, W, 3).
        conditions: Light and weather.

    Returns:
        (H, W, 3) 0..255, not clipped.
    """
    ambient = np.array(AMBIENT[conditions.weather], np.float32)
    sun = np.array(SUNSHINE[conditions.weather], np.float32)
    lit = albedo * (ambient + sunlight[..., None] * sun)
    through = np.exp(-conditions.fog_per_m * depth)[..., None]
    haze = np.array(HAZE[conditions.weather], np.float32)
    surface = lit * through + (haze * coverage[..., None]) * (1 - through)
    result: Floats = surface + sky * (1 - coverage[..., None])
    return result


@lru_cache(maxsize=1)
def _noise_tile() -> Floats:
    return generator(0, "sensor").normal(0, 1, (1024, 1024, 3)).astype(np.float32)


def photograph(light: Floats, conditions: Conditions) -> Image:
    """Return what the camera makes of the light (H, W, 3): uint8."""
    height, width = light.shape[:2]
    balance = np.array([1 + 0.1 * conditions.warmth, 1.0, 1 - 0.1 * conditions.warmth], np.float32)
    picture: Floats = light * (conditions.gain * balance)
    picture = (picture - 118) * conditions.contrast + 118
    rng = generator(conditions.frame, "frame")
    if conditions.weather == "rain":
        picture = _rain(picture, rng)
    if conditions.blur_px:
        picture = cv2.GaussianBlur(picture, (0, 0), conditions.blur_px)
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
    """Return (H, W, 1): 0 in the middle of the picture, 1 in its corners."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    result: Floats = ((x**2 + y**2) / 2).astype(np.float32)[..., None]
    return result


def _rain(picture: Floats, rng: np.random.Generator) -> Floats:
    """Add slanting streaks."""
    height, width = picture.shape[:2]
    veil: Pixels = np.zeros((height, width), np.uint8)
    length, slant = max(3, height // 16), float(rng.uniform(-0.3, 0.3))
    for x, y in rng.uniform((0, 0), (width, height), (width // 3, 2)):
        cv2.line(
            veil,
            (int(x), int(y)),
            (int(x + slant * length), int(y + length)),
            int(rng.integers(60, 150)),
            1,
            cv2.LINE_AA,
        )
    amount = (veil.astype(np.float32) * np.float32(0.22 / 255))[..., None]
    return np.asarray(picture * (1 - amount) + 225 * amount, np.float32)
