from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pytest

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.raster import Raster
from geowarp_ros.lab.world.surfaces import Scene, Texture
from test.lab.world.conftest import project

Colour: TypeAlias = tuple[int, int, int]
Wall: TypeAlias = tuple[Vector, Vector, Vector, Texture]

SOUTH = np.array([0.0, -1.0, 0.0])
EAST, NORTH, UP = np.eye(3)


def wall(
    colour: Colour,
    *,
    distance: float = 10.0,
    width: float = 8.0,
    height: float = 6.0,
    left: float = -4.0,
    marker: Colour | None = None,
    alpha: bool = False,
) -> Wall:
    """A wall to the north of the origin, facing south, 1 m below to ``height - 1`` above the camera's level."""
    pixels = np.full((60, 80, 3), colour, np.uint8)
    if marker:
        pixels[:10, :10] = marker
    if alpha:
        solid = np.full((60, 80, 1), 255, np.uint8)
        solid[:, 40:] = 0
        pixels = np.dstack([pixels, solid])
    top_left = np.array([left, distance, height - 1])
    return top_left, EAST * width, -UP * height, Texture(lambda: pixels)


def view(*walls: Wall, sun: Vector = SOUTH, camera: Camera | None = None, factor: int = 1) -> Raster:
    camera = camera or Camera(0, 0, 0, 0, width_px=160, height_px=120, fov_deg=90)
    scene = Scene()
    for each in walls:
        scene.add(*each)
    raster = Raster(camera, factor, sun)
    raster.draw(scene)
    return raster


def test_a_wall_fills_just_the_pixels_its_corners_project_to() -> None:
    raster = view(wall((10, 200, 30)))
    # f = 80: x from 79.5 - 80·4/10 to 79.5 + 32, y from 59.5 - 80·5/10 to 59.5 + 8
    rows, columns = np.nonzero(raster.inverse_depth)
    assert (columns.min(), columns.max()) == pytest.approx((47.5, 111.5), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((19.5, 67.5), abs=1)
    assert len(rows) == pytest.approx(64 * 48, rel=0.05)
    assert (raster.colour[40, 80] == (10, 200, 30)).all()
    assert raster.inverse_depth[40, 80] == pytest.approx(0.1)


def test_a_corner_marker_is_found_at_its_projected_pixel() -> None:
    camera = Camera(-3, 1, 1.5, heading_deg=25, pitch_deg=8, roll_deg=-4, width_px=160, height_px=120, fov_deg=80)
    raster = view(wall((40, 40, 40), marker=(250, 0, 0)), camera=camera)
    red = np.argwhere(raster.colour[..., 0] > 200)
    centre = red.mean(0)[::-1]
    # the marker is the wall's top left metre
    (expected,) = project(camera, [[-3.5, 10.0, 4.5]])
    assert centre == pytest.approx(expected, abs=0.7)


def test_the_nearer_wall_hides_the_farther_whatever_the_order() -> None:
    near, far = wall((200, 0, 0), distance=5, width=2, left=-1), wall((0, 0, 200))
    for order in ((near, far), (far, near)):
        raster = view(*order)
        assert (raster.colour[60, 80] == (200, 0, 0)).all()
        assert (raster.colour[60, 100] == (0, 0, 200)).all()


def test_a_wall_is_not_seen_from_behind_nor_behind_the_camera() -> None:
    assert not view(wall((200, 0, 0)), camera=Camera(0, 20, 0, 180)).inverse_depth.any()
    assert not view(wall((200, 0, 0)), camera=Camera(0, 0, 0, 180)).inverse_depth.any()


def test_a_surface_that_passes_the_camera_is_cut_not_mirrored() -> None:
    ground = (
        np.array([-50.0, 50.0, -1.6]),
        EAST * 100,
        -NORTH * 100,
        Texture(lambda: np.full((8, 8, 3), 99, np.uint8)),
    )
    raster = view(ground)
    drawn = raster.inverse_depth > 0
    assert drawn[70:].all()
    assert not drawn[:60].any()
    # at row y the ground is 1.6·f / (y - cy) away
    assert raster.inverse_depth[100, 30] == pytest.approx((100 - 59.5) / 80 / 1.6, rel=1e-5)


def test_transparent_texels_leave_what_is_behind() -> None:
    raster = view(wall((200, 0, 0), distance=5, alpha=True), wall((0, 0, 200)))
    assert (raster.colour[60, 60] == (200, 0, 0)).all()
    assert (raster.colour[60, 100] == (0, 0, 200)).all()


def test_sunlight_is_the_cosine_of_incidence() -> None:
    slanting = np.array([np.sqrt(0.75), -0.5, 0.0])
    assert view(wall((9, 9, 9)), sun=slanting).sunlight[60, 80] == 127
    assert view(wall((9, 9, 9)), sun=NORTH).sunlight[60, 80] == 0


def test_reductions_keep_the_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 32, 3)).astype(np.uint8)
    texture = Texture(lambda: pixels)
    assert texture.level(0, 0) is texture.pixels
    assert texture.level(2, 1).shape == (32, 8, 3)
    assert texture.level(2, 1).mean() == pytest.approx(pixels.mean(), abs=1)
    assert texture.level(20, 20).shape == (1, 1, 3)


def test_a_shadow_darkens_the_ground_and_not_what_stands_on_it() -> None:
    grey = Texture(lambda: np.full((8, 8, 3), 200, np.uint8))
    ground = (np.array([-20.0, 40.0, -1.6]), EAST * 40, -NORTH * 40, grey)
    raster = view(ground, wall((100, 100, 100), distance=6.0, width=2.0, left=-1.0))
    before = raster.colour.copy()
    half = Texture(lambda: np.dstack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8)]))
    shadows = Scene()
    shadows.add(np.array([-3.0, 7.0, -1.59]), EAST * 6, -NORTH * 3, half)
    raster.darken(shadows)
    changed = (before != raster.colour).any(-1)
    assert changed.any()
    assert raster.colour[changed].min() == 200 * 127 // 255  # inside; its edges fade
    assert (before[changed] == 200).all()
