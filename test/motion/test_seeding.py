"""Which fixes another localizer is started from: on simulated streets and drives with a known truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.attitude import Mounting, enu_from_body, yaw_rad
from geowarp_ros.config import TrackingConfig
from geowarp_ros.motion.consistency import Consistency
from geowarp_ros.motion.odometry import Odometer, Pose
from geowarp_ros.motion.seeding import Seeding, carried_on
from geowarp_ros.motion.tracking import RELOCALISES_WITHIN, build_tracker
from geowarp_ros.types import Answer, Fix, FloatArray, Header, NoFix
from test.motion.test_consistency import TOWN, fix, odometer, plain, quarter
from test.motion.test_tracking import seen, street_grid, walk

SECOND = 1_000_000_000
AHEAD = Mounting.of((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def at(east_m: float, stamp_s: float, yaw: float = 0.0) -> Answer:
    return Answer(Header(round(stamp_s * SECOND)), fix(np.array([east_m, 0.0]), yaw))


class Follower:
    """Takes what it is started from, as AMCL does."""

    def __init__(self, seeding: Seeding, known: Odometer | None = None, mounting: Mounting | None = AHEAD) -> None:
        self.seeding, self.known, self.mounting = seeding, known or Odometer(3.0), mounting

    def __call__(self, answer: Answer, *, lost: bool = False) -> bool:
        right = self.seeding(answer, TOWN, self.known, self.mounting, lost=lost)
        if right:
            self.seeding.wanted = False
        return right


def place_of(answer: Answer) -> FloatArray:
    assert answer.fix is not None
    return TOWN.to_enu(answer.fix.latitude_deg, answer.fix.longitude_deg)[:2]


@pytest.mark.parametrize("seed", range(40))
def test_after_a_kidnap_it_is_started_anew_within_five_images_and_never_from_the_old_place(seed: int) -> None:
    """The conditions of ``test_tracking``: the place first, at least 0.3 of the weight, none where it was."""
    positions = street_grid()
    noise = np.random.default_rng(seed)
    track = build_tracker(TrackingConfig(method="hmm"), positions, 10.0)
    follower = Follower(Seeding("lost"))

    def shown(place: int, stamp_s: float, not_near: int) -> tuple[Answer, bool]:
        answer = seen(positions, place, stamp_s, noise, not_near)
        answer = track(replace(answer, result=fix(positions[place][:2] + noise.normal(0.0, 0.2, 2), 0.0)))
        return answer, follower(answer)

    home = walk(positions, int(noise.integers(len(positions))), 10)
    at_home = [shown(place, 2.0 * step, place)[1] for step, place in enumerate(home)]
    assert at_home == [True] + [False] * 9
    far_off = np.flatnonzero(np.linalg.norm(positions - positions[home[-1]], axis=1) > 80.0)
    there = walk(positions, int(noise.choice(far_off)), RELOCALISES_WITHIN + 3)
    away = [shown(place, 20.0 + 2.0 * step, home[-1]) for step, place in enumerate(there)]
    started = [step for step, (_, right) in enumerate(away) if right]
    assert len(started) == 1 and 0 < started[0] < RELOCALISES_WITHIN
    # from the fix in hand, which is where the robot is now
    assert np.linalg.norm(place_of(away[started[0]][0]) - positions[there[started[0]]][:2]) < 2.0


def test_without_tracking_the_second_fix_elsewhere_confirms_the_first_and_one_alone_is_false() -> None:
    follower = Follower(Seeding("lost"))
    assert [follower(at(2.0 * step, step)) for step in range(4)] == [True, False, False, False]
    assert not follower(at(300.0, 4.0))
    assert not follower(at(10.0, 5.0)), "the one before was false"
    assert [follower(at(300.0 + step, 6.0 + step)) for step in range(3)] == [False, True, False]


def test_two_false_fixes_that_do_not_agree_are_no_reason() -> None:
    follower = Follower(Seeding("lost"))
    seeded = [follower(at(east, step)) for step, east in enumerate([0.0, 300.0, -400.0, 800.0, 3.0])]
    assert seeded == [True, False, False, False, False]


def test_the_same_elsewhere_with_something_false_between() -> None:
    follower = Follower(Seeding("lost"))
    seeded = [follower(at(east, step)) for step, east in enumerate([0.0, 300.0, -400.0, 302.0])]
    assert seeded == [True, False, False, True]


def test_once_is_once_until_a_reset() -> None:
    follower = Follower(Seeding("once"))
    places = [0.0, 1.0, 300.0, 301.0, 302.0]
    assert [follower(at(east, step)) for step, east in enumerate(places)] == [True] + [False] * 4
    assert not follower(at(303.0, 5.0), lost=True)
    follower.seeding.reset()
    assert follower(at(304.0, 6.0))


def test_lost_and_found_at_the_same_place() -> None:
    follower = Follower(Seeding("lost"))
    assert follower(at(0.0, 0.0))
    nothing = Answer(Header(SECOND), NoFix("low_confidence"))
    assert not follower(nothing) and not follower(nothing, lost=True)
    assert follower(at(1.0, 2.0))
    assert not follower(at(2.0, 3.0))


def test_only_an_orientation_of_a_mounted_camera_starts() -> None:
    follower = Follower(Seeding("once"))
    assert not follower(Answer(Header(0), plain(np.zeros(2))))
    assert follower(at(0.0, 1.0))
    unknown = Follower(Seeding("once"), mounting=None)
    assert not unknown(at(0.0, 0.0))


def test_what_is_held_back_starts_nothing_by_itself() -> None:
    follower = Follower(Seeding("lost"))
    assert follower(at(0.0, 0.0))
    for step in range(1, 10):
        held = NoFix("jump", held_back=fix(np.array([300.0, 0.0]), 0.0))
        assert not follower(Answer(Header(step * SECOND), held))
    assert follower(at(300.0, 10.0))


def test_a_robot_that_is_carried_while_its_wheels_stand_still() -> None:
    """Odometry holds the first two fixes elsewhere back; the third is published and started from."""
    known = Odometer(3.0)
    for step in range(200):
        known.add(Pose(step * SECOND // 10, np.array([7.0, 0.0, 0.0]), 0.0))
    follower, consistency = Follower(Seeding("lost"), known), Consistency()
    answers, seeded = [], []
    for step in range(12):
        answer = at(0.0 if step < 6 else 15.0, 1.0 + step)  # a shorter way than the maximum speed explains at once
        answers.append(consistency(answer, TOWN, known, AHEAD))
        seeded.append(follower(answers[-1]))
    assert [answer.fix is not None for answer in answers] == [True] * 6 + [False] * 2 + [True] * 4
    assert seeded == [True] + [False] * 7 + [True] + [False] * 3


def test_a_turn_that_odometry_does_not_know_is_a_kidnap_too() -> None:
    known = Odometer(3.0)
    for step in range(100):
        known.add(Pose(step * SECOND // 10, np.zeros(3), 0.0))
    follower = Follower(Seeding("lost"), known)
    seeded = [follower(at(0.0, 1.0 + step, 0.0 if step < 3 else 2.0)) for step in range(6)]
    assert seeded == [True, False, False, False, True, False]


# ---- carried on by odometry


def test_carried_on_by_hand() -> None:
    """It heads north, drives 3 m, turns left by 90° and drives 1 m."""
    known = Odometer(3.0)
    way = [(0.0, 0.0, 0.0), (1.5, 0.0, 0.0), (3.0, 0.0, 0.0), (3.0, 0.0, math.pi / 2), (3.0, 1.0, math.pi / 2)]
    for step, (x, y, yaw) in enumerate(way):
        known.add(Pose(step * SECOND, np.array([x, y, 0.0]), yaw))
    motion = known.motion(0, 4 * SECOND)
    assert motion is not None and motion.path_m == pytest.approx(4.0)
    before = fix(np.array([10.0, 20.0]), math.pi / 2)
    after = carried_on(before, motion)
    assert TOWN.to_enu(after.latitude_deg, after.longitude_deg)[:2] == pytest.approx([9.0, 23.0], abs=1e-5)
    assert after.heading_deg == pytest.approx(270.0)
    assert after.pose_covariance is not None and before.pose_covariance is not None
    # its own 0.2 m, 1° of heading at 3.2 m of lever in all, 5 % of 4 m and 0.2 m of drift
    variance = np.diag(after.pose_covariance)
    own, drift = 0.2**2, 0.2**2 + 0.2**2
    assert variance[:2] == pytest.approx(
        [own + math.radians(1.0) ** 2 * 9.0 + drift, own + math.radians(1.0) ** 2 + drift], rel=1e-4
    )
    assert variance[5] == pytest.approx(math.radians(1.0) ** 2 + math.radians(0.3 * 4.0) ** 2, rel=1e-4)
    assert np.array_equal(after.covariance, after.pose_covariance[:3, :3])


@pytest.mark.parametrize("latency_s", [0.1, 1.0, 4.0])
def test_however_late_the_answer_it_starts_where_the_robot_is(latency_s: float) -> None:
    known = odometer()  # whose frame is turned against the map, and begins elsewhere
    for image_s in np.arange(1.0, 14.0, 2.5):
        position, yaw = quarter(image_s)
        now_m, now_yaw = quarter(image_s + latency_s)
        motion = known.motion(round(image_s * SECOND), round((image_s + latency_s) * SECOND))
        assert motion is not None
        found: Fix = carried_on(fix(position, yaw), motion)
        assert TOWN.to_enu(found.latitude_deg, found.longitude_deg)[:2] == pytest.approx(now_m, abs=0.02)
        assert found.orientation is not None
        turn = yaw_rad(enu_from_body(found.orientation)) - now_yaw
        assert math.remainder(turn, math.tau) == pytest.approx(0.0, abs=1e-3)
