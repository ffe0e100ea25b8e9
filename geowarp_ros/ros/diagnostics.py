"""What the node counts, and how ``/diagnostics`` shows it (REP 107: 1 Hz, "node: subcomponent")."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from geowarp_ros.config import NodeConfig
from geowarp_ros.types import Fix, NoFix, NoFixReason

WINDOW = 200
"""Answers and arrivals that percentiles and rates look back on."""

OUT_OF_GALLERY: tuple[NoFixReason, ...] = ("low_confidence", "disagreement", "empty_gallery")
"""Reasons that many answers in a row have where the gallery does not hold what the camera sees."""

LATE_SHARE = 0.05
"""More answers over budget than these are a warning."""

SILENT_TIMEOUTS = 10.0
"""So many times as long as where the warning begins, a silent camera is an error."""


class Statistics:
    """Counts of images and answers and their recent latencies, by a steady clock; any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received = self._dropped = self._too_frequent = self._resets = self._fixes = 0
        self._over_budget = self._lost_in_a_row = 0
        self._bad: Counter[str] = Counter()
        self._no_fixes: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._latencies_ms: dict[str, deque[float]] = {}
        self._confidences: deque[float] = deque(maxlen=WINDOW)
        self._re_ranked: deque[int] = deque(maxlen=WINDOW)
        self._late: deque[bool] = deque(maxlen=WINDOW)
        self._encoding = self._last_answer = self._last_bad = ""
        self._bad_at = -np.inf
        self._since = self._answered_at = clock()

    def restart(self) -> None:
        """Begin to wait for images anew: the age counts from now, rates and latencies from nothing."""
        with self._lock:
            self._since = self._answered_at = self._clock()
            for recent in (self._arrivals, self._latencies_ms, self._confidences, self._re_ranked, self._late):
                recent.clear()
            self._last_answer, self._lost_in_a_row = "", 0

    def received(self, encoding: str, dropped: int, *, too_frequent: bool = False) -> None:
        """Count an image that arrived, how many were let go for it or with it, and whether for its rate."""
        with self._lock:
            self._received += 1
            self._too_frequent += too_frequent
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

    def answered(self, answer: Fix | NoFix, total_ms: float, budget_ms: float = 0.0) -> None:
        """Count an answer and take its times; a budget of 0 is none."""
        with self._lock:
            self._answered_at = self._clock()
            late = 0.0 < budget_ms < total_ms
            self._over_budget += late
            self._late.append(late)
            self._confidences.append(answer.confidence)
            self._re_ranked.append(sum(candidate.score is not None for candidate in answer.candidates))
            if isinstance(answer, Fix) or answer.reason == "jump":
                self._lost_in_a_row = 0
            elif answer.reason in OUT_OF_GALLERY:  # an image without texture says neither
                self._lost_in_a_row += 1
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
                too_frequent=self._too_frequent,
                over_budget=self._over_budget,
                late_share=float(np.mean(self._late)) if self._late else 0.0,
                lost_in_a_row=self._lost_in_a_row,
                confidence=(_percentiles(self._confidences), self._confidences[-1]) if self._confidences else None,
                re_ranked=_percentiles(self._re_ranked)[0] if self._re_ranked else None,
                resets=self._resets,
                fixes=self._fixes,
                bad=dict(self._bad),
                no_fixes=dict(self._no_fixes),
                encoding=self._encoding,
                last_answer=self._last_answer,
                last_bad=self._last_bad,
                bad_age_s=now - self._bad_at,
                unanswered_s=now - self._answered_at,
                age_s=now - (self._arrivals[-1] if self._arrivals else self._since),
                rate_hz=(len(self._arrivals) - 1) / span if span > 0 else 0.0,
                latencies_ms={stage: _percentiles(values) for stage, values in self._latencies_ms.items()},
            )


def _percentiles(values: deque[float] | deque[int]) -> tuple[float, float]:
    return float(np.percentile(values, 50)), float(np.percentile(values, 95))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The counts at one moment; ``latencies_ms`` holds (p50, p95) by stage, ages are in seconds.

    ``confidence`` is ((p50, p95), newest), ``re_ranked`` the median number of candidates; ``late_share`` is of the
    recent answers.
    """

    received: int
    dropped: int
    too_frequent: int
    over_budget: int
    late_share: float
    lost_in_a_row: int
    confidence: tuple[tuple[float, float], float] | None
    re_ranked: float | None
    resets: int
    fixes: int
    bad: Mapping[str, int]
    no_fixes: Mapping[str, int]
    encoding: str
    last_answer: str
    last_bad: str
    bad_age_s: float
    unanswered_s: float
    age_s: float
    rate_hz: float
    latencies_ms: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the node says of itself, besides its counts.

    Attributes:
        node: Its name, which begins each status's name.
        state: Of the lifecycle, or ``paused``.
        problem: Why the last transition failed; empty when it did not.
        about: Model and gallery, as key and value.
        caution: What slows the localizer down; empty if nothing.
        prior: What came of the prior with the last image.
        transform: How map → odom stands.
    """

    node: str
    state: str
    problem: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    caution: str = ""
    prior: str = "off"
    transform: str = "off"


def diagnostic_array(stamp: Any, situation: Situation, counts: Snapshot, config: NodeConfig) -> DiagnosticArray:
    """Render the state of the node.

    Args:
        stamp: builtin_interfaces/Time by the node's clock.
        situation: State, model and gallery.
        counts: Of images and answers.
        config: What is too late, too long or too often.
    """
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            _localization(situation, counts, config),
            _input(situation, counts, config),
            _gallery(situation),
            _status(situation.node, "memory", DiagnosticStatus.OK, *_memory()),
        ],
    )


def _localization(situation: Situation, counts: Snapshot, config: NodeConfig) -> DiagnosticStatus:
    values: dict[str, Any] = {
        "state": situation.state,
        "fixes": counts.fixes,
        "no fixes": sum(counts.no_fixes.values()),
        **{f"no fixes: {reason}": count for reason, count in sorted(counts.no_fixes.items())},
        "no fixes in a row": counts.lost_in_a_row,
        "resets": counts.resets,
        "prior": situation.prior,
        "map to odom": situation.transform,
    }
    if counts.confidence is not None:
        (median, high), newest = counts.confidence
        values |= {
            "confidence": f"{newest:.2f}",
            "confidence p50": f"{median:.2f}",
            "confidence p95": f"{high:.2f}",
        }
    if counts.re_ranked is not None:
        values["candidates re-ranked p50"] = f"{counts.re_ranked:g}"
    values["over budget"] = counts.over_budget
    for stage, (median, high) in counts.latencies_ms.items():
        values[f"{stage} p50 (ms)"] = f"{median:.1f}"
        values[f"{stage} p95 (ms)"] = f"{high:.1f}"
    return _status(situation.node, "localization", *_verdict(situation, counts, config), values)


def _verdict(situation: Situation, counts: Snapshot, config: NodeConfig) -> tuple[bytes, str]:
    """How localization goes: the worst that there is to say."""
    if situation.problem:
        return DiagnosticStatus.ERROR, f"{situation.state}: {situation.problem}"
    if situation.state != "active" or not counts.last_answer:
        return DiagnosticStatus.OK, situation.state
    if counts.lost_in_a_row >= config.lost_after:
        return (
            DiagnosticStatus.ERROR,
            f"out of the gallery: {counts.lost_in_a_row} answers in a row without a fix; {counts.last_answer}",
        )
    if counts.last_answer.startswith("no fix"):
        return DiagnosticStatus.WARN, counts.last_answer
    if config.latency_budget_ms and counts.late_share > LATE_SHARE:
        high = counts.latencies_ms["total"][1]
        return DiagnosticStatus.WARN, f"over budget: p95 {high:.0f} ms of {config.latency_budget_ms:g} ms"
    return DiagnosticStatus.OK, counts.last_answer


def _input(situation: Situation, counts: Snapshot, config: NodeConfig) -> DiagnosticStatus:
    working, timeout_s = situation.state == "active", config.input_timeout_s
    level, message = DiagnosticStatus.OK, f"{counts.rate_hz:.1f} Hz" if working else "not subscribed"
    if working and counts.bad_age_s < timeout_s:
        none_usable = counts.unanswered_s > timeout_s
        level, message = (DiagnosticStatus.ERROR if none_usable else DiagnosticStatus.WARN), counts.last_bad
    if working and counts.age_s > timeout_s:
        long_ago = counts.age_s > SILENT_TIMEOUTS * timeout_s
        level = DiagnosticStatus.ERROR if long_ago else DiagnosticStatus.WARN
        message = f"no image for {counts.age_s:.1f} s"
    values = {
        "received": counts.received,
        "dropped": counts.dropped,
        "dropped: above max_rate_hz": counts.too_frequent,
        "bad": sum(counts.bad.values()),
        **{f"bad: {reason}": count for reason, count in sorted(counts.bad.items())},
        "encoding": counts.encoding,
        "rate (Hz)": f"{counts.rate_hz:.2f}",
        "age (s)": f"{counts.age_s:.2f}",
    }
    return _status(situation.node, "input", level, message, values)


def _gallery(situation: Situation) -> DiagnosticStatus:
    level = DiagnosticStatus.WARN if situation.caution else DiagnosticStatus.OK
    message = situation.caution or situation.about.get("gallery", "") or "none loaded"
    return _status(situation.node, "gallery", level, message, situation.about)


def _memory() -> tuple[str, dict[str, str]]:
    """The process's resident memory and, where CUDA is in use, what torch holds there; "" where nobody tells."""
    resident_mib = ""
    with suppress(OSError):  # proc(5), Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident_mib = f"{pages * resource.getpagesize() / 2**20:.1f}"
    values = {"resident (MiB)": resident_mib}
    # an unconfigured node is without torch, and one that configures is in the middle of importing it
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        values["CUDA allocated (MiB)"] = f"{cuda.memory_allocated() / 2**20:.1f}"
        values["CUDA reserved (MiB)"] = f"{cuda.memory_reserved() / 2**20:.1f}"
    return f"{resident_mib} MiB" if resident_mib else "not known", values


def _status(node: str, part: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=f"{node}: {part}",
        level=level,
        message=message,
        hardware_id=node,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
