from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.shadows import CELLS_PER_M, Row, sunlit


@pytest.mark.parametrize(("elevation", "shadow_m"), [(45, 10.0), (63.43494882, 5.0)])
def test_a_wall_of_ten_metres_throws_the_shadow_trigonometry_says(elevation: float, shadow_m: float) -> None:
    # a row along the east-west axis, its front facing north; the sun stands in the south behind it
    row = Row(
        out=np.array([0.0, 1.0, 0.0]),
        right=np.array([-1.0, 0.0, 0.0]),
        level=0.0,
        start=-500.0,
        profile=np.full(1000 * CELLS_PER_M, 10.0, np.float32),
    )
    tilt = np.radians(elevation)
    sun = np.array([0.0, -np.cos(tilt), np.sin(tilt)])
    # straight down from 100 m onto the ground north of the wall: a map, 0.5 m a pixel, up is north
    camera = Camera(
        0, 20, 100, 0, pitch_deg=-90, width_px=200, height_px=200, fov_deg=np.degrees(2 * np.arctan(0.5))
    )
    free = sunlit((row,), camera, np.full((200, 200), 100, np.float32), sun)
    north_of_wall = 20 - (np.arange(200) - 99.5) * 0.5
    lit = free[:, 100] > 0.5
    in_shadow = north_of_wall[~lit & (north_of_wall > 0)]
    assert in_shadow.max() == pytest.approx(shadow_m, abs=0.6)
    assert in_shadow.min() < 1.0
    assert lit[north_of_wall > shadow_m + 1].all()


def test_a_row_does_not_shade_while_the_sun_stands_before_it() -> None:
    row = Row(np.array([0.0, 1, 0]), np.array([-1.0, 0, 0]), 0.0, -50.0, np.full(400, 10.0, np.float32))
    camera = Camera(0, 10, 1.7, 180, width_px=64, height_px=48)
    free = sunlit((row,), camera, np.full((48, 64), 8, np.float32), np.array([0.0, 0.6, 0.8]))
    assert free.min() == 1
