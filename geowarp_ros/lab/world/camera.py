"""A pinhole camera in the town.

Convention:
    World: metres, ENU (REP 103). Camera: x right, y down, z along the optical axis (REP 103's optical frame).
    Pixels: (x, y), the centre of the top-left pixel is (0, 0). Normalised coordinates: -1 and 1 are the image's
    outer edges, as in :mod:`geowarp_ros.geometry`. Headings are compass degrees, clockwise from north.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Where the camera is and where it looks.

    Attributes:
        east_m: Position, ENU about the town's datum.
        north_m: Likewise.
        up_m: Height above the ground, which is level.
        heading_deg: Compass heading of the optical axis.
        pitch_deg: Positive looks up.
        roll_deg: Positive leans to the right.
        width_px: Image width.
        height_px: Image height.
        fov_deg: Horizontal field of view.
    """

    east_m: float
    north_m: float
    up_m: float
    heading_deg: float
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    width_px: int = 320
    height_px: int = 240
    fov_deg: float = 75.0

    @property
    def position(self) -> Vector:
        """(3,) east, north, up in m."""
        return np.array([self.east_m, self.north_m, self.up_m])

    @property
    def focal_px(self) -> float:
        """Focal length in pixels, the same on both axes."""
        return self.width_px / 2 / math.tan(math.radians(self.fov_deg) / 2)

    @cached_property
    def camera_from_world(self) -> Vector:
        """(3, 3) rotation; its rows are the camera's right, down and forward in ENU."""
        heading, pitch, roll = (math.radians(a) for a in (self.heading_deg, self.pitch_deg, self.roll_deg))
        forward = np.array(
            [math.sin(heading) * math.cos(pitch), math.cos(heading) * math.cos(pitch), math.sin(pitch)]
        )
        right = np.array([math.cos(heading), -math.sin(heading), 0.0])
        down = np.cross(forward, right)
        tilted = math.cos(roll) * right + math.sin(roll) * down
        return np.stack([tilted, np.cross(forward, tilted), forward])

    @property
    def matrix(self) -> Vector:
        """(3, 3) K: pixels from camera coordinates."""
        return self.scaled_matrix(1)

    def scaled_matrix(self, factor: int) -> Vector:
        """(3, 3) K of the same camera with ``factor`` times the pixels along each axis."""
        focal = self.focal_px * factor
        return np.array(
            [
                [focal, 0.0, (self.width_px * factor - 1) / 2],
                [0.0, focal, (self.height_px * factor - 1) / 2],
                [0.0, 0.0, 1.0],
            ]
        )

    def project(self, points: Vector) -> Vector:
        """Return the pixels (N, 2) of ENU points (N, 3) and NaN for those behind the camera."""
        local = (np.asarray(points, dtype=float) - self.position) @ self.camera_from_world.T
        pixels = local @ self.matrix.T
        depth = np.where(pixels[:, 2:] > 1e-6, pixels[:, 2:], np.nan)
        return np.asarray(pixels[:, :2] / depth)

    def pixels_from_plane(self, origin: Vector, u: Vector, v: Vector) -> Vector:
        """Return the homography (3, 3) taking (a, b, 1) on the plane ``origin + a·u + b·v`` to pixels."""
        rotation = self.camera_from_world
        return self.matrix @ np.stack([rotation @ u, rotation @ v, rotation @ (origin - self.position)], axis=1)

    @property
    def normalised_from_pixels(self) -> Vector:
        """(3, 3): pixel centres to -1..1 at the image's outer edges."""
        w, h = self.width_px, self.height_px
        return np.array([[2 / w, 0.0, 1 / w - 1], [0.0, 2 / h, 1 / h - 1], [0.0, 0.0, 1.0]])
