from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.lab.world.camera import Camera
from test.lab.world.conftest import project


def test_a_point_ahead_lands_where_the_pinhole_formula_says() -> None:
    # 90° over 101 pixels: f = 50.5; looking north from (10, 20, 2), the point is 8 ahead, 2 right, 1 below
    camera = Camera(10, 20, 2, heading_deg=0, width_px=101, height_px=51, fov_deg=90)
    ((x, y),) = project(camera, [[12.0, 28.0, 1.0]])
    assert (x, y) == pytest.approx((50 + 50.5 * 2 / 8, 25 + 50.5 * 1 / 8))


@pytest.mark.parametrize(
    ("heading", "forward", "right"), [(0, (0, 1, 0), (1, 0, 0)), (90, (1, 0, 0), (0, -1, 0)), (225, None, None)]
)
def test_headings_are_compass_headings(
    heading: float, forward: tuple[int, ...] | None, right: tuple[int, ...] | None
) -> None:
    rotation = Camera(0, 0, 0, heading_deg=heading).camera_from_world
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    if forward:
        assert rotation[2] == pytest.approx(forward)
        assert rotation[0] == pytest.approx(right)
        assert rotation[1] == pytest.approx((0, 0, -1))


def test_pitch_looks_up_and_roll_leans_right() -> None:
    assert Camera(0, 0, 0, 30, pitch_deg=90).camera_from_world[2] == pytest.approx((0, 0, 1))
    leaning = Camera(0, 0, 0, 0, roll_deg=90).camera_from_world
    assert leaning[0] == pytest.approx((0, 0, -1))  # the camera's right points at the ground


def test_a_finer_matrix_sees_the_same_directions() -> None:
    camera = Camera(0, 0, 0, 0, width_px=40, height_px=20)
    ray = np.array([0.3, -0.2, 1.0])
    x, y, _ = camera.matrix @ ray
    fine_x, fine_y, _ = camera.scaled_matrix(2) @ ray
    assert ((fine_x + 0.5) / 2 - 0.5, (fine_y + 0.5) / 2 - 0.5) == pytest.approx((x, y))
