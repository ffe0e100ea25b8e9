"""What the node counts, and how ``/diagnostics`` shows it (REP 107: 1 Hz, "node: subcomponent")."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from geowarp_ros.types import Fix, NoFix

WINDOW = 200
"""Latencies and arrivals that percentiles and rates look back on."""


class Statistics:
    """Counts of images and answers and their recent latencies, by a steady clock; any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = self._dropped = self._resets = self._fixes = 0
        self._bad: Counter[str] = Counter()
        self._no_fixes: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._latencies_ms: dict[str, deque[float]] = {}
        self._encoding = self._last_answer = self._last_bad = ""
        self._bad_at = -np.inf
        self._since = clock()

    def restart(self) -> None:
        """Begin to wait for images anew: the age counts from now, rates and latencies from nothing."""
        with self._lock:
            self._since = self._clock()
            self._arrivals.clear()
            self._latencies_ms.clear()
            self._last_answer = ""

    def received(self, encoding: str, dropped: int) -> None:
        """Count an image that arrived and the older ones it displaced."""
        with self._lock:
            self._received += 1
            self._dropped += dropped
            self._encoding = encoding
            self._arrivals.append(self._clock())

    def dropped(self, count: int) -> None:
        """Count images that were let go."""
        with self._lock:
            self._dropped += count

    def bad(self, reason: str, detail: str) -> None:
        """Count an image that could not be localised."""
        with self._lock:
            self._bad[reason] += 1
            self._last_bad, self._bad_at = detail, self._clock()

    def answered(self, answer: Fix | NoFix, total_ms: float) -> None:
        """Count an answer and take its times."""
        with self._lock:
            if isinstance(answer, Fix):
                self._fixes += 1
                self._last_answer = f"fix, confidence {answer.confidence:.2f}"
            else:
                self._no_fixes[answer.reason] += 1
                self._last_answer = f"no fix, {answer.reason}: {answer.detail}"
            for stage, duration in {**answer.timing_ms, "total": total_ms}.items():
                self._latencies_ms.setdefault(stage, deque(maxlen=WINDOW)).append(duration)

    def reset(self) -> None:
        """Count a jump of time or a request to begin anew."""
        with self._lock:
            self._resets += 1
        self.restart()

    def snapshot(self) -> Snapshot:
        """Return everything at one moment."""
        with self._lock:
            now = self._clock()
            span = self._arrivals[-1] - self._arrivals[0] if len(self._arrivals) > 1 else 0.0
            return Snapshot(
                received=self._received,
                dropped=self._dropped,
                resets=self._resets,
                fixes=self._fixes,
                bad=dict(self._bad),
                no_fixes=dict(self._no_fixes),
                encoding=self._encoding,
                last_answer=self._last_answer,
                last_bad=self._last_bad,
                bad_age_s=now - self._bad_at,
                age_s=now - (self._arrivals[-1] if self._arrivals else self._since),
                rate_hz=(len(self._arrivals) - 1) / span if span > 0 else 0.0,
                latencies_ms={
                    stage: (float(np.percentile(values, 50)), float(np.percentile(values, 95)))
                    for stage, values in self._latencies_ms.items()
                },
            )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment; ``latencies_ms`` holds (p50, p95) by stage, ages are in seconds."""

    received: int
    dropped: int
    resets: int
    fixes: int
    bad: Mapping[str, int]
    no_fixes: Mapping[str, int]
    encoding: str
    last_answer: str
    last_bad: str
    bad_age_s: float
    age_s: float
    rate_hz: float
    latencies_ms: Mapping[str, tuple[float, float]]


def diagnostic_array(
    stamp: Any,
    node: str,
    state: str,
    problem: str,
    counts: Snapshot,
    about: Mapping[str, str],
    timeout_s: float,
    caution: str = "",
) -> DiagnosticArray:
    """Render the state of the node.

    Args:
        stamp: builtin_interfaces/Time by the node's clock.
        node: Its name, which begins each status's name.
        state: Of the lifecycle, or ``paused``.
        problem: Why the last transition failed; empty when it did not.
        counts: Of images and answers.
        about: Model and gallery, as key and value.
        timeout_s: An active node without an image for so long is not well.
        caution: What slows the localizer down; empty if nothing.
    """
    working = state == "active"
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            _localization(node, state, problem, counts, working),
            _input(node, counts, working, timeout_s),
            _gallery(node, about, caution),
        ],
    )


def _localization(node: str, state: str, problem: str, counts: Snapshot, working: bool) -> DiagnosticStatus:
    level, message = DiagnosticStatus.OK, state
    if problem:
        level, message = DiagnosticStatus.ERROR, f"{state}: {problem}"
    elif working and counts.last_answer:
        lost = counts.last_answer.startswith("no fix")
        level, message = (DiagnosticStatus.WARN if lost else DiagnosticStatus.OK), counts.last_answer
    values: dict[str, Any] = {
        "state": state,
        "fixes": counts.fixes,
        "no fixes": sum(counts.no_fixes.values()),
        **{f"no fixes: {reason}": count for reason, count in sorted(counts.no_fixes.items())},
        "resets": counts.resets,
    }
    for stage, (median, high) in counts.latencies_ms.items():
        values[f"{stage} p50 (ms)"] = f"{median:.1f}"
        values[f"{stage} p95 (ms)"] = f"{high:.1f}"
    return _status(node, "localization", level, message, values)


def _input(node: str, counts: Snapshot, working: bool, timeout_s: float) -> DiagnosticStatus:
    level, message = DiagnosticStatus.OK, f"{counts.rate_hz:.1f} Hz" if working else "not subscribed"
    if working and counts.bad_age_s < timeout_s:
        level, message = DiagnosticStatus.WARN, counts.last_bad
    if working and counts.age_s > timeout_s:
        level, message = DiagnosticStatus.WARN, f"no image for {counts.age_s:.1f} s"
    values = {
        "received": counts.received,
        "dropped": counts.dropped,
        "bad": sum(counts.bad.values()),
        **{f"bad: {reason}": count for reason, count in sorted(counts.bad.items())},
        "encoding": counts.encoding,
        "rate (Hz)": f"{counts.rate_hz:.2f}",
        "age (s)": f"{counts.age_s:.2f}",
    }
    return _status(node, "input", level, message, values)


def _gallery(node: str, about: Mapping[str, str], caution: str) -> DiagnosticStatus:
    if caution:
        return _status(node, "gallery", DiagnosticStatus.WARN, caution, about)
    return _status(node, "gallery", DiagnosticStatus.OK, about.get("gallery", "") or "none loaded", about)


def _status(node: str, part: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=f"{node}: {part}",
        level=level,
        message=message,
        hardware_id=node,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
