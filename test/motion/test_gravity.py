"""Which way is up, from an inertial unit's messages through the mounting into the camera's frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geowarp_ros.attitude import Mounting
from geowarp_ros.config import PoseConfig, SessionConfig, parse_config
from geowarp_ros.errors import ConfigError
from geowarp_ros.motion.gravity import STANDARD_GRAVITY, Plumb, Tilt, tilt_from_message
from geowarp_ros.motion.session import Session
from geowarp_ros.pose import estimate_pose
from geowarp_ros.types import Frame
from test.motion.test_session import Listener
from test.pose.conftest import CAMERA, TRACK, TRUE_POSITION, Street, facade, looking, pose_error

SECOND, MS = 1_000_000_000, 1_000_000
AHEAD = Mounting.of((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
G = STANDARD_GRAVITY


def message(
    roll_deg: float = 0.0,
    variances: Sequence[float] = (1e-4, 4e-4),
    acceleration: Sequence[float] = (0.0, 0.0, G),
    stamp_ns: int = SECOND,
    told: Sequence[bool] = (True, True),
) -> Any:
    """A sensor_msgs/Imu; ``told``: whether it has an orientation, and an acceleration."""
    x, y, z, w = Rotation.from_euler("x", roll_deg, degrees=True).as_quat()
    covariance = np.zeros(9)
    covariance[[0, 4]] = variances
    covariance[0] = covariance[0] if told[0] else -1.0
    return SimpleNamespace(
        header=SimpleNamespace(
            stamp=SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND), frame_id="imu"
        ),
        orientation=SimpleNamespace(x=x, y=y, z=z, w=w),
        orientation_covariance=covariance,
        linear_acceleration=SimpleNamespace(**dict(zip("xyz", acceleration, strict=True))),
        linear_acceleration_covariance=np.array([0.0 if told[1] else -1.0] + [0.0] * 8),
    )


def test_an_orientation_says_which_way_is_up() -> None:
    tilt = tilt_from_message(message(20.0, stamp_ns=3 * SECOND + 5))
    assert tilt is not None and tilt.stamp_ns == 3 * SECOND + 5
    # rolled to the right: up is to the left (y) of what is above
    assert tilt.up == pytest.approx([0.0, math.sin(math.radians(20)), math.cos(math.radians(20))])
    assert tilt.std_rad == pytest.approx(0.02)
    unknown = tilt_from_message(message(20.0, variances=(0.0, 0.0)))
    assert unknown is not None and unknown.std_rad == 0.0


def test_without_an_orientation_the_acceleration_does() -> None:
    tilt = tilt_from_message(message(20.0, acceleration=(0.0, 1.0, 9.5), told=(False, True)))
    assert tilt is not None and tilt.up.tolist() == [0.0, 1.0, 9.5] and math.isnan(tilt.std_rad)
    assert tilt_from_message(message(told=(False, False))) is None
    assert tilt_from_message(message(acceleration=(math.nan, 0.0, G), told=(False, True))) is None
    unset = message(told=(True, True))
    unset.orientation.w = 0.0  # a message that nobody filled in
    identity = message(
        variances=(0.0, 0.0), acceleration=(0.0, 1.7, 9.65)
    )  # or that a driver filled in with nothing
    for empty in (unset, identity):
        tilt = tilt_from_message(empty)
        assert tilt is not None and math.isnan(tilt.std_rad)


def test_another_standard_deviation_holds_once_it_is_set() -> None:
    known = Session(parse_config(SessionConfig, {"gravity": "imu", "base_frame": "base_link"}))
    known.configure(
        parse_config(SessionConfig, {"gravity": "imu", "base_frame": "base_link", "gravity_std_deg": 7.0})
    )
    known.plumb.add(tilt_from_message(message(20.0, variances=(0.0, 0.0))))
    found = known.plumb.gravity(SECOND, AHEAD)
    assert found is not None and found.std_rad == pytest.approx(math.radians(7.0))


@pytest.mark.parametrize(
    ("rpy_deg", "base_roll_deg", "expected"),
    [
        ((0.0, 0.0, 0.0), 0.0, (0.0, -1.0, 0.0)),  # optical y is down
        ((0.0, 30.0, 0.0), 0.0, (0.0, -math.sqrt(3) / 2, -0.5)),  # it looks down: up is behind it
        ((20.0, 0.0, 0.0), 0.0, (-math.sin(math.radians(20)), -math.cos(math.radians(20)), 0.0)),
        ((0.0, 0.0, 0.0), 20.0, (-math.sin(math.radians(20)), -math.cos(math.radians(20)), 0.0)),
        ((0.0, 0.0, 90.0), 20.0, (0.0, -math.cos(math.radians(20)), math.sin(math.radians(20)))),  # it looks left
    ],
)
def test_through_the_mounting(
    rpy_deg: tuple[float, float, float], base_roll_deg: float, expected: Sequence[float]
) -> None:
    plumb = Plumb(1.0)
    plumb.add(tilt_from_message(message(base_roll_deg)))
    found = plumb.gravity(SECOND, Mounting.of((0.3, 0.0, 1.0), rpy_deg))
    assert found is not None and found.up == pytest.approx(expected)
    assert found.std_rad == pytest.approx(math.hypot(math.radians(1.0), 0.02))
    assert plumb.said == "used, ± 1.5°"


def still(plumb: Plumb, mean: Sequence[float], shake: float = 0.0, count: int = 50, seed: int = 0) -> None:
    """Accelerations at 100 Hz, up to one second."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        plumb.add(Tilt(SECOND - 10 * MS * k, np.asarray(mean) + rng.normal(0, shake, 3), math.nan))


def test_vibrations_are_averaged_out() -> None:
    plumb, lean = Plumb(1.0), math.radians(10)
    still(plumb, (0.0, G * math.sin(lean), G * math.cos(lean)), shake=0.5)
    found = plumb.gravity(SECOND, AHEAD)
    assert found is not None
    off = math.degrees(math.acos(min(1.0, float(found.up @ (-math.sin(lean), -math.cos(lean), 0.0)))))
    assert off < 3 * math.degrees(0.5 / G / math.sqrt(50))
    assert math.degrees(found.std_rad) == pytest.approx(math.hypot(1.0, 3.0))


@pytest.mark.parametrize(
    ("mean", "shake", "said"),
    [
        ((3.0, 0.0, G), 0.0, "accelerates: 0.4 m/s² from gravity, shaken by 0.0 m/s²"),
        ((0.0, 0.0, 2.0), 0.0, "accelerates: 7.8 m/s² from gravity"),  # falls
        ((0.0, 0.0, G), 4.0, "shaken by"),
    ],
)
def test_an_accelerated_or_shaken_one_is_not_used(mean: Sequence[float], shake: float, said: str) -> None:
    plumb = Plumb(1.0)
    still(plumb, mean, shake)
    assert plumb.gravity(SECOND, AHEAD) is None
    assert said in plumb.said


def test_a_stale_one_is_not_used() -> None:
    plumb = Plumb(1.0)
    assert plumb.gravity(SECOND, AHEAD) is None
    plumb.add(tilt_from_message(message(stamp_ns=SECOND)))
    assert plumb.gravity(SECOND + 150 * MS, AHEAD) is not None
    assert plumb.gravity(SECOND + 200 * MS, AHEAD) is None and "no measurement within 0.2 s" in plumb.said
    assert plumb.gravity(SECOND - 101 * MS, AHEAD) is None
    assert plumb.gravity(SECOND, None) is None and "where the camera sits" in plumb.said
    plumb.reset()
    assert plumb.gravity(SECOND, AHEAD) is None
    plumb.add(None)
    plumb.add(Tilt(SECOND, np.array([math.nan, 0.0, 1.0]), 0.1))
    assert plumb.gravity(SECOND, AHEAD) is None


@pytest.mark.parametrize("roll_deg", [0.0, 20.0, -20.0])
def test_a_tilted_camera_is_posed_right_with_gravity_and_without(roll_deg: float) -> None:
    """Few points, and these in a strip: roll and pitch are what they say least of."""
    optical_roll = Rotation.from_euler("z", roll_deg, degrees=True).as_matrix()
    rotation = looking(8.0, 4.0) @ optical_roll
    up = rotation.T @ (0.0, 0.0, 1.0)
    off: dict[bool, list[float]] = {True: [], False: []}
    for draw in range(12):
        rng = np.random.default_rng(draw)
        points = facade(rng, 60)
        points[:, 2] = rng.uniform(1.0, 3.0, 60)
        street = Street(points, rng)
        query, _ = street.seen(TRUE_POSITION, rotation)
        photographs = street.photographs(TRACK)
        # the base carries the camera level and ahead, and is rolled and pitched with it: what its unit measures
        plumb = Plumb(0.3)
        measured = np.array([up[2], -up[0], -up[1]]) * G + rng.normal(0, 0.05, 3)
        plumb.add(Tilt(SECOND, measured / np.linalg.norm(measured), 0.005))
        for gravity in (None, plumb.gravity(SECOND, AHEAD)):
            pose = estimate_pose(query, CAMERA, photographs, PoseConfig(), gravity=gravity)
            assert pose is not None
            error = pose_error(pose, rotation=rotation)
            assert np.linalg.norm(error[:3]) < 0.5
            off[gravity is not None].append(float(np.linalg.norm(error[3:5])))
    assert np.median(off[True]) < np.median(off[False])
    assert max(off[True]) < math.radians(1.0)


class Noting(Listener):
    """Notes the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    def localize(self, frame: Frame, *rest: Any) -> Any:
        self.frames.append(frame)
        return super().localize(frame, *rest)


@pytest.mark.parametrize("source", ["none", "imu"])
def test_a_session_hands_it_to_the_localizer(source: str) -> None:
    config = parse_config(SessionConfig, {"gravity": source, "gravity_std_deg": 2.0, "base_frame": "base_link"})
    session, listener = Session(config), Noting()
    session.plumb.add(tilt_from_message(message(variances=(1e-12, 1e-12))))
    image = np.zeros((4, 4, 3), np.uint8)
    for stamp_ns in (SECOND, 2 * SECOND):
        session.localize(listener, Frame(image, stamp_ns))
    first, stale = (frame.gravity for frame in listener.frames)
    assert stale is None
    if source == "none":
        assert first is None
    else:
        assert first is not None and first.up == pytest.approx([0, -1, 0])
        assert first.std_rad == pytest.approx(math.radians(2.0))
        session.reset()
        session.localize(listener, Frame(image, SECOND))
        assert listener.frames[-1].gravity is None


def test_it_needs_a_base_frame() -> None:
    with pytest.raises(ConfigError, match="gravity = 'imu': expected a base_frame"):
        parse_config(SessionConfig, {"gravity": "imu"})
