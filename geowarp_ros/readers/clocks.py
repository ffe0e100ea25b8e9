"""The clocks of a bag: those that stamp its images and its fixes, and the recorder's.

The delay from a message's stamp to its recording tells them apart: a driver takes milliseconds, so that a delay
that differs by seconds between two topics is a difference of their clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import SourceError
from geowarp_ros.types import FloatArray

NS = 1_000_000_000

SAME_CLOCK_S = 1.0
"""Maximum difference (s) of the delays from stamp to recording of two topics whose stamps come from one clock."""

_STEP_NS = NS // 10
_NEIGHBOURS = 5  # messages whose median delay is that of the moment
_BEFORE = 15  # messages before a step, whose median delay all behind it exceed

_LEAPS = {37: "TAI against UTC", 18: "GPS time against UTC", 19: "TAI against GPS time"}
"""Seconds between the time scales since 2017 (IERS Bulletin C 52)."""
_ZONE_S = 900
"""Time zones differ by multiples of this (s)."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """The messages of one topic in the order in which they were written.

    Attributes:
        topic: Name of the topic.
        times_ns: (N,) time of each message: its stamp, unless stamps step back.
        recorded_ns: (N,) time of recording.
    """

    topic: str
    times_ns: NDArray[np.int64]
    recorded_ns: NDArray[np.int64]

    @classmethod
    def of(cls, topic: str, rows: Sequence[tuple[int, int]]) -> Stamps:
        """Take (stamp, time of recording) of each message."""
        stamps, recorded = np.array(rows, np.int64).reshape(-1, 2).T
        return cls(topic, stamps, recorded)

    def shifted(self, offset_s: float) -> Stamps:
        """Return them with ``offset_s`` added to the times."""
        return replace(self, times_ns=self.times_ns + round(offset_s * NS))

    @property
    def lags_ns(self) -> NDArray[np.int64]:
        """Delay (N,) from time to recording."""
        return self.recorded_ns - self.times_ns


def without_steps(path: Path, topics: Sequence[Stamps]) -> tuple[list[Stamps], str]:
    """Return the topics with times that never step back, and a remark if stamps do; empty if not.

    Where the stamps of a topic step back, the times of all are those of recording, less the delay before the step.
    One late message is no step.

    Raises:
        SourceError: The recorder's own clock steps back.
    """
    for each in topics:
        if (row := _step(each.recorded_ns)) and _twice(each.recorded_ns, row):
            by_s = (each.recorded_ns[:row].max() - each.recorded_ns[row]) / NS
            raise SourceError(
                f"{path}: the recorder's clock steps back by {by_s:.3f} s at {when(int(each.recorded_ns[row]))} on"
                f" {each.topic}: its messages before and after cannot be told apart; cut the bag in two there"
            )
    steps = [(each, row) for each in topics if (row := _step(each.times_ns, each.lags_ns))]
    if not steps:
        return list(topics), ""
    first, row = min(steps, key=lambda step: step[0].recorded_ns[step[1]])
    by_s = (first.times_ns[:row].max() - first.times_ns[row]) / NS
    said = (
        f"the stamps of {first.topic} step back by {by_s:.3f} s at {when(int(first.times_ns[row]))};"
        " the time of recording orders the messages"
    )
    return [_by_recording(each, int(first.recorded_ns[row])) for each in topics], said


def _step(times_ns: NDArray[np.int64], lags_ns: NDArray[np.int64] | None = None) -> int:
    """Return the first message whose time steps back, and with it the delay of those behind it; 0 if none does."""
    behind_ns = np.maximum.accumulate(times_ns)[:-1] - times_ns[1:]
    for row in (np.flatnonzero(behind_ns > _STEP_NS) + 1).tolist():
        if lags_ns is None:
            return int(row)
        later, earlier = lags_ns[row : row + _NEIGHBOURS], lags_ns[max(row - _BEFORE, 0) : row]
        if later.min() - np.median(earlier) > _STEP_NS:
            return int(row)
    return 0


def _twice(recorded_ns: NDArray[np.int64], row: int) -> bool:
    """Return whether messages from before and after a step share a time; pieces in another order do not."""
    before, after = recorded_ns[:row], recorded_ns[row:]
    low, high = max(before.min(), after.min()), min(before.max(), after.max())
    return all(bool(((low <= each) & (each <= high)).any()) for each in (before, after)) and high - low > _STEP_NS


def _by_recording(each: Stamps, until_ns: int) -> Stamps:
    before = each.recorded_ns < until_ns
    lag_ns = np.median(each.lags_ns[before] if before.any() else each.lags_ns)
    return Stamps(each.topic, each.recorded_ns - int(lag_ns), each.recorded_ns)


def ahead_s(fixes: Stamps, images: Stamps, offset_s: float = 0.0) -> tuple[float, FloatArray]:
    """Return by how much (s) the clock of the fixes is ahead of that of the images.

    Args:
        fixes: Their stamps as they are.
        images: Likewise.
        offset_s: Offset added to the stamps of the fixes (s).

    Returns:
        Of the whole bag, and at the moment of each image (N,), the offset included; 0 if there are none.
    """
    if not len(fixes.times_ns) or not len(images.times_ns):
        return 0.0, np.zeros(len(images.times_ns))
    if not fixes.lags_ns.any() and not images.lags_ns.any():
        ahead = _ahead_by_ends_s(fixes, images) + offset_s
        return ahead, np.full(len(images.times_ns), ahead)
    from scipy.ndimage import median_filter

    lags = [median_filter(each.lags_ns / NS, _NEIGHBOURS, mode="nearest") for each in (images, fixes)]
    order = np.argsort(fixes.recorded_ns)
    start = fixes.recorded_ns[order[0]]
    image_s, fix_s = (images.recorded_ns - start) / NS, (fixes.recorded_ns[order] - start) / NS
    overall = float(np.median(images.lags_ns) - np.median(fixes.lags_ns)) / NS
    return overall + offset_s, lags[0] - np.interp(image_s, fix_s, lags[1][order]) + offset_s


def _ahead_by_ends_s(fixes: Stamps, images: Stamps) -> float:
    """Return the same for a bag whose times of recording were made from the stamps, as converters do.

    Both topics begin and end together, but for a known difference of time scales; otherwise 0.
    """
    ends = [int(end(fixes.times_ns) - end(images.times_ns)) / NS for end in (np.min, np.max)]
    known = (sign * leap for leap in _LEAPS for sign in (1.0, -1.0))
    return next((leap for leap in known if all(abs(end - leap) < SAME_CLOCK_S for end in ends)), 0.0)


def fitting_offset_s(ahead: float) -> tuple[float, str]:
    """Return the offset (s) to add to the stamps of a clock that is ``ahead`` (s), and why, if a reason is known.

    The delays of two drivers differ by less than half a second: near a known difference it is exactly that.
    """
    nearest = min(_LEAPS, key=lambda leap: abs(abs(ahead) - leap))
    zone = round(ahead / _ZONE_S) * _ZONE_S
    for known, reason in ((float(np.copysign(nearest, ahead)), _LEAPS[nearest]), (zone, "time zones")):
        if known and abs(ahead - known) < 0.5 and abs(known) <= 14 * 3600:
            return -known, reason
    return -ahead, ""


def two_clocks(fixes: str, images: str, ahead: float, option: str, offset_s: float) -> str:
    """Say that two topics are stamped by two clocks, and which ``option`` would fit.

    Args:
        fixes: What the fixes are called.
        images: What the images are called.
        ahead: By how much the clock of the fixes is ahead (s), the offset included.
        option: Name of the option that adds to the stamps of the fixes.
        offset_s: Its value now.
    """
    fit_s, reason = fitting_offset_s(ahead)
    side = "ahead of" if ahead > 0 else "behind"
    known = f" ({reason}: {abs(fit_s):g} s)" if reason else ""
    return (
        f"by the recorder's clock {fixes} stamps run {abs(ahead):.3f} s {side} {images}{known};"
        f" if that is no delay of the driver, {option} {offset_s + fit_s:.3f} mends it"
    )


def when(stamp_ns: int) -> str:
    """Return a stamp for people."""
    # simulated time starts at 0: dates of 1970 would only confuse
    if stamp_ns < NS * NS // 10:
        return f"{stamp_ns / NS:.3f} s"
    return datetime.fromtimestamp(stamp_ns / NS, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
