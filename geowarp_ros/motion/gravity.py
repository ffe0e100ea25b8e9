"""Which way is up, by an inertial unit on the robot, while it can be believed. NumPy only.

Convention:
    Axes are those of REP 103 and REP 145: an accelerometer at rest measures +9.81 m/s² along up.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geowarp_ros.attitude import BODY_FROM_OPTICAL, Mounting, enu_from_body
from geowarp_ros.types import FloatArray, Gravity

STANDARD_GRAVITY = 9.80665
"""m/s²; between equator and poles it differs by 0.03."""
BEFORE_NS, BEYOND_NS = 500_000_000, 100_000_000
"""Time before and after an image (ns) of the measurements that are averaged: wheels and engines shake faster."""
STALE_NS = 200_000_000
"""Time (ns) from an image to the nearest measurement from which nothing is known."""
MAX_OFF_MPS2 = 0.3
"""Difference of the mean acceleration's size from gravity (m/s²) above which the robot is accelerating."""
MAX_SHAKE_MPS2 = 3.0
"""Root mean square of the acceleration about its mean (m/s²) above which it is shaken."""
ACCELERATING_RAD = math.radians(3.0)
"""Standard deviation of up by the acceleration: 0.5 m/s² sideways turn it by 3°, and hardly add to its size."""


@dataclass(frozen=True, slots=True)
class Tilt:
    """A measurement of an inertial unit.

    Attributes:
        stamp_ns: Time of the measurement.
        up: (3,) direction of up in the unit's frame, of unit length; or the acceleration measured, m/s².
        std_rad: Standard deviation of a direction about each horizontal axis; NaN: ``up`` is an acceleration.
    """

    stamp_ns: int
    up: FloatArray
    std_rad: float

    def turned(self, rotation: FloatArray) -> Tilt:
        """Return the same in a frame that ``rotation`` (3, 3) leads to."""
        return replace(self, up=rotation @ self.up)


def tilt_from_message(message: Any) -> Tilt | None:
    """Return what a sensor_msgs/Imu, recorded or live, says of up; None: neither orientation nor acceleration.

    A first covariance of -1 says that there is none, zeros that its covariance is unknown; the identity without a
    covariance is what drivers send that set neither.
    """
    stamp, q, a = message.header.stamp, message.orientation, message.linear_acceleration
    stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    covariance = np.asarray(message.orientation_covariance, np.float64)
    size = math.sqrt(q.x**2 + q.y**2 + q.z**2 + q.w**2)
    unset = (q.x, q.y, q.z, q.w) == (0.0, 0.0, 0.0, 1.0) and not covariance.any()
    if covariance[0] >= 0 and abs(size - 1) < 0.01 and not unset:
        up = enu_from_body((q.x, q.y, q.z, q.w)).T @ (0.0, 0.0, 1.0)
        variance = max(covariance[0], covariance[4])
        return Tilt(stamp_ns, up, math.sqrt(variance) if math.isfinite(variance) else math.pi)
    measured = np.array([a.x, a.y, a.z], np.float64)
    if message.linear_acceleration_covariance[0] < 0 or not np.isfinite(measured).all():
        return None
    return Tilt(stamp_ns, measured, math.nan)


class Plumb:
    """Keeps the measurements of the recent past, and says which way is up for an image. Thread-safe.

    Args:
        std_deg: Standard deviation of up at best, the unit's and the camera's mounting included (deg).

    Attributes:
        said: What became of the last image's, for people.
    """

    def __init__(self, std_deg: float) -> None:
        self._std_rad = math.radians(std_deg)
        self._lock = threading.Lock()
        self._kept: deque[Tilt] = deque(maxlen=2000)
        self.said = "no measurement yet"

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def add(self, tilt: Tilt | None) -> None:
        """Add the newest measurement, in the base's frame; None: one that says nothing of up."""
        if tilt is not None and np.isfinite(tilt.up).all():
            with self._lock:
                self._kept.append(tilt)

    def gravity(self, stamp_ns: int, mounting: Mounting | None) -> Gravity | None:
        """Return which way is up in the camera's optical frame at a time; None while nothing reliable says so."""
        with self._lock:
            near = [t for t in self._kept if -BEFORE_NS <= t.stamp_ns - stamp_ns <= BEYOND_NS]
        if mounting is None:
            self.said = "where the camera sits on the base is unknown"
            return None
        if min((abs(t.stamp_ns - stamp_ns) for t in near), default=STALE_NS) >= STALE_NS:
            self.said = f"no measurement within {STALE_NS / 1e9:g} s of the image"
            return None
        nearest = min(near, key=lambda t: abs(t.stamp_ns - stamp_ns))
        if math.isnan(nearest.std_rad):
            measured = np.array([t.up for t in near if math.isnan(t.std_rad)])
            up, std_rad = measured.mean(axis=0), ACCELERATING_RAD
            off = abs(float(np.linalg.norm(up)) - STANDARD_GRAVITY)
            shake = math.sqrt(float(((measured - up) ** 2).sum(axis=1).mean()))
            if off > MAX_OFF_MPS2 or shake > MAX_SHAKE_MPS2:
                self.said = f"accelerates: {off:.1f} m/s² from gravity, shaken by {shake:.1f} m/s²"
                return None
        else:
            up, std_rad = nearest.up, nearest.std_rad
        std_rad = math.hypot(self._std_rad, std_rad)
        self.said = f"used, ± {math.degrees(std_rad):.1f}°"
        return Gravity(BODY_FROM_OPTICAL.T @ mounting.rotation.T @ (up / np.linalg.norm(up)), std_rad)
