from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import EncodingError, GalleryError, ImageError, ModelError
from geowarp_ros.ros.diagnostics import Situation, Statistics, diagnostic_array
from geowarp_ros.types import Answer, Fix, Header, NoFix, NoFixReason
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


def render(
    statistics: Statistics, state: str = "active", problem: str = "", **config: Any
) -> dict[str, DiagnosticStatus]:
    situation = Situation(
        "front/loc", state, problem, {"gallery": "g"}, prior="within 50 m", transform="no odometry"
    )
    array = diagnostic_array(Time(sec=3), situation, statistics, NodeConfig(**config))
    assert array.header.stamp.sec == 3
    return {status.name: status for status in array.status}


FIX = Fix(0.0, 0.0, 0.0, np.eye(3), 0.8)
FOUND = Answer(Header(reranked=1), FIX)
LOST = Answer(Header(reranked=1), NoFix("low_confidence", "0.1 of 0.5", 0.1))


def no_fix(reason: NoFixReason, detail: str, **timing_ms: float) -> Answer:
    return Answer(Header(timing_ms=timing_ms), NoFix(reason, detail))


def test_percentiles_and_rate_by_hand(statistics: Statistics, clock: HandClock) -> None:
    for number in range(101):  # latencies 0, 1 … 100 ms, five images a second
        statistics.count_image("rgb8", dropped=number % 2)
        statistics.count_answer(no_fix("low_confidence", "", search=float(number)), total_ms=2.0 * number)
        clock.now += 0.2
    assert statistics.latencies_ms == {"search": (50.0, 95.0), "total": (100.0, 190.0)}
    assert statistics.rate_hz == pytest.approx(5.0)
    assert (statistics.received, statistics.dropped, statistics.no_fixes) == (101, 50, {"low_confidence": 101})
    shown = values(render(statistics)["front/loc: input"])
    assert (shown["age (s)"], shown["rate (Hz)"]) == ("0.20", "5.00")


def test_a_silent_camera_is_a_warning_only_while_active(statistics: Statistics, clock: HandClock) -> None:
    clock.now += 7.5
    status = render(statistics)["front/loc: input"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "no image for 7.5 s")
    assert render(statistics, input_timeout_s=0.7)["front/loc: input"].level == DiagnosticStatus.ERROR
    assert render(statistics, state="inactive")["front/loc: input"].level == DiagnosticStatus.OK
    statistics.restart()
    assert render(statistics)["front/loc: input"].level == DiagnosticStatus.OK


def test_a_bad_image_warns_for_as_long(statistics: Statistics, clock: HandClock) -> None:
    statistics.count_image("32FC1", 0)
    statistics.count_bad(EncodingError("encoding '32FC1' is not supported"))
    status = render(statistics)["front/loc: input"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "encoding '32FC1' is not supported")
    assert values(status)["bad: encoding"] == "1"
    assert values(status)["encoding"] == "32FC1"
    clock.now += 6.0
    statistics.count_image("rgb8", 0)
    assert render(statistics)["front/loc: input"].level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (EncodingError("nv24 is not supported"), "encoding", "nv24 is not supported"),
        (ImageError("3 bytes are not supported"), "data", "3 bytes are not supported"),
        (GalleryError("a.jpg is gone"), "gallery", "a.jpg is gone"),
        (ModelError("no memory"), "model", "no memory"),
        (ZeroDivisionError("x"), "internal error", "ZeroDivisionError: x"),
    ],
)
def test_what_is_wrong_with_an_image_is_told_by_the_type(
    statistics: Statistics, error: Exception, reason: str, detail: str
) -> None:
    statistics.count_image("rgb8", 0)
    statistics.count_bad(error)
    status = render(statistics)["front/loc: input"]
    assert (values(status)[f"bad: {reason}"], status.message) == ("1", detail)


def test_a_failed_transition_is_an_error(statistics: Statistics) -> None:
    status = render(statistics, "unconfigured", "g: no such gallery")["front/loc: localization"]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "unconfigured: g: no such gallery")


def test_reset_counts_and_forgets_rates_but_no_totals(statistics: Statistics) -> None:
    statistics.count_image("rgb8", 0)
    statistics.count_answer(no_fix("disagreement", "far apart"), 4.0)
    statistics.count_reset()
    assert (statistics.resets, statistics.received, statistics.latencies_ms, statistics.last) == (1, 1, {}, None)
    assert render(statistics)["front/loc: localization"].message == "active"


def test_many_answers_without_a_fix_are_an_error_that_one_fix_ends(statistics: Statistics) -> None:
    for _ in range(3):
        statistics.count_answer(LOST, 4.0)
    status = render(statistics, lost_after=4)["front/loc: localization"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "no fix, low_confidence: 0.1 of 0.5")
    statistics.count_answer(no_fix("no_texture", "a lens cap"), 4.0)  # which says neither
    statistics.count_answer(LOST, 4.0)
    status = render(statistics, lost_after=4)["front/loc: localization"]
    assert status.level == DiagnosticStatus.ERROR
    assert status.message.startswith("outside the gallery: 4 consecutive answers without a fix")
    assert values(status)["no fixes in a row"] == "4"
    statistics.count_answer(no_fix("jump", "far"), 4.0)  # in the gallery, but elsewhere
    assert render(statistics, lost_after=1)["front/loc: localization"].level == DiagnosticStatus.WARN
    statistics.count_answer(FOUND, 4.0)
    assert render(statistics, lost_after=1)["front/loc: localization"].level == DiagnosticStatus.OK


def test_images_that_are_all_unusable_are_an_error(statistics: Statistics, clock: HandClock) -> None:
    for _ in range(6):
        clock.now += 1.0
        statistics.count_image("32FC1", 0)
        statistics.count_bad(EncodingError("encoding '32FC1' is not supported"))
    status = render(statistics)["front/loc: input"]
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, "encoding '32FC1' is not supported")
    statistics.count_answer(FOUND, 4.0)
    assert render(statistics)["front/loc: input"].level == DiagnosticStatus.WARN  # some are


def test_answers_over_budget_are_counted_and_a_warning_where_they_are_many(statistics: Statistics) -> None:
    for number in range(100):  # six of a hundred
        statistics.count_answer(FOUND, 300.0 if number % 20 == 0 or number == 99 else 100.0, budget_ms=200.0)
    status = render(statistics, latency_budget_ms=200.0)["front/loc: localization"]
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "over budget: p95 300 ms of 200 ms"
    assert (values(status)["over budget"], values(status)["candidates re-ranked p50"]) == ("6", "1")
    for _ in range(100):
        statistics.count_answer(FOUND, 100.0, budget_ms=200.0)
    assert render(statistics, latency_budget_ms=200.0)["front/loc: localization"].level == DiagnosticStatus.OK


def test_what_there_was_no_time_for_is_counted_by_name(statistics: Statistics) -> None:
    for dropped in (("anchors",), ("points", "candidates"), ("anchors",), ()):
        statistics.count_answer(Answer(Header(reranked=1, dropped=dropped), FIX), 100.0)
    said = values(render(statistics)["front/loc: localization"])
    assert {key: said[key] for key in said if key.startswith("no time")} == {
        "no time: anchors": "2", "no time: candidates": "1", "no time: points": "1",
    }  # fmt: skip


def test_confidence_prior_rate_and_memory_are_said(statistics: Statistics) -> None:
    for number in range(101):
        statistics.count_answer(replace(FOUND, result=replace(FIX, confidence=number / 100)), 4.0)
    statistics.count_image("rgb8", 1, too_frequent=True)
    statistics.count_image("rgb8", 1)
    rendered = render(statistics)
    found = values(rendered["front/loc: localization"])
    assert (found["confidence"], found["confidence p50"], found["confidence p95"]) == ("1.000", "0.500", "0.950")
    assert (found["prior"], found["map to odom"]) == ("within 50 m", "no odometry")
    received = values(rendered["front/loc: input"])
    assert (received["dropped"], received["dropped: above max_rate_hz"]) == ("2", "1")
    memory = values(rendered["front/loc: memory"])
    status = Path("/proc/self/status").read_text()  # another file of the kernel's
    resident_kib = float(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert float(memory["resident (MiB)"]) == pytest.approx(resident_kib / 1024, rel=0.05)


def test_cuda_memory_is_said_where_cuda_is_used(statistics: Statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA allocated (MiB)" not in values(render(statistics)["front/loc: memory"])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 8 * 2**20)
    memory = values(render(statistics)["front/loc: memory"])
    assert (memory["CUDA allocated (MiB)"], memory["CUDA reserved (MiB)"]) == ("3.0", "8.0")


def test_a_torch_that_is_being_imported_is_not_asked(
    statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert "CUDA allocated (MiB)" not in values(render(statistics)["front/loc: memory"])


def test_method_and_heading_of_the_last_fix_are_said(statistics: Statistics) -> None:
    oriented = replace(
        FIX, method="points", orientation=(0.0, 0.0, 0.0, 1.0), heading_deg=231.44, heading_std_deg=0.52
    )
    statistics.count_answer(replace(FOUND, result=oriented), 1.0)
    said = values(render(statistics)["front/loc: localization"])
    assert (said["method"], said["heading (deg)"]) == ("points", "231.4 ± 0.5")
    assert said["camera on base"] == "off"
    statistics.count_answer(FOUND, 1.0)
    said = values(render(statistics)["front/loc: localization"])
    assert said["method"] == "cluster" and "heading (deg)" not in said
    statistics.count_answer(LOST, 1.0)
    assert "method" not in values(render(statistics)["front/loc: localization"])


def test_images_that_wait_too_long_for_an_answer_are_a_warning(statistics: Statistics, clock: HandClock) -> None:
    statistics.count_answer(FOUND, 4.0)
    for _ in range(6):  # of which the first waits for its answer
        clock.now += 1.0
        statistics.count_image("rgb8", 1)
    assert render(statistics)["front/loc: localization"].level == DiagnosticStatus.OK
    clock.now += 1.0
    statistics.count_image("rgb8", 1)
    status = render(statistics)["front/loc: localization"]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "no answer for 6.0 s while images arrive")
    statistics.count_answer(FOUND, 4.0)
    clock.now += 10.0  # silence is no lack of answers
    statistics.count_image("rgb8", 0)
    assert render(statistics)["front/loc: localization"].level == DiagnosticStatus.OK
    for unwanted in ({"wanted": False}, {"too_frequent": True}):
        statistics.restart()
        for _ in range(8):
            statistics.count_image("rgb8", 1, **unwanted)
            clock.now += 1.0
        assert statistics.troubles(5.0) == {}


def test_resets_in_quick_succession_are_a_warning_for_a_minute(statistics: Statistics, clock: HandClock) -> None:
    for _ in range(3):
        statistics.count_reset("the clock jumped back")
        clock.now += 25.0
    status = render(statistics)["front/loc: localization"]
    assert status.level == DiagnosticStatus.OK  # the first is 75 s ago
    statistics.count_reset("image stamps went back by 9.0 s")
    status = render(statistics)["front/loc: localization"]
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "3 resets within 50 s, the last: image stamps went back by 9.0 s"
    assert values(status)["resets"] == "4"
    clock.now += 20.0
    assert render(statistics)["front/loc: localization"].level == DiagnosticStatus.OK


def test_troubles_are_said_beside_what_the_input_says_itself(statistics: Statistics, clock: HandClock) -> None:
    clock.now += 60.0
    situation = Situation("loc", "active", troubles=("stamps are 0", "a frozen picture"), silence="no publisher")
    status = diagnostic_array(Time(), situation, statistics, NodeConfig()).status[1]
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == "no image for 60.0 s: no publisher; stamps are 0; a frozen picture"
    statistics.count_image("rgb8", 0)
    status = diagnostic_array(Time(), situation, statistics, NodeConfig()).status[1]
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "0.0 Hz; stamps are 0; a frozen picture")


def test_where_nobody_waits_any_more_no_answer_is_missing(statistics: Statistics, clock: HandClock) -> None:
    statistics.count_image("rgb8", 0)  # somebody asked about this one
    statistics.count_reset("requested")  # which dropped it
    for _ in range(20):
        clock.now += 1.0
        statistics.count_image("rgb8", 1, wanted=False)
    assert statistics.troubles(5.0) == {}


def test_an_answer_that_comes_while_troubles_are_looked_for_is_no_exception(clock: HandClock) -> None:
    class Answered(Statistics):
        """Its values change after they were looked at, as by another thread."""

        asked = 0

        @property
        def unanswered_s(self) -> float | None:
            self.asked += 1
            return 0.0 if self.asked == 1 else None

        @unanswered_s.setter
        def unanswered_s(self, value: float | None) -> None: ...

    statistics = Answered(clock)
    clock.now += 100.0
    statistics.arrived_s = clock.now
    statistics.asked = 0
    assert "no answer" in statistics.troubles(5.0)
