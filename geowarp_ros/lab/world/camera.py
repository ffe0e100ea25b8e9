"""Pinhole camera.

Convention:
    World: ENU in metres (REP 103). Camera: x right, y down, z forward (REP 103 optical frame). Pixels: (x, y), the
    centre of the top-left pixel is (0, 0). Headings are compass degrees, clockwise from north.
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
    """Camera pose and intrinsics.

    Attributes:
        east_m: East of the town's datum.
        north_m: North of the town's datum.
        up_m: Height above the level ground.
        heading_deg: Compass heading of the optical axis.
        pitch_deg: Positive up.
        roll_deg: Positive to the right.
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
        """(3,) ENU position (m)."""
        return np.array([self.east_m, self.north_m, self.up_m])

    @cached_property
    def camera_from_world(self) -> Vector:
        """(3, 3) rotation; rows are the camera's right, down and forward axes in ENU."""
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
        """(3, 3) intrinsics K."""
        return self.scaled_matrix(1)

    def scaled_matrix(self, factor: int) -> Vector:
        """Return K (3, 3) at ``factor`` times the resolution."""
        focal = self.width_px / 2 / math.tan(math.radians(self.fov_deg) / 2) * factor
        cx, cy = (self.width_px * factor - 1) / 2, (self.height_px * factor - 1) / 2
        return np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
