"""Odometry's frame in the map: simulated ways with a known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geowarp_ros.motion.map_from_odom import WINDOW, Alignment, MapFromOdom, approach
from geowarp_ros.types import FloatArray

TRUTH = MapFromOdom(120.0, -40.0, math.radians(200.0), 0.0, 0)


def bend(count: int = 20, length_m: float = 100.0) -> FloatArray:
    """A way round a corner, in the odometry's frame."""
    along = np.linspace(0.0, length_m, count)
    return np.stack([np.minimum(along, length_m / 2), np.maximum(along - length_m / 2, 0.0)], axis=1)


def aligned(way: FloatArray, std_m: float, seed: int = 0, false_every: int = 0) -> Alignment:
    noise = np.random.default_rng(seed)
    alignment = Alignment()
    for number, odom in enumerate(way):
        fix = TRUTH(odom) + noise.normal(0.0, std_m, 2)
        if false_every and number % false_every == 1:
            fix = noise.uniform(-500.0, 500.0, 2)
        alignment.add(fix, np.eye(2) * max(std_m, 0.1) ** 2, odom)
    return alignment


def test_exact_fixes_give_the_exact_motion() -> None:
    found = aligned(bend(), 0.0).solve()
    assert found is not None
    assert (found.east_m, found.north_m) == pytest.approx((120.0, -40.0), abs=1e-6)
    assert math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau) == pytest.approx(0.0, abs=1e-9)
    assert found.agreeing == 20


def test_by_hand_a_quarter_turn() -> None:
    # odometry went along its x axis, the robot went north in the map from (10, 20)
    alignment = Alignment()
    for step in (0.0, 10.0, 20.0, 30.0):
        alignment.add(np.array([10.0, 20.0 + step]), np.eye(2), np.array([step, 0.0]))
    found = alignment.solve()
    assert found is not None
    assert (found.east_m, found.north_m, found.yaw_rad) == pytest.approx((10.0, 20.0, math.pi / 2))
    # lever: squares about the middle 15² + 5² + 5² + 15² = 500
    assert found.yaw_std_rad == pytest.approx(1 / math.sqrt(500))
    assert found(np.array([7.0, 2.0])) == pytest.approx([8.0, 27.0])


@pytest.mark.parametrize("seed", range(20))
def test_false_fixes_are_outvoted(seed: int) -> None:
    found = aligned(bend(), 3.0, seed, false_every=3).solve()
    assert found is not None
    assert np.linalg.norm(found(bend()) - TRUTH(bend()), axis=1).max() < 8.0
    assert abs(math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau)) < 4 * found.yaw_std_rad


def test_yaw_errors_are_as_large_as_claimed() -> None:
    ratios = []
    for seed in range(300):
        found = aligned(bend(), 3.0, seed).solve()
        assert found is not None
        ratios.append(math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau) / found.yaw_std_rad)
    assert np.std(ratios) == pytest.approx(1.0, abs=0.15)


def test_a_way_that_is_short_beside_the_errors_says_nothing() -> None:
    assert aligned(bend(length_m=5.0), 3.0).solve() is None
    assert aligned(bend(3), 0.0).solve() is None  # three fixes
    still = Alignment()
    for _ in range(10):
        still.add(np.zeros(2), np.eye(2), np.zeros(2))
    assert still.solve() is None


def test_fixes_without_agreement_are_no_alignment() -> None:
    noise = np.random.default_rng(1)
    alignment = Alignment()
    for odom in bend():
        alignment.add(noise.uniform(-1000.0, 1000.0, 2), np.eye(2) * 4.0, odom)
    assert alignment.solve() is None


def test_only_a_window_is_remembered_and_reset_forgets() -> None:
    alignment = aligned(bend(5 * WINDOW), 0.0)
    found = alignment.solve()
    assert found is not None and found.agreeing == WINDOW
    alignment.reset()
    assert alignment.solve() is None


# ---- fixes with headings


def headed(way: FloatArray, std_m: float, yaw_std_deg: float, seed: int = 0, false_every: int = 0) -> Alignment:
    noise = np.random.default_rng(seed)
    alignment = Alignment()
    for number, odom in enumerate(way):
        fix, yaw = TRUTH(odom) + noise.normal(0.0, std_m, 2), TRUTH.yaw_rad
        if false_every and number % false_every == 1:
            fix, yaw = noise.uniform(-500.0, 500.0, 2), noise.uniform(0.0, math.tau)
        yaw += math.radians(noise.normal(0.0, yaw_std_deg))
        alignment.add(fix, np.eye(2) * max(std_m, 0.1) ** 2, odom, yaw, math.radians(yaw_std_deg))
    return alignment


def test_three_headings_at_a_standstill_are_enough_and_two_are_not() -> None:
    found = headed(np.full((3, 2), 5.0), 0.0, 1.0).solve()
    assert found is not None
    assert math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau) == pytest.approx(0.0, abs=math.radians(2.0))
    assert found.yaw_std_rad == pytest.approx(math.radians(1.0) / math.sqrt(3))
    assert found(np.array([5.0, 5.0])) == pytest.approx(TRUTH(np.array([5.0, 5.0])))
    assert headed(np.full((2, 2), 5.0), 0.0, 1.0).solve() is None


def test_headings_and_path_are_weighed_by_their_deviations() -> None:
    # the path says 90° as surely (1 / √500 rad) as the four headings together, which say 92°
    alignment, std = Alignment(), math.sqrt(4 / 500)
    for step in (0.0, 10.0, 20.0, 30.0):
        yaw = math.radians(92.0) + math.tau  # any turn of the circle
        alignment.add(np.array([10.0, 20.0 + step]), np.eye(2), np.array([step, 0.0]), yaw, std)
    found = alignment.solve()
    assert found is not None
    assert math.degrees(math.remainder(found.yaw_rad, math.tau)) == pytest.approx(91.0)
    assert found.yaw_std_rad == pytest.approx(1 / math.sqrt(1000))


@pytest.mark.parametrize("seed", range(20))
def test_false_headings_are_outvoted(seed: int) -> None:
    found = headed(bend(12, 10.0), 0.3, 2.0, seed, false_every=3).solve()
    assert found is not None
    assert abs(math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau)) < 4 * found.yaw_std_rad


def test_yaw_errors_with_headings_are_as_large_as_claimed() -> None:
    ratios = []
    for seed in range(300):
        found = headed(bend(12, 10.0), 0.3, 3.0, seed).solve()
        assert found is not None
        ratios.append(math.remainder(found.yaw_rad - TRUTH.yaw_rad, math.tau) / found.yaw_std_rad)
    assert np.std(ratios) == pytest.approx(1.0, abs=0.15)


def test_positions_that_agree_are_not_enough_where_headings_contradict() -> None:
    alignment = Alignment()
    for yaw in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        alignment.add(np.zeros(2), np.eye(2), np.zeros(2), yaw, 0.01)
    assert alignment.solve() is None


# ---- corrections of limited speed


def test_half_of_a_way_by_hand() -> None:
    # 6 m east and a turn of 0.4 rad, at 5 m: 2 m; 4 m of way are half of the 8
    shown, found = MapFromOdom(0.0, 0.0, 0.0, 0.1, 5), MapFromOdom(6.0, 0.0, 0.4, 0.2, 7)
    half = approach(shown, found, np.zeros(2), 4.0)
    assert (half.east_m, half.north_m, half.yaw_rad) == pytest.approx((3.0, 0.0, 0.2))
    assert half.agreeing == 7
    assert approach(shown, found, np.zeros(2), 8.1) is found


def test_the_way_is_the_robots_wherever_the_odometry_began() -> None:
    here = np.array([1000.0, 0.0])
    shown, found = MapFromOdom(0.0, 0.0, 0.0, 0.1, 5), MapFromOdom(0.0, 0.0, 0.1, 0.1, 5)
    reached = approach(shown, found, here, 1.0)(here)
    # the way is 100 m round the origin, straight as the crow flies, and half a metre of it is the turn's
    assert np.linalg.norm(reached - here) == pytest.approx(1.0, abs=0.01)
    assert reached[1] > 0.99


def test_a_turn_takes_the_short_way_round() -> None:
    shown = MapFromOdom(0.0, 0.0, math.radians(179.0), 0.1, 5)
    found = MapFromOdom(0.0, 0.0, math.radians(-179.0), 0.1, 5)
    half = approach(shown, found, np.zeros(2), 5.0 * math.radians(1.0))
    assert math.degrees(half.yaw_rad) == pytest.approx(180.0)
