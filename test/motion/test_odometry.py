from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from geowarp_ros.motion.odometry import Odometer, Pose, pose_from_message

SECOND = 1_000_000_000


def at(stamp_s: float, x: float, y: float = 0.0, yaw: float = 0.0) -> Pose:
    return Pose(round(stamp_s * SECOND), np.array([x, y, 0.0]), yaw)


def drive(*poses: Pose) -> Odometer:
    odometer = Odometer(max_speed_mps=3.0)
    for pose in poses:
        assert odometer.add(pose)
    return odometer


def test_path_is_longer_than_the_way_as_the_crow_flies() -> None:
    # there and back: 3 m out, 3 m home, in steps of 1 m and half a second
    out = [at(100 + step * 0.5, float(min(step, 6 - step))) for step in range(7)]
    odometer = drive(*out)
    assert odometer.travelled_m(100 * SECOND, 103 * SECOND) == pytest.approx(6.0)
    assert odometer.travelled_m(103 * SECOND, 100 * SECOND) == pytest.approx(6.0)
    assert odometer.travelled_m(100 * SECOND + SECOND // 4, 101 * SECOND) == pytest.approx(
        1.5
    )  # between two poses


def test_unknown_times_are_none_and_a_little_beyond_is_the_greatest_speed() -> None:
    odometer = drive(at(100, 0), at(100.5, 1), at(101, 2))
    assert odometer.travelled_m(99 * SECOND, 101 * SECOND) is None
    assert odometer.travelled_m(100 * SECOND, int(101.5 * SECOND)) == pytest.approx(2 + 3 * 0.5)
    assert odometer.travelled_m(int(101.25 * SECOND), int(101.5 * SECOND)) == pytest.approx(3 * 0.25)
    assert odometer.travelled_m(100 * SECOND, int(102.5 * SECOND)) is None  # it has fallen silent
    assert odometer.reach_m(100 * SECOND, int(102.5 * SECOND)) == pytest.approx(7.5)
    assert odometer.reach_m(100 * SECOND, 101 * SECOND) == pytest.approx(2.0)
    assert Odometer(3.0).travelled_m(0, 1) is None


def test_a_step_that_no_motion_explains_begins_anew() -> None:
    odometer = drive(at(100, 50), at(100.5, 51))
    assert odometer.add(at(101, 0))  # the odometry was restarted at its origin
    assert odometer.travelled_m(100 * SECOND, 101 * SECOND) is None
    assert odometer.add(at(101.5, 1))
    assert odometer.travelled_m(101 * SECOND, int(101.5 * SECOND)) == pytest.approx(1.0)


def test_time_that_jumps_back_or_a_gap_begins_anew_and_stale_poses_are_let_go() -> None:
    odometer = drive(at(100, 0), at(100.5, 1))
    assert not odometer.add(at(100.2, 0.4))  # overtaken
    assert not odometer.add(at(100.5, 1))
    assert odometer.add(at(50, 7))
    assert odometer.travelled_m(100 * SECOND, int(100.5 * SECOND)) is None
    assert odometer.add(at(53, 7))
    assert odometer.travelled_m(50 * SECOND, 53 * SECOND) is None


@pytest.mark.parametrize("bad", [at(101, math.nan), at(101, math.inf), at(101, 0, yaw=math.nan)])
def test_what_is_not_finite_is_let_go(bad: Pose) -> None:
    odometer = drive(at(100, 0))
    assert not odometer.add(bad)
    assert odometer.travelled_m(100 * SECOND, 100 * SECOND) == 0.0


def test_pose_between_two_turns_the_short_way() -> None:
    odometer = drive(at(100, 0, 0, math.radians(170)), at(101, 2, 1, math.radians(-170)))
    pose = odometer.pose_at(int(100.5 * SECOND))
    assert pose is not None
    assert pose.position_m == pytest.approx([1.0, 0.5, 0.0])
    assert abs(pose.yaw_rad) == pytest.approx(math.pi)
    quarter = odometer.pose_at(int(100.25 * SECOND))
    assert quarter is not None and quarter.yaw_rad == pytest.approx(math.radians(175))
    assert odometer.pose_at(99 * SECOND) is None
    assert odometer.pose_at(102 * SECOND) is None


@pytest.mark.parametrize("yaw_deg", [0.0, 30.0, 90.0, -170.0])
@pytest.mark.parametrize("pitch_deg", [0.0, 20.0])
def test_a_message_gives_stamp_position_and_yaw(yaw_deg: float, pitch_deg: float) -> None:
    # q = yaw about z, then pitch about the new y
    (cy, sy), (cp, sp) = (
        (math.cos(math.radians(a) / 2), math.sin(math.radians(a) / 2)) for a in (yaw_deg, pitch_deg)
    )
    orientation = SimpleNamespace(w=cy * cp, x=-sy * sp, y=cy * sp, z=sy * cp)
    pose = SimpleNamespace(position=SimpleNamespace(x=1.0, y=2.0, z=3.0), orientation=orientation)
    stamp = SimpleNamespace(sec=100, nanosec=5)
    message = SimpleNamespace(header=SimpleNamespace(stamp=stamp), pose=SimpleNamespace(pose=pose))
    read = pose_from_message(message)
    assert read.stamp_ns == 100_000_000_005 and read.position_m.tolist() == [1.0, 2.0, 3.0]
    assert read.yaw_rad == pytest.approx(math.radians(yaw_deg))


def test_memory_stays_bounded() -> None:
    odometer = Odometer(3.0)
    for step in range(4000):
        odometer.add(at(step * 0.1, step * 0.1))
    assert odometer.travelled_m(0, SECOND) is None  # forgotten
    assert odometer.travelled_m(300 * SECOND, 390 * SECOND) == pytest.approx(90.0)
    assert len(odometer._poses) <= 2402


def test_reset_forgets() -> None:
    odometer = drive(at(100, 0), at(101, 1))
    odometer.reset()
    assert odometer.travelled_m(100 * SECOND, 101 * SECOND) is None
    assert odometer.pose_at(100 * SECOND) is None


def test_motion_is_forward_and_left_of_the_first_pose() -> None:
    # heading along y, moved 2 m along y and 1 m against x, which is left; turned by 30° across the seam of ±180°
    odometer = drive(at(100, 5.0, 5.0, math.pi / 2), at(101, 4.0, 7.0, math.radians(120)))
    motion = odometer.motion(100 * SECOND, 101 * SECOND)
    assert motion is not None
    assert motion.forward_left_m == pytest.approx([2.0, 1.0])
    assert math.degrees(motion.turn_rad) == pytest.approx(30.0)
    assert motion.path_m == pytest.approx(math.sqrt(5))
    back = odometer.motion(101 * SECOND, 100 * SECOND)
    assert back is not None
    assert math.degrees(back.turn_rad) == pytest.approx(-30.0) and back.path_m == motion.path_m


def test_motion_goes_on_a_little_beyond_the_newest_pose_as_it_did() -> None:
    odometer = drive(at(100, 0.0, yaw=math.pi - 0.1), at(100.1, 0.2, yaw=-math.pi))
    motion = odometer.motion(100 * SECOND, int(100.2 * SECOND))
    assert motion is not None
    assert math.hypot(*motion.forward_left_m) == pytest.approx(0.4) and motion.turn_rad == pytest.approx(0.2)
    assert odometer.motion(100 * SECOND, int(100.31 * SECOND)) is None
    assert odometer.motion(99 * SECOND, 100 * SECOND) is None
    assert Odometer(3.0).motion(100 * SECOND, 100 * SECOND) is None
    assert drive(at(100, 0.0)).motion(100 * SECOND, int(100.1 * SECOND)) is None


def test_steps_that_no_motion_explains_are_counted_and_gaps_are_not() -> None:
    odometer = drive(at(100, 0), at(100.5, 1), at(110, 20))  # silent for a while, on the same way
    assert odometer.restarts == 0
    odometer.add(at(110.5, 0))  # its driver was restarted
    odometer.add(at(100, 0))  # as the whole bag
    assert odometer.restarts == 2
    odometer.reset()
    odometer.add(at(90, 5))
    assert odometer.restarts == 2
