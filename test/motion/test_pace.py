"""How many candidates fit, with a re-ranker whose cost is known and a clock that only it moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geowarp_ros.motion.pace import WINDOW, Pace, Throttle
from geowarp_ros.types import Candidate, Place

CANDIDATES = [Candidate(index, Place(f"{index}.jpg", 0.0, 0.0), float(index)) for index in range(20)]
QUERY: Any = None


class HandClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowReranker:
    """Reverses the first five it is handed, and takes its time for each."""

    def __init__(self, clock: HandClock) -> None:
        self.clock, self.each_s, self.fixed_s, self.seen = clock, 0.010, 0.0, 0

    def __call__(self, query: Any, candidates: Any) -> list[Candidate]:
        self.seen = len(candidates[:5])
        self.clock.now += self.fixed_s + self.each_s * self.seen
        return [*reversed(candidates[:5]), *candidates[5:]]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def slow(clock: HandClock) -> SlowReranker:
    return SlowReranker(clock)


def test_without_a_deadline_everything_is_handed_on(clock: HandClock, slow: SlowReranker) -> None:
    ranked = Pace(5, clock)(slow, QUERY, CANDIDATES)
    assert [c.index for c in ranked] == [4, 3, 2, 1, 0, *range(5, 20)]


def test_the_first_image_is_measured_and_the_next_fits(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(5, clock)
    pace(slow, QUERY, CANDIDATES, clock.now + 0.035)
    assert slow.seen == 5  # nothing was known
    for left_s, expected in [(0.0351, 3), (0.0101, 1), (0.002, 1), (-5.0, 1), (0.0501, 5), (9.0, 5)]:
        ranked = pace(slow, QUERY, CANDIDATES, clock.now + left_s)
        assert slow.seen == expected
        assert sorted(c.index for c in ranked) == list(range(20))  # none is lost
        assert [c.index for c in ranked[expected:]] == list(range(expected, 20))


def test_time_is_kept_for_what_comes_afterwards(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(5, clock)
    pace(slow, QUERY, CANDIDATES)
    with pace.afterwards():
        clock.now += 0.020
    pace(slow, QUERY, CANDIDATES, clock.now + 0.0501)
    assert slow.seen == 3
    pace.forget()
    assert pace.affordable(clock.now) is None


def test_costs_are_learned_anew_within_a_window(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(5, clock)
    pace(slow, QUERY, CANDIDATES)
    slow.each_s = 0.020  # the machine is twice as slow now
    for _ in range(WINDOW):
        pace(slow, QUERY, CANDIDATES, clock.now + 0.0501)
    assert slow.seen == 2
    slow.each_s = 0.005
    for _ in range(WINDOW):
        pace(slow, QUERY, CANDIDATES, clock.now + 0.0501)
    assert slow.seen == 5


def test_one_slow_image_changes_little(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(5, clock)
    for image in range(WINDOW):
        slow.each_s = 0.100 if image == 4 else 0.010
        pace(slow, QUERY, CANDIDATES)
    pace(slow, QUERY, CANDIDATES, clock.now + 0.0401)
    assert slow.seen == 4


@pytest.mark.parametrize("fixed_s", [0.0, 0.004, 0.012])
def test_with_a_fixed_share_it_settles_in_time_and_at_most_one_too_few(
    clock: HandClock, slow: SlowReranker, fixed_s: float
) -> None:
    pace = Pace(5, clock)
    slow.fixed_s = fixed_s
    for _ in range(10 * WINDOW):
        began = clock.now
        pace(slow, QUERY, CANDIDATES, clock.now + 0.045)
    assert clock.now - began <= 0.045
    assert slow.seen >= int((0.045 - fixed_s) / 0.010) - 1


def test_a_reranker_that_looks_at_all_is_left_alone(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(None, clock)
    for _ in range(3):
        pace(slow, QUERY, CANDIDATES, clock.now - 1.0)
        assert slow.seen == 5


def test_no_candidates_teach_nothing(clock: HandClock, slow: SlowReranker) -> None:
    pace = Pace(5, clock)
    assert pace(slow, QUERY, [], clock.now + 1.0) == []
    assert pace.affordable(clock.now) is None


@pytest.mark.parametrize(("camera_hz", "expected_hz"), [(8.0, 8.0), (10.0, 10.0), (15.0, 10.0), (60.0, 10.0)])
def test_a_throttle_passes_what_the_rate_allows(clock: HandClock, camera_hz: float, expected_hz: float) -> None:
    throttle = Throttle(clock)
    jitter = np.random.default_rng(0)
    passed = 0
    for image in range(int(20 * camera_hz)):
        clock.now = 100.0 + image / camera_hz + float(jitter.uniform(-0.004, 0.004))
        passed += throttle.passes(10.0)
    assert passed == pytest.approx(20 * expected_hz, abs=2)


def test_a_throttle_follows_its_rate_and_0_is_none(clock: HandClock) -> None:
    throttle = Throttle(clock)
    assert throttle.passes(0.01)  # the next is due in 100 s
    clock.now += 0.2
    assert not throttle.passes(0.01)
    assert throttle.passes(0.0)
    clock.now += 0.2
    assert throttle.passes(10.0)  # raised: not after 100 s only
