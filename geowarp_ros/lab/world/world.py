"""A seeded town that can be rendered from any camera pose in its streets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.furniture import billboard
from geowarp_ros.lab.world.raster import Raster
from geowarp_ros.lab.world.scenery import Props, Scenery, build_scenery, occluders
from geowarp_ros.lab.world.shadows import sunlit
from geowarp_ros.lab.world.surfaces import Scene
from geowarp_ros.lab.world.town import Quarter, Street, lay_out
from geowarp_ros.lab.world.weather import LIGHTS, Conditions, light_up, paint_sky, photograph
from geowarp_ros.types import Image

QUARTERS_IN_MEMORY = 2
"""Cached quarters; textures take about 60 MB each at 320 px."""


class World:
    """The town of ``config``; rendering is deterministic."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.lens = (config.width_px, config.height_px, config.fov_deg)
        self.quarters: tuple[Quarter, ...] = lay_out(config)
        self.streets: tuple[Street, ...] = tuple(
            street for quarter in self.quarters for street in quarter.streets[: quarter.photographed]
        )
        # texture resolution (texels/m) matched to the nearest walls
        self.texels = float(np.clip(config.width_px / 8, 12, 80))
        self._props = Props(config.seed, self.texels)
        self._scenery = lru_cache(QUARTERS_IN_MEMORY)(
            lambda number: build_scenery(self.quarters[number], self._props, self.texels)
        )
        self._centres = np.array([quarter.centre for quarter in self.quarters]).reshape(-1, 2)

    def camera_at(
        self,
        street: Street,
        along_m: float,
        lateral_m: float = 0.0,
        height_m: float = 1.7,
        heading_offset_deg: float = 0.0,
        pitch_deg: float = 0.0,
        roll_deg: float = 0.0,
    ) -> Camera:
        """Return a camera at a street position.

        Args:
            street: One of :attr:`streets`.
            along_m: Distance along the centre line from the street's start.
            lateral_m: Offset to the left of the centre line.
            height_m: Height above the ground.
            heading_offset_deg: Clockwise from the street's direction; 90 faces the façades on the right.
            pitch_deg: Positive up.
            roll_deg: Positive to the right.
        """
        east, north = street.point(along_m, lateral_m)
        heading_deg = (street.heading_deg + heading_offset_deg) % 360
        return Camera(float(east), float(north), height_m, heading_deg, pitch_deg, roll_deg, *self.lens)

    def render(self, camera: Camera, conditions: Conditions) -> Image:
        """Render an image (H, W, 3) uint8 RGB."""
        factor = self.config.supersampling
        nearest = np.argmin(((self._centres - camera.position[:2]) ** 2).sum(1))
        scenery = self._scenery(int(nearest))
        raster = Raster(camera, factor, conditions.sun)
        solids, shadows = occluders(scenery, self._props, camera, conditions.occluders, conditions.traffic)
        raster.draw(solids)
        raster.draw(_uprights(scenery, camera))
        raster.draw(scenery.solid)
        shadows.surfaces += scenery.shadows.surfaces
        raster.darken(shadows)
        size = (camera.width_px, camera.height_px)
        albedo = _reduce(raster.colour, size)
        coverage = _reduce(np.where(raster.inverse_depth > 0, np.uint8(255), np.uint8(0)), size) / 255
        middle = slice(factor // 2, None, factor)
        depth = np.reciprocal(np.maximum(raster.inverse_depth[middle, middle], np.float32(1e-3)))
        sunlight = _reduce(raster.sunlight, size) / 255
        if max(LIGHTS[conditions.weather].sun) > 0.2:
            sunlight = sunlight * sunlit(scenery.rows, camera, depth, conditions.sun)
        light = light_up(albedo, coverage, sunlight, depth, paint_sky(camera, conditions), conditions)
        return photograph(light, conditions)


def _uprights(scenery: Scenery, camera: Camera) -> Scene:
    """Return the billboards near the camera, facing it."""
    scene = Scene()
    right = camera.camera_from_world[0]
    for upright in scenery.uprights:
        distance = float(np.hypot(*(upright.foot - camera.position)[:2]))
        if 1.5 < distance < 110:
            billboard(scene, upright.foot, right, upright.size_m, upright.texture)
    return scene


def _reduce(pixels: Any, size: tuple[int, int]) -> Any:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
