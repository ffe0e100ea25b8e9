from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from geowarp_ros.ros.diagnostics import Statistics, diagnostic_array
from geowarp_ros.types import NoFix
from test.ros.conftest import values


class HandClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def statistics(clock: HandClock) -> Statistics:
    return Statistics(clock)


def render(statistics: Statistics, state: str = "active", problem: str = "") -> dict[str, DiagnosticStatus]:
    array = diagnostic_array(
        Time(sec=3), "front/loc", state, problem, statistics.snapshot(), {"gallery": "g"}, 5.0
    )
    assert array.header.stamp.sec == 3
    return {status.name: status for status in array.status}


def test_percentiles_and_rate_by_hand(statistics: Statistics, clock: HandClock) -> None:
    for number in range(101):  # latencies 0, 1 … 100 ms, five images a second
        statistics.received("rgb8", dropped=number % 2)
        statistics.answered(NoFix("low_confidence", timing_ms={"search": float(number)}), total_ms=2.0 * number)
        clock.now += 0.2
    counts = statistics.snapshot()
    assert counts.latencies_ms == {"search": (50.0, 95.0), "total": (100.0, 190.0)}
    assert counts.rate_hz == pytest.approx(5.0)
    assert (counts.received, counts.dropped, counts.no_fixes) == (101, 50, {"low_confidence": 101})
    assert counts.age_s == pytest.approx(0.2)


def test_a_silent_camera_is_a_warning_only_while_active(statistics: Statistics, clock: HandClock) -> None:
    clock.now += 7.5
    status = render(statistics)["front/loc: input"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "no image for 7.5 s")
    assert render(statistics, state="inactive")["front/loc: input"].level == DiagnosticStatus.OK
    statistics.restart()
    assert render(statistics)["front/loc: input"].level == DiagnosticStatus.OK


def test_a_bad_image_warns_for_as_long(statistics: Statistics, clock: HandClock) -> None:
    statistics.received("32FC1", 0)
    statistics.bad("encoding", "encoding '32FC1' is not supported")
    status = render(statistics)["front/loc: input"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "encoding '32FC1' is not supported")
    assert values(status)["bad: encoding"] == "1"
    assert values(status)["encoding"] == "32FC1"
    clock.now += 6.0
    statistics.received("rgb8", 0)
    assert render(statistics)["front/loc: input"].level == DiagnosticStatus.OK


def test_a_failed_transition_is_an_error(statistics: Statistics) -> None:
    status = render(statistics, "unconfigured", "g: no such gallery")["front/loc: localization"]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "unconfigured: g: no such gallery")


def test_reset_counts_and_forgets_rates_but_no_totals(statistics: Statistics) -> None:
    statistics.received("rgb8", 0)
    statistics.answered(NoFix("disagreement", "far apart"), 4.0)
    statistics.reset()
    counts = statistics.snapshot()
    assert (counts.resets, counts.received, counts.latencies_ms, counts.last_answer) == (1, 1, {}, "")
