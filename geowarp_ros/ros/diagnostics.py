"""What the node counts, and how ``/diagnostics`` shows it (REP 107: 1 Hz, "node: subcomponent")."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import EncodingError, GalleryError, GeowarpError, ImageError, ModelError
from geowarp_ros.types import Answer, Fix, NoFix, NoFixReason, confidence_text

WINDOW = 200
"""Number of recent images and answers from which percentiles and rates are computed."""

OUTSIDE_GALLERY: tuple[NoFixReason, ...] = ("low_confidence", "disagreement", "empty_gallery")
"""Reasons of answers that, many in a row, mean that the camera is outside the gallery."""

LATE_SHARE = 0.05
"""Share of recent answers over budget above which /diagnostics warns."""

SILENT_TIMEOUTS = 10.0
"""A silent camera is a warning after ``input_timeout_s``, an error after this many times as long."""

RESETS, RESETS_WITHIN_S = 3, 60.0
"""So many resets in so many seconds are a warning: each forgets the track and drops the image in progress."""

_BAD = {EncodingError: "encoding", ImageError: "data", GalleryError: "gallery", ModelError: "model"}


class Statistics:
    """Counts of images and answers since the start, and recent values of both; any thread may call.

    Args:
        clock: Steady, in seconds; all times (``_s``) are by it.

    Attributes:
        lock: Held while the values change.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.received = self.dropped = self.too_frequent = self.fixes = 0
        self.over_budget = self.lost_in_a_row = self.resets = 0
        self.bad: Counter[str] = Counter()
        self.no_fixes: Counter[str] = Counter()
        self.no_time: Counter[str] = Counter()
        self.encoding = self.last_bad = ""
        self.last: Fix | NoFix | None = None
        self.arrived_s = self.answered_s = clock()
        self.bad_s = -np.inf
        self.unanswered_s: float | None = None
        self._resets_s: deque[float] = deque(maxlen=RESETS)
        self._reset_why = ""
        self._arrivals_s: deque[float] = deque(maxlen=WINDOW)
        self._durations_ms: dict[str, deque[float]] = {}
        self.confidences: deque[float] = deque(maxlen=WINDOW)
        self.reranked: deque[int] = deque(maxlen=WINDOW)
        self.late: deque[bool] = deque(maxlen=WINDOW)

    def restart(self) -> None:
        """Start to wait for images: recent values are forgotten, the totals stay."""
        self._forget()
        with self.lock:
            self.unanswered_s = None
            self._resets_s.clear()

    def _forget(self) -> None:
        with self.lock:
            self.arrived_s = self.answered_s = self.clock()
            for recent in (self._arrivals_s, self._durations_ms, self.confidences, self.reranked, self.late):
                recent.clear()
            self.last, self.lost_in_a_row = None, 0

    def count_image(self, encoding: str, dropped: int, *, too_frequent: bool = False, wanted: bool = True) -> None:
        """Count an image and the images dropped with it or for it.

        Args:
            encoding: Of the image.
            dropped: How many were dropped.
            too_frequent: That was for its rate.
            wanted: Somebody waits for its answer.
        """
        with self.lock:
            self.received += 1
            self.dropped += dropped
            self.too_frequent += too_frequent
            self.encoding = encoding
            self.arrived_s = self.clock()
            self._arrivals_s.append(self.arrived_s)
            if not wanted:
                self.unanswered_s = None  # nor for the answer to one before, which a reset may have dropped
            elif not too_frequent and self.unanswered_s is None:
                self.unanswered_s = self.arrived_s

    def count_dropped(self, number: int) -> None:
        """Count images that were dropped later."""
        with self.lock:
            self.dropped += number

    def count_bad(self, error: Exception) -> None:
        """Count an image that could not be localised, by the type of the error."""
        reason = next((name for kind, name in _BAD.items() if isinstance(error, kind)), "internal error")
        with self.lock:
            self.bad[reason] += 1
            self.bad_s, self.unanswered_s = self.clock(), None
            self.last_bad = str(error) if isinstance(error, GeowarpError) else f"{type(error).__name__}: {error}"

    def count_answer(self, answer: Answer, total_ms: float, budget_ms: float = 0.0) -> None:
        """Count an answer and its durations; a budget of 0 is none."""
        result, late = answer.result, 0.0 < budget_ms < total_ms
        with self.lock:
            self.answered_s, self.unanswered_s = self.clock(), None
            self.last = result
            if isinstance(result, Fix):
                self.fixes += 1
            else:
                self.no_fixes[result.reason] += 1
            if isinstance(result, Fix) or result.reason == "jump":
                self.lost_in_a_row = 0
            elif result.reason in OUTSIDE_GALLERY:  # an image without texture shows neither
                self.lost_in_a_row += 1
            self.over_budget += late
            self.late.append(late)
            self.no_time.update(answer.header.dropped)
            self.confidences.append(result.confidence)
            self.reranked.append(answer.header.reranked)
            for stage, duration_ms in {**answer.header.timing_ms, "total": total_ms}.items():
                self._durations_ms.setdefault(stage, deque(maxlen=WINDOW)).append(duration_ms)

    def count_reset(self, why: str = "") -> None:
        """Count a jump back in time or a request to reset, and forget recent values."""
        self._forget()
        with self.lock:
            self.resets += 1
            self._resets_s.append(self.clock())
            self._reset_why = why

    def troubles(self, patience_s: float) -> dict[str, str]:
        """Return what is wrong with the answering, kind and text.

        Args:
            patience_s: How long an image may wait for its answer (s).
        """
        found, now_s = {}, self.clock()
        unanswered_s, resets_s = self.unanswered_s, tuple(self._resets_s)  # other threads go on counting
        if unanswered_s is not None and now_s - self.arrived_s <= patience_s < now_s - unanswered_s:
            found["no answer"] = f"no answer for {now_s - unanswered_s:.1f} s while images arrive"
        if len(resets_s) == RESETS and now_s - resets_s[0] <= RESETS_WITHIN_S:
            found["resets"] = f"{RESETS} resets within {now_s - resets_s[0]:.0f} s, the last: {self._reset_why}"
        return found

    @property
    def rate_hz(self) -> float:
        """Rate of recent images."""
        span_s = self._arrivals_s[-1] - self._arrivals_s[0] if self._arrivals_s else 0.0
        return (len(self._arrivals_s) - 1) / span_s if span_s > 0 else 0.0

    @property
    def latencies_ms(self) -> dict[str, tuple[float, float]]:
        """(p50, p95) of recent durations, by stage."""
        return {stage: _percentiles(values) for stage, values in self._durations_ms.items()}


@dataclass(frozen=True, slots=True)
class Situation:
    """State of the node besides its counts.

    Attributes:
        node: Its name, with which each status's name begins.
        state: State of the lifecycle, or ``paused``.
        problem: Why the last transition failed; empty if it did not.
        about: Model and gallery, as key and value.
        caution: What slows the localizer down; empty if nothing.
        prior: What became of the prior with the last image.
        transform: State of the transform map → odom.
        initial_pose: What became of the pose for other localizers.
        camera: Camera model of the images.
        base: What is known of the camera's place on the robot.
        troubles: What is wrong with images, stamps and clocks, in words.
        silence: Why no image comes, once none has come for a while.
    """

    node: str
    state: str
    problem: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    caution: str = ""
    prior: str = "off"
    transform: str = "off"
    initial_pose: str = "off"
    camera: str = "none"
    base: str = "off"
    troubles: Sequence[str] = ()
    silence: str = ""


def diagnostic_array(stamp: Any, situation: Situation, counts: Statistics, config: NodeConfig) -> DiagnosticArray:
    """Render the state of the node.

    Args:
        stamp: builtin_interfaces/Time by the node's clock.
        situation: State, model and gallery.
        counts: Counts of images and answers.
        config: Its limits decide what is a warning or an error.
    """
    with counts.lock:
        localization, received = _localization(situation, counts, config), _input(situation, counts, config)
    parts = {"localization": localization, "input": received, "gallery": _gallery(situation), "memory": _memory()}
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            DiagnosticStatus(
                name=f"{situation.node}: {part}",
                level=level,
                message=message,
                hardware_id=situation.node,
                values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
            )
            for part, (level, message, values) in parts.items()
        ],
    )


def _localization(
    situation: Situation, counts: Statistics, config: NodeConfig
) -> tuple[bytes, str, dict[str, Any]]:
    values: dict[str, Any] = {
        "state": situation.state,
        "mode": config.mode,
        "fixes": counts.fixes,
        "no fixes": counts.no_fixes.total(),
        **{f"no fixes: {reason}": count for reason, count in sorted(counts.no_fixes.items())},
        "no fixes in a row": counts.lost_in_a_row,
        "resets": counts.resets,
        "prior": situation.prior,
        "map to odom": situation.transform,
        "initial pose": situation.initial_pose,
        "camera on base": situation.base,
    }
    if isinstance(counts.last, Fix):
        values["method"] = counts.last.method
        if counts.last.orientation is not None:
            values["heading (deg)"] = f"{counts.last.heading_deg:.1f} ± {counts.last.heading_std_deg:.1f}"
    if counts.confidences:
        median, high = _percentiles(counts.confidences)
        values["confidence"] = confidence_text(counts.confidences[-1])
        values["confidence p50"], values["confidence p95"] = confidence_text(median), confidence_text(high)
        values["candidates re-ranked p50"] = f"{_percentiles(counts.reranked)[0]:g}"
    values["over budget"] = counts.over_budget
    values.update({f"no time: {what}": count for what, count in sorted(counts.no_time.items())})
    for stage, (median, high) in counts.latencies_ms.items():
        values[f"{stage} p50 (ms)"], values[f"{stage} p95 (ms)"] = f"{median:.1f}", f"{high:.1f}"
    return *_verdict(situation, counts, config), values


def _verdict(situation: Situation, counts: Statistics, config: NodeConfig) -> tuple[bytes, str]:
    """Level and message of the localization, the most severe condition first."""
    last = counts.last
    if situation.problem:
        return DiagnosticStatus.ERROR, f"{situation.state}: {situation.problem}"
    if situation.state != "active":
        return DiagnosticStatus.OK, situation.state
    message = f"no fix, {last.reason}: {last.detail}" if isinstance(last, NoFix) else situation.state
    if counts.lost_in_a_row >= config.lost_after:
        lost = f"outside the gallery: {counts.lost_in_a_row} consecutive answers without a fix"
        return DiagnosticStatus.ERROR, f"{lost}; {message}"
    if troubles := counts.troubles(config.input_timeout_s):
        return DiagnosticStatus.WARN, "; ".join(troubles.values())
    if not isinstance(last, Fix):
        return DiagnosticStatus.OK if last is None else DiagnosticStatus.WARN, message
    if config.latency_budget_ms and np.mean(counts.late) > LATE_SHARE:
        high = counts.latencies_ms["total"][1]
        return DiagnosticStatus.WARN, f"over budget: p95 {high:.0f} ms of {config.latency_budget_ms:g} ms"
    return DiagnosticStatus.OK, f"fix, confidence {confidence_text(last.confidence)}"


def _input(situation: Situation, counts: Statistics, config: NodeConfig) -> tuple[bytes, str, dict[str, Any]]:
    now_s, active, timeout_s = counts.clock(), situation.state == "active", config.input_timeout_s
    age_s = now_s - counts.arrived_s
    level, message = DiagnosticStatus.OK, f"{counts.rate_hz:.1f} Hz" if active else "not subscribed"
    if active and age_s > timeout_s:
        silence = situation.silence and f": {situation.silence}"
        severe, message = age_s > SILENT_TIMEOUTS * timeout_s, f"no image for {age_s:.1f} s{silence}"
        level = DiagnosticStatus.ERROR if severe else DiagnosticStatus.WARN
    elif active and now_s - counts.bad_s < timeout_s:
        severe, message = now_s - counts.answered_s > timeout_s, counts.last_bad
        level = DiagnosticStatus.ERROR if severe else DiagnosticStatus.WARN
    if situation.troubles:
        message = "; ".join([message, *situation.troubles])
        level = max(level, DiagnosticStatus.WARN)
    values = {
        "received": counts.received,
        "dropped": counts.dropped,
        "dropped: above max_rate_hz": counts.too_frequent,
        "bad": counts.bad.total(),
        **{f"bad: {reason}": count for reason, count in sorted(counts.bad.items())},
        "encoding": counts.encoding,
        "camera": situation.camera,
        "rate (Hz)": f"{counts.rate_hz:.2f}",
        "age (s)": f"{age_s:.2f}",
    }
    return level, message, values


def _gallery(situation: Situation) -> tuple[bytes, str, Mapping[str, str]]:
    level = DiagnosticStatus.WARN if situation.caution else DiagnosticStatus.OK
    return level, situation.caution or situation.about.get("gallery") or "none loaded", situation.about


def _memory() -> tuple[bytes, str, dict[str, str]]:
    """The process's resident memory (empty if unknown) and, if CUDA is in use, what torch has allocated there."""
    resident_mib = ""
    with suppress(OSError):  # proc(5), Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident_mib = f"{pages * resource.getpagesize() / 2**20:.1f}"
    values = {"resident (MiB)": resident_mib}
    # an unconfigured node has no torch, and one that configures is still importing it
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        values["CUDA allocated (MiB)"] = f"{cuda.memory_allocated() / 2**20:.1f}"
        values["CUDA reserved (MiB)"] = f"{cuda.memory_reserved() / 2**20:.1f}"
    return DiagnosticStatus.OK, f"{resident_mib} MiB" if resident_mib else "unknown", values


def _percentiles(values: Iterable[float]) -> tuple[float, float]:
    median, high = np.percentile(list(values), (50, 95))
    return float(median), float(high)
