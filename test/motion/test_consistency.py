"""Fixes on simulated drives, with odometry: false ones are held back, right ones are not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geowarp_ros.attitude import Mounting, fix_from_pose
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.consistency import RECALLED, Consistency
from geowarp_ros.motion.odometry import Odometer, Pose
from geowarp_ros.types import Answer, Fix, FloatArray, Header, NoFix
from geowarp_ros.types import Pose as CameraPose

TOWN = LocalFrame(48.0, 11.0, 0.0)
SECOND = 1_000_000_000
AHEAD = Mounting.of((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
STD_M, STD_DEG = 0.2, 1.0


def quarter(at_s: float) -> tuple[FloatArray, float]:
    """Where a robot is that drives 2 m/s east for 5 s, then a quarter circle of 10 m to the left, then north."""
    way = 2.0 * at_s - 10.0
    if way <= 0:
        return np.array([way, 0.0]), 0.0
    turn = min(way / 10.0, math.pi / 2)
    beyond = max(0.0, way - 5.0 * math.pi)
    return np.array([10.0 * math.sin(turn), 10.0 - 10.0 * math.cos(turn) + beyond]), turn


def odometer(until_s: float = 20.0, scale: float = 1.0, drift_deg_s: float = 0.0) -> Odometer:
    """Odometry whose frame is the map turned by 100° and moved; 20 Hz."""
    known, turn = Odometer(5.0), math.radians(100.0)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    for step in range(int(until_s * 20) + 1):
        position, yaw = quarter(step / 20)
        place = scale * rotation @ position + (300.0, 40.0)
        yaw += turn + math.radians(drift_deg_s * step / 20)
        known.add(Pose(step * SECOND // 20, np.array([*place, 0.0]), math.remainder(yaw, math.tau)))
    return known


def fix(position: FloatArray, yaw: float, std_m: float = STD_M, std_deg: float = STD_DEG) -> Fix:
    forward = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    right, down = np.array([forward[1], -forward[0], 0.0]), np.array([0.0, 0.0, -1.0])
    covariance = np.diag([std_m**2] * 3 + [math.radians(std_deg) ** 2] * 3)
    rotation = np.column_stack([right, down, forward])
    pose = CameraPose("points", np.array([*position, 1.0]), rotation, covariance, 50, 5.0, 3, 0.5, 0.8, 2.0)
    return fix_from_pose(pose, TOWN, 0.9, covariance)


def plain(position: FloatArray, std_m: float = STD_M) -> Fix:
    latitude, longitude, _ = TOWN.to_geodetic([*position, 0.0])
    return Fix(float(latitude), float(longitude), 0.0, np.diag([std_m**2, std_m**2, 1e6]), 0.9)


class Judge:
    def __init__(self, known: Odometer, mounting: Mounting | None = None) -> None:
        self.judge, self.known, self.mounting = Consistency(), known, mounting

    def passes(self, found: Fix, at_s: float) -> bool:
        self.answer = self.judge(Answer(Header(int(at_s * SECOND)), found), TOWN, self.known, self.mounting)
        if self.answer.fix is None:
            assert isinstance(self.answer.result, NoFix)
            assert self.answer.result.reason == "jump" and self.answer.confidence == 0.9
        return self.answer.fix is not None


@pytest.mark.parametrize("mounting", [None, AHEAD])
@pytest.mark.parametrize("headed", [True, False])
def test_right_fixes_pass_with_noise_as_claimed_and_odometry_that_drifts(
    headed: bool, mounting: Mounting | None
) -> None:
    noise, held = np.random.default_rng(2), 0
    for _ in range(40):
        judge = Judge(odometer(scale=1.03, drift_deg_s=0.2), mounting)
        for at_s in range(20):
            position, yaw = quarter(at_s)
            position = position + noise.normal(0.0, STD_M, 2)
            yaw += math.radians(noise.normal(0.0, STD_DEG))
            held += not judge.passes(fix(position, yaw) if headed else plain(position), at_s)
    assert held == 0  # of 800


@pytest.mark.parametrize(
    ("off_m", "headed", "mounting"),
    [
        ((-3.0, 0.0), True, AHEAD),  # as a vector
        ((0.0, 3.0), True, AHEAD),
        ((-40.0, 0.0), True, None),  # as a length
        ((-40.0, 0.0), False, AHEAD),
        ((0.0, 40.0), False, None),
    ],
)
def test_one_false_position_is_held_back_and_the_next_right_one_is_not(
    off_m: tuple[float, float], headed: bool, mounting: Mounting | None
) -> None:
    judge = Judge(odometer(), mounting)
    for at_s in range(20):
        position, yaw = quarter(at_s)
        false = at_s in (3, 9, 15)
        position = position + (np.array(off_m) if false else 0.0)
        assert judge.passes(fix(position, yaw) if headed else plain(position), at_s) == (not false)


def test_a_false_heading_is_held_back() -> None:
    judge = Judge(odometer())
    for at_s in range(12):
        position, yaw = quarter(at_s)
        false = at_s == 8
        assert judge.passes(fix(position, yaw + math.radians(25.0) * false), at_s) == (not false)
        if false:
            assert "contradicts 4 of the last 4 fixes: turned by" in str(judge.answer.result)


def test_a_step_aside_is_seen_only_with_the_mounting() -> None:
    # moved as far as the odometry says, and as it is headed, but to the left
    for mounting, passes in ((None, True), (AHEAD, False)):
        judge = Judge(odometer(), mounting)
        assert judge.passes(fix(np.array([0.0, 0.0]), 0.0), 1)
        assert judge.passes(fix(np.array([0.0, 4.0]), 0.0), 3) == passes
        if not passes:
            assert "moved by 4.0 m, by odometry 4.0 m, 5.7 m from there" in str(judge.answer.result)


def test_a_camera_that_looks_aside_is_judged_by_its_mounting() -> None:
    aside = Mounting.of((1.5, 0.5, 1.0), (0.0, 0.0, 90.0))
    judge = Judge(odometer(), aside)
    for at_s in range(20):
        position, yaw = quarter(at_s)
        forward, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        camera = position + 1.5 * forward + 0.5 * left
        assert judge.passes(fix(camera, yaw + math.pi / 2, 0.05, 0.2), at_s)


def test_of_two_that_contradict_the_next_confirms_one() -> None:
    for second_is_right in (True, False):
        judge = Judge(odometer())
        false = np.array([0.0, 50.0])
        assert judge.passes(fix(quarter(1)[0] + (false if second_is_right else 0.0), 0.0), 1)
        assert not judge.passes(fix(quarter(2)[0] + (0.0 if second_is_right else false), 0.0), 2)
        assert judge.passes(fix(quarter(3)[0], 0.0), 3)


def test_a_third_place_confirms_neither() -> None:
    judge = Judge(odometer())
    assert judge.passes(plain(quarter(1)[0]), 1)
    assert not judge.passes(plain(quarter(2)[0] + (0.0, 50.0)), 2)
    assert not judge.passes(plain(quarter(3)[0] + (0.0, -80.0)), 3)


def test_where_the_odometry_was_wrong_fixes_stand_again_after_two() -> None:
    # the wheels slipped: from 4 s on the robot is 30 m from where the odometry has it
    judge = Judge(odometer())
    passed = [judge.passes(plain(quarter(at_s)[0] + (0.0, 30.0 * (at_s >= 4))), at_s) for at_s in range(10)]
    assert RECALLED == 4
    assert passed == [True] * 4 + [False] * 2 + [True] * 4


def test_without_odometry_nothing_is_held_back() -> None:
    places = np.random.default_rng(0).uniform(-500, 500, (10, 2))
    for known in (Odometer(5.0), odometer(until_s=0.5)):
        judge = Judge(known)
        assert all(judge.passes(plain(place), at_s) for at_s, place in enumerate(places, 1))


def test_odometry_that_begins_anew_is_compared_with_nothing_before_it() -> None:
    known = odometer()
    judge = Judge(known)
    assert judge.passes(plain(quarter(19)[0]), 19)
    for step in range(41):  # 10 s later, from zero
        known.add(Pose(30 * SECOND + step * SECOND // 20, np.array([0.1 * step, 0.0, 0.0]), 0.0))
    assert judge.passes(plain(np.array([400.0, 400.0])), 31)
    assert not judge.passes(plain(np.array([400.0, 430.0])), 32)


def test_an_image_that_is_asked_about_again_confirms_nothing() -> None:
    judge = Judge(odometer())
    assert judge.passes(plain(quarter(1)[0]), 1)
    away = plain(quarter(2)[0] + (0.0, 50.0))
    assert [judge.passes(away, 2) for _ in range(4)] == [False] * 4


def test_a_mounting_that_becomes_known_begins_anew() -> None:
    # as when tf comes up: the same robot, whose base lies 20 m behind its camera
    judge, far = Judge(odometer()), Mounting.of((20.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    ahead = np.array([20.0, 0.0])
    assert judge.passes(fix(quarter(1)[0] + ahead, 0.0), 1)
    judge.mounting = far
    assert judge.passes(fix(quarter(2)[0] + ahead, 0.0), 2)
    assert judge.passes(fix(quarter(3)[0] + ahead, 0.0), 3)


def test_a_camera_on_a_long_lever_swings_with_the_turn() -> None:
    judge = Judge(odometer())  # the mounting is unknown, 1.9 m ahead of the axle
    for at_s in range(20):
        position, yaw = quarter(at_s)
        lever = 1.9 * np.array([math.cos(yaw), math.sin(yaw)])
        assert judge.passes(fix(position + lever, yaw, 0.05, 0.3), at_s)


def test_a_reset_forgets() -> None:
    judge = Judge(odometer())
    assert judge.passes(plain(quarter(1)[0]), 1)
    judge.judge.reset()
    assert judge.passes(plain(quarter(2)[0] + (0.0, 50.0)), 2)
