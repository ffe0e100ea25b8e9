"""Distance that the robot has travelled: by its odometry or, without, by its maximum speed. NumPy only."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np

from geowarp_ros.types import FloatArray

KEPT_NS = 120_000_000_000
"""Odometry older than this (ns) is forgotten."""

GAP_NS = 1_000_000_000
"""Maximum time (ns) between two poses, and beyond the newest one; across a longer gap the path is unknown."""

BEYOND_NS = 200_000_000
"""Maximum time (ns) beyond the newest pose for which it is extrapolated: at 2 m/s² it is off by 4 cm then."""

SLACK_M = 1.0
"""Excess (m) of a step over what the maximum speed explains, up to which it counts; beyond it the odometry has
begun anew."""


@dataclass(frozen=True, slots=True)
class Pose:
    """A pose by odometry.

    Attributes:
        stamp_ns: Time of the pose.
        position_m: (3,) position in the odometry frame.
        yaw_rad: Rotation about its z axis, counter-clockwise from x (REP 103).
    """

    stamp_ns: int
    position_m: FloatArray
    yaw_rad: float


@dataclass(frozen=True, slots=True)
class Motion:
    """What happened between two times, by odometry.

    Attributes:
        forward_left_m: (2,) displacement, forward and left of where the robot was headed at the first.
        turn_rad: Change of the yaw, counter-clockwise, -π to π.
        path_m: Path length, not less than that of the displacement.
    """

    forward_left_m: FloatArray
    turn_rad: float
    path_m: float


def pose_from_message(message: Any) -> Pose:
    """Return the pose of a nav_msgs/Odometry, recorded or live; only the yaw of its orientation is used."""
    position, q, stamp = message.pose.pose.position, message.pose.pose.orientation, message.header.stamp
    yaw = math.atan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y**2 + q.z**2))
    stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    return Pose(stamp_ns, np.array([position.x, position.y, position.z]), yaw)


class Odometer:
    """Path length and poses of the recent past. Thread-safe.

    Args:
        max_speed_mps: Maximum speed of the robot (m/s).
        restarts: What ``restarts`` begins at.

    Attributes:
        restarts: Number of steps that no motion explains: after each the odometry's frame is another one.
    """

    def __init__(self, max_speed_mps: float, restarts: int = 0) -> None:
        self._max_speed_mps, self.restarts = max_speed_mps, restarts
        self._lock = threading.Lock()
        self._poses: list[Pose] = []
        self._path_m: list[float] = []

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._clear()

    def add(self, pose: Pose) -> bool:
        """Add the newest pose.

        A pose that is not finite or not newer is ignored. A step that no motion explains, in time or in space,
        starts a new path: the odometry was restarted, or time jumped.

        Returns:
            Whether it was added.
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
                explained = passed_ns > 0 and step_m <= self._max_speed_mps * passed_ns * 1e-9 + SLACK_M
                self.restarts += not explained
                if explained and passed_ns <= GAP_NS:
                    path_m = self._path_m[-1] + step_m
                else:
                    self._clear()
            self._poses.append(pose)
            self._path_m.append(path_m)
            self._forget_old()
        return True

    def travelled_m(self, from_ns: int, to_ns: int) -> float | None:
        """Return the path length between two times (m); None if the odometry does not cover them.

        Up to GAP_NS beyond the newest pose the maximum speed is assumed.
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
        """Return the maximum distance (m) moved between two times: the path length, else by the maximum speed."""
        travelled_m = self.travelled_m(from_ns, to_ns)
        return abs(to_ns - from_ns) * 1e-9 * self._max_speed_mps if travelled_m is None else travelled_m

    def pose_at(self, stamp_ns: int) -> Pose | None:
        """Return the pose at a time, interpolated between the two around it; None outside the recorded time."""
        with self._lock:
            if not self._poses or not self._poses[0].stamp_ns <= stamp_ns <= self._poses[-1].stamp_ns:
                return None
            after = bisect_left(self._poses, stamp_ns, key=lambda pose: pose.stamp_ns)
            second = self._poses[after]
            if second.stamp_ns == stamp_ns:
                return second
            first = self._poses[after - 1]
        return _between(first, second, stamp_ns)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest pose; None without one."""
        with self._lock:
            return self._poses[-1].stamp_ns if self._poses else None

    def motion(self, from_ns: int, to_ns: int) -> Motion | None:
        """Return the motion between two times, in either order; None if the odometry does not cover them.

        Up to BEYOND_NS after the newest pose the robot is taken to go on as it did.
        """
        path_m = self.travelled_m(from_ns, to_ns)
        first, second = self._pose_around(from_ns), self._pose_around(to_ns)
        if path_m is None or first is None or second is None:
            return None
        moved_m = second.position_m[:2] - first.position_m[:2]
        cos, sin = math.cos(first.yaw_rad), math.sin(first.yaw_rad)
        turn_rad = math.remainder(second.yaw_rad - first.yaw_rad, math.tau)
        return Motion(np.array([[cos, sin], [-sin, cos]]) @ moved_m, turn_rad, path_m)

    def _pose_around(self, stamp_ns: int) -> Pose | None:
        """Return the pose at a time; it may be up to BEYOND_NS after the newest one."""
        with self._lock:
            last = self._poses[-2:]
        beyond_ns = stamp_ns - last[-1].stamp_ns if last else 0
        if beyond_ns <= 0 or len(last) < 2:
            return self.pose_at(stamp_ns)
        if beyond_ns > BEYOND_NS:
            return None
        return _between(last[0], last[1], stamp_ns)

    def _path_at(self, stamp_ns: int) -> float:
        """Return the path length from the first pose to a time; constant beyond the newest pose."""
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


def _between(first: Pose, second: Pose, stamp_ns: int) -> Pose:
    """Return the pose at a time by the line through two."""
    share = (stamp_ns - first.stamp_ns) / (second.stamp_ns - first.stamp_ns)
    turn = math.remainder(second.yaw_rad - first.yaw_rad, math.tau)
    position_m = first.position_m + share * (second.position_m - first.position_m)
    return Pose(stamp_ns, position_m, math.remainder(first.yaw_rad + share * turn, math.tau))
