"""Turns, ratios and what is written of them, by a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.lab.benchmark.report import write_report
from geowarp_ros.lab.benchmark.timing import Times, take_turns


class Clock:
    """Moves only when work is done."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, ms: float) -> Callable[[], None]:
        def work() -> None:
            self.now_s += ms / 1e3

        return work


def test_every_contestant_runs_once_a_round_and_the_first_round_does_not_count() -> None:
    clock = Clock()
    ran: list[str] = []
    slow_start = {"a": iter([500, 10, 10, 10]), "b": iter([700, 20, 30, 40])}

    def contestant(name: str) -> Callable[[], None]:
        def work() -> None:
            ran.append(name)
            clock.work(next(slow_start[name]))()

        return work

    times = take_turns("x", {name: contestant(name) for name in "ab"}, "a", 3, clock)
    assert [sorted(ran[i : i + 2]) for i in range(0, 8, 2)] == [["a", "b"]] * 4
    np.testing.assert_allclose(times.ms["b"], [20, 30, 40])
    first, second = times.rows()
    assert (first["name"], first["ratio"], second["name"]) == ("a", 1.0, "b")
    summary = [second[key] for key in ("p50_ms", "ratio", "ratio_low", "ratio_high")]
    assert summary == pytest.approx([30, 3, 2.5, 3.5])


def test_ratios_are_of_the_same_round() -> None:
    """A machine that becomes ten times slower in the middle leaves them as they are."""
    busy = np.array([1.0, 1.0, 10.0, 10.0])
    times = Times("x", "a", {"a": 2 * busy, "b": 3 * busy})
    np.testing.assert_allclose(times.ratios("b"), 1.5)


def test_a_baseline_that_does_not_run_is_refused() -> None:
    with pytest.raises(KeyError, match="none of"):
        take_turns("x", {"a": lambda: None}, "b", 1)


def test_the_report_holds_every_round_the_table_and_a_plot(tmp_path: Path) -> None:
    times = Times("a title", "floor", {"floor": np.array([1.0, 2.0, 4.0]), "exact": np.array([1.5, 2.5, 6.0])})
    text = write_report(tmp_path, {"processor": "abacus"}, {"rounds": "3"}, {"rerank": [times]}, {})
    assert "abacus" in text and "| exact | 2.5 | 5.65 | 1.5 | 1.38–1.5 |" in text
    assert (tmp_path / "benchmark.md").read_text() == text
    values = json.loads((tmp_path / "benchmark.json").read_text())
    assert values["rounds_ms"]["rerank"]["a title"]["exact"] == [1.5, 2.5, 6.0]
    assert values["parts"]["rerank"][1]["ratio"] == 1.5
    assert values["machine"] == {"processor": "abacus"}
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
