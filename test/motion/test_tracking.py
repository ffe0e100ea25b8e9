"""The forward filter on a straight street: it follows, holds jumps back, and recovers from a kidnap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.config import TrackingConfig
from geowarp_ros.integrity.evidence import candidate_weights
from geowarp_ros.motion.tracking import RELOCALISES_WITHIN, HmmTracker, NoTracking, build_tracker
from geowarp_ros.types import Answer, Candidate, Fix, Header, Near, NoFix, Place

POSITIONS = np.stack([np.arange(0.0, 500.0, 5.0), np.zeros(100), np.zeros(100)], axis=1)
SECOND = 1_000_000_000
FIX = Fix(0.0, 0.0, 0.0, np.eye(3), 0.9)


def fix_at(place: int, stamp_s: float, rivals: tuple[int, ...] = ()) -> Answer:
    candidates = tuple(
        Candidate(index, Place(f"{index}.jpg", 0.0, 0.0), distance)
        for index, distance in [(place, 0.2), *((rival, 0.4) for rival in rivals)]
    )
    return Answer(Header(int(stamp_s * SECOND)), FIX, candidates)


def is_jump(answer: Answer) -> bool:
    return isinstance(answer.result, NoFix) and answer.result.reason == "jump"


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
        answer = fix_at(step, step * 2.0, rivals=(99 - step,))
        assert track(answer) is answer


def test_a_jump_is_held_back_and_the_drive_goes_on() -> None:
    track = tracker()
    for step in range(5):
        track(fix_at(step, step * 2.0))
    asked = fix_at(80, 10.0)
    held = track(asked)
    assert is_jump(held)
    assert held.header == asked.header and held.candidates == asked.candidates
    assert held.confidence == 0.9
    assert track(fix_at(6, 12.0)).fix


def street_grid() -> NDArray[Any]:
    """Places every 5 m along the streets of a town of 300 m × 300 m."""
    along = np.arange(0.0, 301.0, 5.0)
    streets = np.arange(0.0, 301.0, 60.0)
    east_west = [(x, y, 0.0) for y in streets for x in along]
    north_south = [(x, y, 0.0) for x in streets for y in along if y % 60]
    return np.array(east_west + north_south)


def walk(positions: NDArray[Any], start: int, count: int) -> list[int]:
    """So many places from one on, each the nearest not seen yet."""
    visited = [start]
    for _ in range(count - 1):
        away = np.linalg.norm(positions - positions[visited[-1]], axis=1)
        away[visited] = np.inf
        visited.append(int(away.argmin()))
    return visited


def seen(positions: NDArray[Any], place: int, stamp_s: float, noise: np.random.Generator, not_near: int) -> Answer:
    """An image of a place among 20 candidates: it first, with its neighbours at least 0.3 of the weight; the rest
    lie anywhere but where the robot was before."""
    near = np.flatnonzero(np.linalg.norm(positions - positions[place], axis=1) <= 10.0)
    far = np.flatnonzero(
        (np.linalg.norm(positions - positions[place], axis=1) > 10.0)
        & (np.linalg.norm(positions - positions[not_near], axis=1) > 40.0)
    )
    elsewhere = noise.choice(far, 20 - min(len(near), 4), replace=False)
    neighbours = [int(row) for row in near if row != place][:3]
    distances = np.sort(noise.uniform(0.22, 0.6, len(elsewhere)))
    candidates = [Candidate(place, Place("", 0.0, 0.0), 0.2)]
    candidates += [Candidate(row, Place("", 0.0, 0.0), float(noise.uniform(0.2, 0.3))) for row in neighbours]
    candidates += [
        Candidate(int(row), Place("", 0.0, 0.0), float(d)) for row, d in zip(elsewhere, distances, strict=True)
    ]
    weights = candidate_weights(np.array([c.distance for c in candidates]))
    assert weights[: 1 + len(neighbours)].sum() >= 0.3 * weights.sum(), "the simulation must keep its promise"
    return Answer(Header(int(stamp_s * SECOND)), FIX, tuple(candidates))


@pytest.mark.parametrize("seed", range(40))
def test_relocalises_within_the_stated_number_of_images_of_a_kidnap(seed: int) -> None:
    positions = street_grid()
    noise = np.random.default_rng(seed)
    track = build_tracker(TrackingConfig(method="hmm"), positions, 10.0)
    home = walk(positions, int(noise.integers(len(positions))), 10)
    for step, place in enumerate(home):
        track(seen(positions, place, 2.0 * step, noise, not_near=place))
    far_off = np.flatnonzero(np.linalg.norm(positions - positions[home[-1]], axis=1) > 80.0)
    there = walk(positions, int(noise.choice(far_off)), RELOCALISES_WITHIN)
    answers = [
        track(seen(positions, place, 20.0 + 2.0 * step, noise, not_near=home[-1]))
        for step, place in enumerate(there)
    ]
    assert is_jump(answers[0])
    assert answers[-1].fix


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
    assert track(fix_at(60, 2.0), 295.0).fix


def test_time_jumping_back_or_a_long_pause_starts_a_new_track() -> None:
    track = tracker(forget_after_s=5.0)
    track(fix_at(0, 100.0))
    assert track(fix_at(90, 1.0)).fix
    assert track(fix_at(10, 20.0)).fix


def test_reset_forgets() -> None:
    track = tracker()
    track(fix_at(0, 0.0))
    track.reset()
    assert track(fix_at(90, 1.0)).fix


def test_no_candidates_pass() -> None:
    nothing = Answer(Header(), NoFix("empty_gallery"))
    assert tracker()(nothing) is nothing


def test_an_image_asked_about_again_is_no_new_evidence() -> None:
    track = tracker()
    for step in range(5):
        track(fix_at(step, 1 + step * 2.0))
    for _ in range(20):  # ~/localize, again and again, of one misleading image
        assert is_jump(track(fix_at(80, 11.0)))
    assert track(fix_at(6, 13.0)).fix


def test_an_image_that_was_overtaken_ends_no_track() -> None:
    track = tracker()
    for step in range(5):
        track(fix_at(step, 1 + step * 2.0))
    assert is_jump(track(fix_at(80, 8.7)))  # 0.3 s before the newest: still a jump
    assert track(fix_at(4, 9.1)).fix


def test_what_is_held_back_keeps_its_circle() -> None:
    track = tracker()
    for step in range(5):
        track(fix_at(step, 1 + step * 2.0))
    circle = Near(48.0, 11.0, 30.0)
    held = track(replace(fix_at(80, 11.0), header=Header(11 * SECOND, near=circle)))
    assert is_jump(held) and held.header.near is circle
