"""How many candidates fit, with a localizer whose costs are known and a clock that only it moves."""

from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.motion.pace import WINDOW, Pace, Throttle
from geowarp_ros.types import Answer, Header, NoFix, PoseMethod

CANDIDATES = 5
"""Number that is re-ranked when there is time."""


class HandClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowLocalizer:
    """Re-ranks what there is time for and takes its time for each; the pace learns from its answers."""

    def __init__(self, clock: HandClock) -> None:
        self.clock, self.pace = clock, Pace(clock)
        self.each_s, self.fixed_s, self.verify_s, self.position_s = 0.010, 0.0, 0.0, 0.0
        self.points_s = self.anchors_s = 0.0
        self.seen = 0
        self.dropped: list[str] = []

    def localize(self, left_s: float | None = None, found: int = 20) -> None:
        """Answer an image; with ``left_s`` until it is due."""
        deadline = self.pace.deadline(None if left_s is None else self.clock.now + left_s)
        count = deadline()
        self.seen = min(found, CANDIDATES if count is None else min(count, CANDIDATES))
        took_s = {
            "search": 0.0,
            "rerank": self.fixed_s + self.each_s * self.seen,
            "verify": self.verify_s,
            "position": self.position_s,
        }
        position_s = took_s.pop("position")
        self.clock.now += sum(took_s.values())
        self.dropped = ["candidates"] if self.seen < min(found, CANDIDATES) else []
        rungs: tuple[tuple[PoseMethod, str, float], ...] = (
            ("points", "pose", self.points_s),
            ("anchors", "anchors", self.anchors_s),
        )
        for rung, stage, cost_s in rungs:
            if not deadline.affords(rung):
                self.dropped.append(rung)
                break
            took_s[stage] = cost_s
            self.clock.now += cost_s
        self.clock.now += position_s
        timing_ms = {stage: 1e3 * value for stage, value in {**took_s, "position": position_s}.items()}
        header = Header(reranked=self.seen, timing_ms=timing_ms, dropped=tuple(self.dropped))
        self.pace.learn(Answer(header, NoFix("low_confidence")))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def slow(clock: HandClock) -> SlowLocalizer:
    return SlowLocalizer(clock)


def test_without_a_deadline_there_is_no_limit(slow: SlowLocalizer) -> None:
    slow.localize()
    assert slow.pace.deadline(None)() is None
    slow.localize()
    assert slow.seen == 5


def test_the_first_image_is_measured_and_the_next_fits(slow: SlowLocalizer) -> None:
    slow.localize(0.035)
    assert slow.seen == 5  # nothing was known
    for left_s, expected in [(0.0351, 3), (0.0101, 1), (0.002, 1), (-5.0, 1), (0.0501, 5), (9.0, 5)]:
        slow.localize(left_s)
        assert slow.seen == expected


def test_the_clock_is_read_when_the_number_is_asked_for(slow: SlowLocalizer, clock: HandClock) -> None:
    slow.localize()
    affordable = slow.pace.deadline(clock.now + 0.0501)
    assert affordable() == 5
    clock.now += 0.020  # the image was described and searched for meanwhile
    assert affordable() == 3


@pytest.mark.parametrize("stage", ["verify_s", "position_s"])
def test_time_is_kept_for_what_comes_afterwards(slow: SlowLocalizer, clock: HandClock, stage: str) -> None:
    setattr(slow, stage, 0.020)
    slow.localize()
    slow.localize(0.0501)
    assert slow.seen == 3
    slow.pace.forget()
    assert slow.pace.deadline(clock.now)() is None


@pytest.mark.parametrize(
    ("budget_s", "dropped", "reranked"),
    [
        (0.1161, [], 5),  # 5 × 10 + 20 + 15 + 30 + 1 ms
        (0.1159, ["anchors"], 5),
        (0.0861, ["anchors"], 5),
        (0.0859, ["points"], 5),
        (0.0711, ["points"], 5),
        (0.0709, ["candidates", "points"], 4),
        (0.0005, ["candidates", "points"], 1),
    ],
)
def test_later_rungs_are_dropped_first(
    slow: SlowLocalizer, clock: HandClock, budget_s: float, dropped: list[str], reranked: int
) -> None:
    slow.verify_s, slow.points_s, slow.anchors_s, slow.position_s = 0.020, 0.015, 0.030, 0.001
    slow.localize()
    began = clock.now
    slow.localize(budget_s)
    assert (slow.dropped, slow.seen) == (dropped, reranked)
    assert clock.now - began <= budget_s or reranked == 1


def test_a_rung_comes_back_when_the_load_has_gone_and_seldom_before(slow: SlowLocalizer, clock: HandClock) -> None:
    slow.anchors_s = 0.080
    slow.localize(1.0)
    late = 0
    for _ in range(200):
        began = clock.now
        slow.localize(0.100)  # 50 ms are left for 80
        late += clock.now - began > 0.100
    assert late <= 10
    slow.anchors_s = 0.040
    for _ in range(100):
        slow.localize(0.100)
    assert slow.dropped == []


def test_a_rung_that_nobody_timed_is_tried_while_there_is_time(slow: SlowLocalizer, clock: HandClock) -> None:
    deadline = slow.pace.deadline(clock.now + 0.010)
    assert deadline.affords("points") and deadline.affords("anchors")
    clock.now += 0.011
    assert not deadline.affords("points")


def test_costs_are_learned_anew_within_a_window(slow: SlowLocalizer) -> None:
    slow.localize()
    slow.each_s = 0.020  # the machine is twice as slow now
    for _ in range(WINDOW):
        slow.localize(0.0501)
    assert slow.seen == 2
    slow.each_s = 0.005
    for _ in range(WINDOW):
        slow.localize(0.0501)
    assert slow.seen == 5


def test_one_slow_image_changes_little(slow: SlowLocalizer) -> None:
    for image in range(WINDOW):
        slow.each_s = 0.100 if image == 4 else 0.010
        slow.localize()
    slow.localize(0.0401)
    assert slow.seen == 4


@pytest.mark.parametrize("fixed_s", [0.0, 0.004, 0.012])
def test_with_a_fixed_share_it_settles_in_time_and_at_most_one_too_few(
    slow: SlowLocalizer, clock: HandClock, fixed_s: float
) -> None:
    slow.fixed_s = fixed_s
    for _ in range(10 * WINDOW):
        began = clock.now
        slow.localize(0.045)
    assert clock.now - began <= 0.045
    assert slow.seen >= int((0.045 - fixed_s) / 0.010) - 1


def test_no_candidates_teach_nothing(slow: SlowLocalizer, clock: HandClock) -> None:
    slow.localize(1.0, found=0)
    assert slow.pace.deadline(clock.now)() is None
    refused = Answer(Header(timing_ms={"texture": 1.0}), NoFix("no_texture"))  # before any search
    slow.pace.learn(refused)
    assert slow.pace.deadline(clock.now)() is None


def test_free_re_ranking_affords_any_number(slow: SlowLocalizer) -> None:
    slow.each_s = 0.0
    for _ in range(3):
        slow.localize(0.001)
        assert slow.seen == 5


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
