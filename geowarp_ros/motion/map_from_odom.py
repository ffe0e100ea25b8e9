"""Alignment of the odometry frame with the map: the rigid motion that best explains recent fixes. NumPy only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from geowarp_ros.types import FloatArray

WINDOW = 30
"""Number of fixes that are remembered: the odometry drifts."""

LEAST_FIXES = 4
"""Minimum number of agreeing fixes."""

SIGMAS = 3.0
"""Maximum distance of an agreeing fix from where the alignment puts it (standard deviations)."""

YAW_STD_RAD = math.radians(10.0)
"""Maximum standard deviation of the yaw (rad): fixes say nothing of direction until the robot has moved."""


@dataclass(frozen=True, slots=True)
class MapFromOdom:
    """The rigid motion from the odometry frame to the map, in the plane.

    Convention:
        p_map = R(yaw) · p_odom + (east, north); yaw counter-clockwise (REP 103).

    Attributes:
        east_m: East coordinate of the odometry frame's origin (m).
        north_m: North coordinate of the odometry frame's origin (m).
        yaw_rad: Direction of the odometry frame's x axis, counter-clockwise from east (rad).
        yaw_std_rad: Standard deviation of the yaw (rad).
        agreeing: Number of remembered fixes that it explains.
    """

    east_m: float
    north_m: float
    yaw_rad: float
    yaw_std_rad: float
    agreeing: int

    def __call__(self, odom_m: FloatArray) -> FloatArray:
        """Transform points (…, 2) from the odometry frame to the map."""
        return np.asarray(odom_m @ _rotation(self.yaw_rad).T + (self.east_m, self.north_m))


class Alignment:
    """Remembers pairs of fix and odometry, and aligns them.

    A fix has no orientation, so the yaw comes from the shape of the path: it is known once the path is long beside
    the errors of the fixes. False fixes are outvoted: of the alignments through two fixes each, the one that most
    fixes agree with is refined by weighted least squares over those.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._pairs: deque[tuple[FloatArray, FloatArray, float]] = deque(maxlen=WINDOW)

    def add(self, map_m: FloatArray, covariance: FloatArray, odom_m: FloatArray) -> None:
        """Add a fix (2,) in the map with its covariance (2, 2), m², and the odometry position (2,) at its time."""
        std_m = math.sqrt(float(np.trace(covariance)) / 2)
        self._pairs.append((np.asarray(map_m, np.float64), np.asarray(odom_m, np.float64), std_m))

    def solve(self) -> MapFromOdom | None:
        """Return the alignment; None while too few fixes agree or the yaw is uncertain."""
        if len(self._pairs) < LEAST_FIXES:
            return None
        there, here = (np.stack([pair[side] for pair in self._pairs]) for side in (0, 1))
        std = np.array([pair[2] for pair in self._pairs])
        agreeing = _largest_agreement(there, here, std)
        if agreeing.sum() < max(LEAST_FIXES, len(self._pairs) / 2):
            return None
        found = _least_squares(there[agreeing], here[agreeing], std[agreeing])
        return found if found.yaw_std_rad <= YAW_STD_RAD else None


def _largest_agreement(there: FloatArray, here: FloatArray, std: FloatArray) -> np.ndarray:
    """Return which of the (N,) fixes agree with the best alignment through two of them; all pairs are tried."""
    first, second = np.triu_indices(len(there), 1)
    along_map, along_odom = there[second] - there[first], here[second] - here[first]
    turn = np.arctan2(along_map[:, 1], along_map[:, 0]) - np.arctan2(along_odom[:, 1], along_odom[:, 0])
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    offset = (there[first] + there[second]) / 2 - np.einsum(
        "kij,kj->ki", rotation, (here[first] + here[second]) / 2
    )
    carried = np.einsum("kij,nj->kni", rotation, here) + offset[:, None]
    squared = ((carried - there) ** 2).sum(axis=2) / std**2
    agrees = squared <= SIGMAS**2
    # most agreeing fixes; among equals the smallest errors
    best = np.lexsort((np.where(agrees, squared, 0.0).sum(axis=1), -agrees.sum(axis=1)))[0]
    return np.asarray(agrees[best])


def _least_squares(there: FloatArray, here: FloatArray, std: FloatArray) -> MapFromOdom:
    """Weighted rigid alignment in the plane, closed form (Arun et al. 1987, for two dimensions)."""
    weight = 1.0 / std**2
    middle_map, middle_odom = (np.average(points, axis=0, weights=weight) for points in (there, here))
    m, o = there - middle_map, here - middle_odom
    yaw = math.atan2(
        float((weight * (o[:, 0] * m[:, 1] - o[:, 1] * m[:, 0])).sum()),
        float((weight * (o[:, 0] * m[:, 0] + o[:, 1] * m[:, 1])).sum()),
    )
    lever = float((weight * (o**2).sum(axis=1)).sum())
    east, north = middle_map - _rotation(yaw) @ middle_odom
    return MapFromOdom(float(east), float(north), yaw, 1.0 / math.sqrt(lever) if lever > 0 else math.inf, len(std))


def _rotation(yaw_rad: float) -> FloatArray:
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])
