"""The street world: a seeded town that can be photographed from anywhere in its streets."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from geowarp_ros.lab.world.buildings import Building
from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.correspondence import plane_homography, shared_quads
from geowarp_ros.lab.world.furniture import billboard
from geowarp_ros.lab.world.raster import Raster
from geowarp_ros.lab.world.scenery import Props, Scenery, build_scenery, occluders
from geowarp_ros.lab.world.shadows import sunlit
from geowarp_ros.lab.world.surfaces import Scene
from geowarp_ros.lab.world.town import Quarter, Street, lay_out
from geowarp_ros.lab.world.weather import SUNSHINE, Conditions, light_up, paint_sky, photograph
from geowarp_ros.types import Image

QUARTERS_IN_MEMORY = 2
"""A quarter's textures take some 60 MB at 320 pixels; photographs are taken quarter by quarter."""


class World:
    """A town of ``config``; the same configuration gives the same photographs, byte for byte."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.quarters: tuple[Quarter, ...] = lay_out(config)
        self.streets: tuple[Street, ...] = tuple(
            street for quarter in self.quarters for street in quarter.streets[: quarter.photographed]
        )
        # as fine as the nearest walls are seen, whatever the image size
        self.texels = float(np.clip(config.width_px / 8, 12, 80))
        self._props = Props(config.seed, self.texels)
        self._sceneries: OrderedDict[int, Scenery] = OrderedDict()
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
        """Return the camera at a place of a street, turned clockwise from the street's direction.

        Args:
            street: One of :attr:`streets`.
            along_m: Distance from its first corner, on the centre line.
            lateral_m: Distance to the left of the centre line.
            height_m: Above the ground.
            heading_offset_deg: 0 looks along the street, 90 at the façades on its right.
            pitch_deg: Positive looks up.
            roll_deg: Positive leans to the right.
        """
        east, north = street.point(along_m, lateral_m)
        return Camera(
            east_m=float(east),
            north_m=float(north),
            up_m=height_m,
            heading_deg=(street.heading_deg + heading_offset_deg) % 360,
            pitch_deg=pitch_deg,
            roll_deg=roll_deg,
            width_px=self.config.width_px,
            height_px=self.config.height_px,
            fov_deg=self.config.fov_deg,
        )

    def render(self, camera: Camera, conditions: Conditions) -> Image:
        """Return the photograph (H, W, 3) uint8 RGB."""
        factor = self.config.supersampling
        scenery = self._scenery(self._quarter_of(camera))
        raster = Raster(camera, factor, conditions.sun)
        solids, shadows = occluders(scenery, self._props, camera, conditions.occluders, conditions.traffic)
        raster.draw(solids)
        raster.draw(_uprights(scenery, camera))
        raster.draw(scenery.solid)
        shadows.extend(scenery.shadows)
        raster.darken(shadows)
        size = (camera.width_px, camera.height_px)
        albedo = _reduce(raster.colour, size)
        coverage = _reduce(np.where(raster.inverse_depth > 0, np.uint8(255), np.uint8(0)), size) / 255
        middle = slice(factor // 2, None, factor)
        depth = np.reciprocal(np.maximum(raster.inverse_depth[middle, middle], np.float32(1e-3)))
        sunlight = _reduce(raster.sunlight, size) / 255
        if max(SUNSHINE[conditions.weather]) > 0.2:
            sunlight = sunlight * sunlit(scenery.rows, camera, depth, conditions.sun)
        light = light_up(albedo, coverage, sunlight, depth, paint_sky(camera, conditions), conditions)
        return photograph(light, conditions)

    def facade_ahead(self, camera: Camera) -> Building | None:
        """Return the house whose front the optical axis meets first; None where it meets none."""
        forward = camera.camera_from_world[2]
        best: tuple[float, Building | None] = (np.inf, None)
        for building in self._quarter_of(camera).buildings:
            corner, right, down = building.front
            across = float(forward @ building.out)
            if across > -1e-6:
                continue
            distance = float((corner - camera.position) @ building.out) / across
            meeting = camera.position + distance * forward - corner
            inside = 0 <= meeting @ right <= right @ right and 0 <= meeting @ down <= down @ down
            if inside and 0 < distance < best[0]:
                best = (distance, building)
        return best[1]

    def facade_homography(self, query: Camera, place: Camera, building: Building) -> Vector:
        """Return ``p_from_q`` (3, 3), normalised coordinates, that the house's front induces between two views."""
        return plane_homography(query, place, *building.front)

    def true_quads(self, query: Camera, place: Camera) -> tuple[Vector, Vector] | None:
        """Return the quads (4, 2) of two views that see the same of the wall ahead of the query, or None."""
        building = self.facade_ahead(query)
        return shared_quads(query, place, *building.front) if building else None

    def _quarter_of(self, camera: Camera) -> Quarter:
        offsets = self._centres - camera.position[:2]
        return self.quarters[int(np.argmin((offsets**2).sum(1)))]

    def _scenery(self, quarter: Quarter) -> Scenery:
        if quarter.index not in self._sceneries:
            self._sceneries[quarter.index] = build_scenery(quarter, self._props, self.texels)
            if len(self._sceneries) > QUARTERS_IN_MEMORY:
                self._sceneries.popitem(last=False)
        self._sceneries.move_to_end(quarter.index)
        return self._sceneries[quarter.index]


def _uprights(scenery: Scenery, camera: Camera) -> Scene:
    """Return the flat pictures near the camera, turned to it."""
    scene = Scene()
    right = camera.camera_from_world[0]
    for upright in scenery.uprights:
        distance = float(np.hypot(*(upright.foot - camera.position)[:2]))
        if 1.5 < distance < 110:
            billboard(scene, upright.foot, right, upright.size_m, upright.texture)
    return scene


def _reduce(pixels: Any, size: tuple[int, int]) -> Any:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
