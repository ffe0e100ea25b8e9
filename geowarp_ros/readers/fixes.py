"""Which of a receiver's fixes are positions, and where an image lies between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.positions import ALTITUDES_M, MAX_ERROR_M, NULL_ISLAND, null_island
from geowarp_ros.types import FloatArray

JUMP_M = 50.0
"""Distance (m) that a good receiver may jump between two fixes, however close in time: a new set of satellites."""
MAX_SPEED_M_S = 100.0
"""Speed (m/s) up to which a movement is believed; twice the median speed of the fixes where that is faster."""

NO_FIX = "without a position"
UNCERTAIN = f"with a standard deviation above {MAX_ERROR_M:g} m"
JUMPING = "that jump away from the others"


def flaw(message: Any, *, accept_null_island: bool = False) -> str:
    """Return why a NavSatFix is no position; empty if it is one.

    Its covariance counts whatever its type says: drivers leave the type at UNKNOWN, and nobody writes a variance
    of kilometres for a good fix.
    """
    latitude, longitude = float(message.latitude), float(message.longitude)
    if message.status.status < 0 or not (abs(latitude) <= 90 and abs(longitude) <= 180):  # NaN too
        return NO_FIX
    if null_island(latitude, longitude) and not accept_null_island:
        return NULL_ISLAND
    covariance = message.position_covariance
    return UNCERTAIN if uncertain(float(covariance[0]), float(covariance[4])) else ""


def uncertain(variance_x_m2: float, variance_y_m2: float) -> bool:
    """Return whether a position of these variances places nothing; NaN and negative ones say nothing."""
    return max(variance_x_m2, variance_y_m2) > MAX_ERROR_M**2


def jumping(times_ns: NDArray[np.int64], latitude: FloatArray, longitude: FloatArray) -> NDArray[np.bool_]:
    """Return which of N fixes contradict the others: none but the longest chain of those within reach is believed.

    Args:
        times_ns: (N,) ascending.
        latitude: (N,) degrees.
        longitude: (N,) degrees.

    Returns:
        (N,).
    """
    lost = np.zeros(len(times_ns), bool)
    if len(times_ns) < 2:
        return lost
    enu_m = LocalFrame(float(latitude[0]), float(longitude[0])).to_enu(latitude, longitude)
    time_s = (times_ns - times_ns[0]) / 1e9
    step_m, step_s = np.linalg.norm(np.diff(enu_m, axis=0), axis=1), np.diff(time_s)
    speed = max(MAX_SPEED_M_S, 2 * float(np.median(step_m / np.maximum(step_s, 1e-9))))
    starts = np.concatenate([[0], np.flatnonzero(step_m > JUMP_M + speed * step_s) + 1])
    ends = np.concatenate([starts[1:], [len(lost)]]) - 1
    # the longest chain of runs: to each the best before it whose end is within reach of its start
    length, before = ends - starts + 1, np.full(len(starts), -1)
    for run in range(1, len(starts)):
        apart_m = np.linalg.norm(enu_m[ends[:run]] - enu_m[starts[run]], axis=1)
        reached = apart_m <= JUMP_M + speed * (time_s[starts[run]] - time_s[ends[:run]])
        if reached.any():
            before[run] = np.argmax(np.where(reached, length[:run], 0))
            length[run] += length[before[run]]
    lost[:] = True
    run = int(np.argmax(length))
    while run >= 0:
        lost[starts[run] : ends[run] + 1] = False
        run = int(before[run])
    return lost


@dataclass(frozen=True, slots=True)
class FixTrack:
    """Fixes over time, and the times at which the receiver had none.

    Attributes:
        times_ns: (F,) ascending, none twice.
        positions: (F, 3) latitude and longitude (deg), altitude (m).
        void_ns: (V,) times of the fixes that are no position, ascending.
    """

    times_ns: NDArray[np.int64]
    positions: FloatArray
    void_ns: NDArray[np.int64]

    @classmethod
    def of(
        cls, times_ns: NDArray[np.int64], positions: FloatArray, flaws: list[str]
    ) -> tuple[FixTrack, NDArray[np.object_]]:
        """Order fixes and tell those that jump; also return the (N,) flaws, theirs among them.

        Args:
            times_ns: (N,) in any order; of equal times the last counts.
            positions: (N, 3).
            flaws: Why each is no position; empty for those that are.
        """
        named = np.array(flaws, object)
        good = np.flatnonzero(named == "")
        last = {int(times_ns[row]): row for row in good}
        rows = np.array([last[time] for time in sorted(last)], np.int64)
        lost = jumping(times_ns[rows], positions[rows, 0], positions[rows, 1])
        named[rows[lost]] = JUMPING
        kept = rows[~lost]
        positions = positions[kept].copy()
        believed = (ALTITUDES_M[0] <= positions[:, 2]) & (positions[:, 2] <= ALTITUDES_M[1])
        positions[~believed, 2] = np.nan
        return cls(times_ns[kept], positions, np.sort(times_ns[named != ""])), named

    def at(
        self, times_ns: NDArray[np.int64], max_gap_s: float
    ) -> tuple[FloatArray, NDArray[np.bool_], FloatArray, FloatArray]:
        """Interpolate linearly at N times; before the first and after the last fix the nearest one is taken.

        Returns:
            Time to the nearest fix (N,) in s; whether the receiver had no position between a time and the fixes
            beside it (N,), unless these are at most twice ``max_gap_s`` apart; metres east and north of the first
            fix (N, 2); latitude and longitude in degrees and altitude in m (N, 3), the latter NaN where a
            neighbouring fix has none.
        """
        start, last = self.times_ns[0], len(self.times_ns) - 1
        fix_s, image_s, void_s = ((each - start) / 1e9 for each in (self.times_ns, times_ns, self.void_ns))
        after = np.searchsorted(fix_s, image_s)
        left, right = fix_s[np.maximum(after - 1, 0)], fix_s[np.minimum(after, last)]
        gap_s = np.minimum(np.abs(image_s - left), np.abs(image_s - right))
        # beyond the ends a receiver that has none, before or after, is one that seeks
        low, high = np.where(after == 0, -np.inf, left), np.where(after > last, np.inf, right)
        voids = np.searchsorted(void_s, high) - np.searchsorted(void_s, low, side="right")
        lost = (voids > 0) & (high - low > 2 * max_gap_s) & (gap_s > 0)
        latitude, longitude, altitude = self.positions.T
        # in a plane about the first fix: no seam at the antimeridian
        frame = LocalFrame(float(latitude[0]), float(longitude[0]))
        axes = [np.interp(image_s, fix_s, axis) for axis in frame.to_enu(latitude, longitude).T]
        enu_m = np.stack(axes, axis=-1)
        degrees = frame.to_geodetic(enu_m)[:2]
        return gap_s, lost, enu_m[:, :2], np.stack([*degrees, np.interp(image_s, fix_s, altitude)], axis=-1)
