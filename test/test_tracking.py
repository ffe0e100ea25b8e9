"""The forward filter on a straight street: it follows, holds jumps back, and recovers from a kidnap."""

from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.config import TrackingConfig
from geowarp_ros.tracking import HmmTracker, NoTracking, build_tracker
from geowarp_ros.types import Candidate, Fix, NoFix, Place

POSITIONS = np.stack([np.arange(0.0, 500.0, 5.0), np.zeros(100), np.zeros(100)], axis=1)
SECOND = 1_000_000_000


def fix_at(place: int, stamp_s: float, rivals: tuple[int, ...] = ()) -> Fix:
    candidates = tuple(
        Candidate(index, Place(f"{index}.jpg", 0.0, 0.0), distance)
        for index, distance in [(place, 0.2), *((rival, 0.4) for rival in rivals)]
    )
    return Fix(0.0, 0.0, 0.0, np.eye(3), 0.9, candidates, stamp_ns=int(stamp_s * SECOND))


def tracker(**settings: float | str) -> HmmTracker:
    built = build_tracker(TrackingConfig.model_validate({"method": "hmm", **settings}), POSITIONS, 10.0)
    assert isinstance(built, HmmTracker)
    return built


def test_off_by_default() -> None:
    built = build_tracker(TrackingConfig(), POSITIONS, 10.0)
    assert isinstance(built, NoTracking)
    jump = fix_at(90, 1)
    assert built(fix_at(0, 0)) is not None
    assert built(jump) is jump


def test_a_steady_drive_passes_unchanged() -> None:
    track = tracker()
    for step in range(50):
        fix = fix_at(step, step * 2.0, rivals=(99 - step,))
        assert track(fix) is fix


def test_a_jump_is_held_back_and_the_drive_goes_on() -> None:
    track = tracker()
    for step in range(5):
        track(fix_at(step, step * 2.0))
    held = track(fix_at(80, 10.0))
    assert isinstance(held, NoFix)
    assert held.reason == "jump"
    assert held.stamp_ns == 10 * SECOND
    assert isinstance(track(fix_at(6, 12.0)), Fix)


def test_relocalises_within_four_images_of_a_kidnap() -> None:
    track = tracker()
    for step in range(10):
        track(fix_at(step, step * 2.0))
    answers = [track(fix_at(80 + step, 20.0 + step * 2.0)) for step in range(4)]
    assert isinstance(answers[0], NoFix)
    assert isinstance(answers[-1], Fix)


def test_one_step_equals_the_forward_recursion_by_hand() -> None:
    # two places 100 m apart, belief (1, 0) before; elapsed 1 s at 3 m/s reaches 3 + 10 m of radius, so moving
    # across costs exp(-0.5·((100 - 13)/10)²), nothing to speak of; kidnap 0.2 spreads evenly: (0.9, 0.1)
    track = HmmTracker(
        np.array([[0.0, 0.0], [100.0, 0.0]]), 10.0, TrackingConfig(method="hmm", kidnap_probability=0.2)
    )
    track(fix_at(0, 0.0))
    assert track.belief_around(0) == pytest.approx(1.0)
    track(fix_at(1, 1.0))
    evidence = np.array([0.02, 0.98 + 0.02])
    expected = np.array([0.9, 0.1]) * evidence
    assert track.belief_around(1) == pytest.approx(expected[1] / expected.sum(), abs=1e-6)


def test_odometry_explains_a_long_way() -> None:
    track = tracker()
    track(fix_at(0, 0.0))
    track(fix_at(1, 1.0))
    assert isinstance(track(fix_at(60, 2.0), 295.0), Fix)


def test_time_jumping_back_or_a_long_pause_starts_a_new_track() -> None:
    track = tracker(forget_after_s=5.0)
    track(fix_at(0, 100.0))
    assert isinstance(track(fix_at(90, 1.0)), Fix)
    assert isinstance(track(fix_at(10, 20.0)), Fix)


def test_reset_forgets() -> None:
    track = tracker()
    track(fix_at(0, 0.0))
    track.reset()
    assert isinstance(track(fix_at(90, 1.0)), Fix)


def test_no_candidates_pass() -> None:
    nothing = NoFix("empty_gallery")
    assert tracker()(nothing) is nothing
