"""How far the robot has come, by its odometry or, without, by its greatest speed. NumPy only."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from geowarp_ros.types import FloatArray

KEPT_NS = 120_000_000_000
"""Odometry older than this is forgotten."""

GAP_NS = 1_000_000_000
"""Beyond the newest pose by more than this, or between two poses, the odometry does not know."""

SLACK_M = 1.0
"""A step may be so much longer than the greatest speed explains; beyond, the odometry has begun anew."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the odometry sees the robot.

    Attributes:
        stamp_ns: When.
        position_m: (3,) in the odometry's frame.
        yaw_rad: About its z axis, counter-clockwise from x (REP 103).
    """

    stamp_ns: int
    position_m: FloatArray
    yaw_rad: float


class Odometer:
    """Path length and poses of the recent past; any thread may call.

    Args:
        max_speed_mps: Greatest speed of the robot.
    """

    def __init__(self, max_speed_mps: float) -> None:
        self._max_speed_mps = max_speed_mps
        self._lock = threading.Lock()
        self._poses: list[Pose] = []
        self._path_m: list[float] = []

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._clear()

    def add(self, pose: Pose) -> bool:
        """Take the newest pose.

        One that is not finite or not newer is let go. One that no motion explains, in time or in space, begins
        anew: the odometry was restarted, or time jumped.

        Returns:
            Whether it was taken.
        """
        if not (np.isfinite(pose.position_m).all() and math.isfinite(pose.yaw_rad)):
            return False
        with self._lock:
            path_m = 0.0
            if self._poses:
                last = self._poses[-1]
                passed_ns = pose.stamp_ns - last.stamp_ns
                if -GAP_NS <= passed_ns <= 0:
                    return False
                step_m = float(np.linalg.norm(pose.position_m - last.position_m))
                known = 0 < passed_ns <= GAP_NS and step_m <= self._max_speed_mps * passed_ns * 1e-9 + SLACK_M
                if known:
                    path_m = self._path_m[-1] + step_m
                else:
                    self._clear()
            self._poses.append(pose)
            self._path_m.append(path_m)
            self._forget_old()
        return True

    def travelled_m(self, from_ns: int, to_ns: int) -> float | None:
        """Path length between two times; None where the odometry does not know them.

        A little beyond the newest pose the greatest speed is assumed.
        """
        if from_ns > to_ns:
            from_ns, to_ns = to_ns, from_ns
        with self._lock:
            if not self._poses or from_ns < self._poses[0].stamp_ns:
                return None
            beyond_ns = max(0, to_ns - self._poses[-1].stamp_ns)
            if beyond_ns > GAP_NS:
                return None
            way_m = self._path_at(to_ns) - self._path_at(from_ns)
        begun_ns = min(beyond_ns, to_ns - from_ns)
        return way_m + self._max_speed_mps * begun_ns * 1e-9

    def reach_m(self, from_ns: int, to_ns: int) -> float:
        """How far apart the robot can be between two times: the way it went, else the greatest speed allows."""
        travelled_m = self.travelled_m(from_ns, to_ns)
        return abs(to_ns - from_ns) * 1e-9 * self._max_speed_mps if travelled_m is None else travelled_m

    def pose_at(self, stamp_ns: int) -> Pose | None:
        """The pose at a time, between the two recorded around it; None where there are none."""
        with self._lock:
            if not self._poses or not self._poses[0].stamp_ns <= stamp_ns <= self._poses[-1].stamp_ns:
                return None
            after = bisect_left(self._poses, stamp_ns, key=lambda pose: pose.stamp_ns)
            second = self._poses[after]
            if second.stamp_ns == stamp_ns:
                return second
            first = self._poses[after - 1]
        share = (stamp_ns - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
        turn = math.remainder(second.yaw_rad - first.yaw_rad, math.tau)
        position_m = first.position_m + share * (second.position_m - first.position_m)
        return Pose(stamp_ns, position_m, math.remainder(first.yaw_rad + share * turn, math.tau))

    def _path_at(self, stamp_ns: int) -> float:
        """Path length up to a time within or beyond the poses, from the first of them."""
        after = bisect_left(self._poses, stamp_ns, key=lambda pose: pose.stamp_ns)
        if after == len(self._poses):
            return self._path_m[-1]
        if after == 0:
            return self._path_m[0]
        begin_ns, end_ns = self._poses[after - 1].stamp_ns, self._poses[after].stamp_ns
        share = (stamp_ns - begin_ns) / (end_ns - begin_ns)
        return self._path_m[after - 1] + share * (self._path_m[after] - self._path_m[after - 1])

    def _forget_old(self) -> None:
        # in lumps: taking the first out of a list moves all the others
        if self._poses[-1].stamp_ns - self._poses[0].stamp_ns > 2 * KEPT_NS:
            kept = bisect_left(self._poses, self._poses[-1].stamp_ns - KEPT_NS, key=lambda pose: pose.stamp_ns)
            self._poses, self._path_m = self._poses[kept:], self._path_m[kept:]

    def _clear(self) -> None:
        self._poses, self._path_m = [], []
