"""Attitudes by hand, by pyproj's azimuths and by simulated draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pyproj import Geod
from scipy.spatial.transform import Rotation

from geowarp_ros.attitude import (
    Mounting,
    carried,
    enu_from_body,
    fix_from_pose,
    heading,
    heading_std,
    orientation_of,
    turned,
    yaw_rad,
)
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Fix, FloatArray, Pose

ELLIPSOID = Geod(ellps="WGS84")
HALF = math.sqrt(0.5)
# optical axes of cameras as columns (right, down, forward) in ENU, their body quaternion, their heading
LEVEL = {
    "north": ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], (0.0, 0.0, HALF, HALF), 0.0),
    "east": ([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (0.0, 0.0, 0.0, 1.0), 90.0),
    "west": ([[0, 0, -1], [1, 0, 0], [0, -1, 0]], (0.0, 0.0, 1.0, 0.0), 270.0),
}
COVARIANCE = np.diag([0.04, 0.09, 0.16, 1e-4, 2e-4, 3e-4]) + 1e-5


def camera(heading_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> FloatArray:
    """enu_from_camera of a camera that was levelled north, rolled, pitched up and turned, in this order."""
    level = np.array(LEVEL["north"][0], float)
    moves = Rotation.from_euler("yxz", [roll_deg, pitch_deg, -heading_deg], degrees=True)
    return np.asarray(moves.as_matrix() @ level)


def pose(rotation: FloatArray, position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Pose:
    return Pose("points", np.array(position_m), rotation, COVARIANCE, 50, 5.0, 3, 0.5, 0.8, 2.0)


def body(rotation: FloatArray) -> FloatArray:
    return enu_from_body(orientation_of(rotation))


@pytest.mark.parametrize("towards", LEVEL)
def test_level_cameras_by_hand(towards: str) -> None:
    axes, quaternion, degrees = LEVEL[towards]
    found = orientation_of(np.array(axes, float))
    assert found == pytest.approx(quaternion, abs=1e-12)
    assert heading(enu_from_body(found)) == pytest.approx(degrees, abs=1e-9)
    # the body's x axis is the optical z, its z axis points up
    assert enu_from_body(found)[:, 0] == pytest.approx(np.array(axes)[:, 2], abs=1e-12)
    assert enu_from_body(found)[:, 2] == pytest.approx([0, 0, 1], abs=1e-12)


@pytest.mark.parametrize("pitch", [-90.0, -75.0, -61.0, -59.0, 0.0, 59.0, 75.0, 90.0])
@pytest.mark.parametrize("degrees", [0.5, 123.0, 359.0])
def test_a_heading_does_not_change_with_the_pitch(degrees: float, pitch: float) -> None:
    rotation = body(camera(degrees, pitch))
    assert heading(rotation) == pytest.approx(degrees, abs=1e-6)
    assert math.remainder(yaw_rad(rotation) - math.radians(90.0 - degrees), math.tau) == pytest.approx(0, abs=1e-9)


def test_a_camera_that_looks_down_heads_where_the_top_of_its_image_points() -> None:
    # right = south, down = west, forward = below: the top of the image is east
    nadir = np.array([[0, -1, 0], [-1, 0, 0], [0, 0, -1]], float)
    assert np.linalg.det(nadir) == pytest.approx(1.0)
    assert heading(body(nadir)) == pytest.approx(90.0)


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (30.0, 5.0), (-50.0, -10.0), (-85.0, 20.0), (70.0, 0.0)])
def test_headings_scatter_as_their_deviation_says(pitch: float, roll: float) -> None:
    rotation = body(camera(200.0, pitch, roll))
    spread = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]]) * 1e-4
    draws = np.random.default_rng(3).multivariate_normal(np.zeros(3), spread, 4000)
    moved = [heading(Rotation.from_rotvec(draw).as_matrix() @ rotation) for draw in draws]
    assert np.std(moved) == pytest.approx(heading_std(rotation, spread), rel=0.05)
    full = np.eye(6)
    full[3:, 3:] = spread
    assert heading_std(rotation, full) == heading_std(rotation, spread)


def test_a_level_camera_has_the_deviation_of_its_turn_about_up() -> None:
    assert heading_std(body(camera(70.0)), np.diag([1.0, 2.0, 0.01**2])) == pytest.approx(math.degrees(0.01))


@pytest.mark.parametrize("where", [(0.0, 0.0), (4000.0, -3000.0), (-20_000.0, 9000.0)])
@pytest.mark.parametrize("latitude", [0.0, 60.0, -35.0])
def test_headings_are_true_north_at_the_camera(latitude: float, where: tuple[float, float]) -> None:
    frame = LocalFrame(latitude, 11.0, 50.0)
    position = np.array([*where, 30.0])
    at = [float(value) for value in frame.to_geodetic(position)]
    # a camera that is level and looks along 37° by the datum's axes; the azimuth to a point 10 m ahead by pyproj
    rotation = camera(37.0)
    ahead = [float(value) for value in frame.to_geodetic(position + 10.0 * rotation[:, 2])]
    azimuth = ELLIPSOID.inv(at[1], at[0], ahead[1], ahead[0])[0]
    fix = fix_from_pose(pose(rotation, (*where, 30.0)), frame, 0.9, COVARIANCE)
    assert fix.heading_deg == pytest.approx(azimuth % 360, abs=1e-5)
    assert (fix.latitude_deg, fix.longitude_deg, fix.altitude_m) == pytest.approx(at, abs=1e-9)
    if where == (-20_000.0, 9000.0) and latitude == 60.0:
        assert abs(fix.heading_deg - 37.0) > 0.3  # 20 km west, meridians converge by as much
    assert fix.method == "points" and fix.confidence == 0.9
    assert fix.pose_covariance is not None
    np.testing.assert_array_equal(fix.covariance, fix.pose_covariance[:3, :3])
    assert np.linalg.eigvalsh(fix.pose_covariance) == pytest.approx(np.linalg.eigvalsh(COVARIANCE), rel=1e-3)
    assert fix.heading_std_deg == pytest.approx(heading_std(body(rotation), COVARIANCE), rel=1e-2)


def test_a_covariance_turns_with_its_axes() -> None:
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()  # east becomes north
    found = turned(np.diag([1.0, 4.0, 9.0, 0.1, 0.2, 0.3]), quarter)
    assert np.diag(found) == pytest.approx([4.0, 1.0, 9.0, 0.2, 0.1, 0.3])


def test_a_covariance_is_carried_along_a_lever_by_hand_and_by_draws() -> None:
    # 2 m east of the pose: a turn about up moves the point north, one about north moves it down
    found = carried(np.diag([1.0, 1.0, 1.0, 0.01, 0.02, 0.03]), np.array([2.0, 0.0, 0.0]))
    assert np.diag(found)[:3] == pytest.approx([1.0, 1.0 + 4 * 0.03, 1.0 + 4 * 0.02])
    assert found[1, 5] == pytest.approx(2 * 0.03) and found[2, 4] == pytest.approx(-2 * 0.02)
    lever = np.array([0.5, -1.5, 1.0])
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(6), COVARIANCE, 20_000)
    turned_levers = Rotation.from_rotvec(draws[:, 3:]).apply(lever) - lever
    points = np.hstack([draws[:, :3] + turned_levers, draws[:, 3:]])
    np.testing.assert_allclose(np.cov(points.T), carried(COVARIANCE, lever), atol=0.004)


def camera_fix() -> Fix:
    return fix_from_pose(pose(camera(0.0)), LocalFrame(48.0, 11.0, 500.0), 0.9, COVARIANCE)


def test_the_base_lies_behind_a_camera_that_looks_ahead() -> None:
    # the camera looks north, 2 m ahead of the base and 1 m above: the base is 2 m south and 1 m lower
    base = Mounting.of((2.0, 0.0, 1.0), (0.0, 0.0, 0.0)).base_of(camera_fix())
    away = LocalFrame(48.0, 11.0, 500.0).to_enu(base.latitude_deg, base.longitude_deg, base.altitude_m)
    assert away == pytest.approx([0.0, -2.0, -1.0], abs=1e-6)
    assert base.heading_deg == pytest.approx(0.0, abs=1e-5) or base.heading_deg == pytest.approx(360.0, abs=1e-5)
    assert base.covariance[0, 0] > camera_fix().covariance[0, 0]  # 2 m of lever turn with the heading
    assert base.confidence == 0.9 and base.method == "points"


def test_a_camera_that_looks_left_and_down_tells_where_the_base_heads() -> None:
    # yaw 90°: it looks to the base's left; it sees north, so the base heads east
    mounting = Mounting.of((0.0, 0.5, 0.0), (0.0, 0.0, 90.0))
    base = mounting.base_of(camera_fix())
    assert base.heading_deg == pytest.approx(90.0, abs=1e-5)
    away = LocalFrame(48.0, 11.0, 500.0).to_enu(base.latitude_deg, base.longitude_deg, base.altitude_m)
    assert away == pytest.approx([0.0, -0.5, 0.0], abs=1e-6)
    # pitch is about y, which points left: 30° turns the camera down (REP 103)
    down = Mounting.of((0.0, 0.0, 0.0), (0.0, 30.0, 0.0))
    assert down.rotation[:, 0] == pytest.approx([math.cos(math.pi / 6), 0.0, -0.5])


def test_an_optical_frame_from_tf_is_the_same_mounting() -> None:
    given = Mounting.of((1.0, 2.0, 3.0), (5.0, -10.0, 30.0))
    optical = given.rotation @ np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    found = Mounting.of_optical(np.array([1.0, 2.0, 3.0]), tuple(Rotation.from_matrix(optical).as_quat()))
    np.testing.assert_allclose(found.rotation, given.rotation, atol=1e-12)
    assert found.lever_m == pytest.approx(math.sqrt(14))


def test_without_an_orientation_the_lever_widens_the_covariance() -> None:
    plain = Fix(48.0, 11.0, 500.0, np.diag([1.0, 2.0, 3.0]), 0.9)
    base = Mounting.of((3.0, 0.0, 4.0), (0.0, 0.0, 0.0)).base_of(plain)
    assert (base.latitude_deg, base.longitude_deg, base.altitude_m) == (48.0, 11.0, 500.0)
    assert np.diag(base.covariance) == pytest.approx([26.0, 27.0, 28.0])
    assert base.orientation is None and replace(base, covariance=plain.covariance) == plain
