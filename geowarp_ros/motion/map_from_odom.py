"""Alignment of the odometry frame with the map: the rigid motion that best explains recent fixes. NumPy only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from geowarp_ros.types import FloatArray

WINDOW = 30
"""Number of fixes that are remembered: the odometry drifts."""

LEAST_REDUNDANCY = 5
"""Minimum number by which the agreeing fixes' values outnumber the three unknowns: a fix has two, one with a
heading three. So four fixes are needed without headings (2 · 4 - 3 = 5), three with them (3 · 3 - 3 = 6)."""

SIGMAS = 3.0
"""Maximum distance of an agreeing fix from where the alignment puts it, in position and heading (standard
deviations)."""

YAW_STD_RAD = math.radians(10.0)
"""Maximum standard deviation of the yaw (rad): fixes without headings say nothing of direction until the robot
has moved."""


REACH_M = 5.0
"""Distance from the robot (m) within which nothing moves faster than a correction may: half of a local costmap."""


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


def approach(shown: MapFromOdom, found: MapFromOdom, here_m: FloatArray, way_m: float) -> MapFromOdom:
    """Return an alignment on the way from one to another.

    Args:
        shown: Where it begins.
        found: Where it leads to.
        here_m: (2,) position of the robot in the odometry frame: the origin of that frame may be far away, and a
            small turn about it moves the robot by much.
        way_m: Maximum distance by which the robot, and what is REACH_M from it, moves in the map.
    """
    turn = math.remainder(found.yaw_rad - shown.yaw_rad, math.tau)
    before_m, after_m = shown(here_m), found(here_m)
    full_m = float(np.linalg.norm(after_m - before_m)) + REACH_M * abs(turn)
    if full_m <= way_m:
        return found
    yaw = shown.yaw_rad + way_m / full_m * turn
    east, north = before_m + way_m / full_m * (after_m - before_m) - _rotation(yaw) @ here_m
    return replace(found, east_m=float(east), north_m=float(north), yaw_rad=yaw)


class Alignment:
    """Remembers pairs of fix and odometry, and aligns them.

    The yaw comes from the shape of the path, known once the path is long beside the errors of the fixes, and from
    the headings of the fixes that have one, each by its standard deviation. False fixes are outvoted: of the
    alignments through two fixes each, or through one with a heading, the one that most fixes agree with is refined
    by weighted least squares over those.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._rows: deque[tuple[float, ...]] = deque(maxlen=WINDOW)

    def add(
        self,
        map_m: FloatArray,
        covariance: FloatArray,
        odom_m: FloatArray,
        yaw_rad: float = math.nan,
        yaw_std_rad: float = math.nan,
    ) -> None:
        """Add a fix and the odometry at its time.

        Args:
            map_m: (2,) position in the map.
            covariance: (2, 2) of it, m².
            odom_m: (2,) position in the odometry frame.
            yaw_rad: Yaw in the map minus yaw in the odometry frame; NaN if the fix has no heading.
            yaw_std_rad: Its standard deviation; NaN likewise.
        """
        std_m = math.sqrt(float(np.trace(covariance)) / 2)
        self._rows.append((*map_m, *odom_m, std_m, yaw_rad, yaw_std_rad))

    def solve(self) -> MapFromOdom | None:
        """Return the alignment; None while too few fixes agree or the yaw is uncertain."""
        if not self._rows:
            return None
        rows = np.array(self._rows, np.float64)
        agreeing = rows[_largest_agreement(rows)]
        redundancy = 2 * len(agreeing) + np.isfinite(agreeing[:, 5]).sum() - 3
        if redundancy < LEAST_REDUNDANCY or len(agreeing) < len(rows) / 2:
            return None
        found = _least_squares(agreeing)
        return found if found.yaw_std_rad <= YAW_STD_RAD else None


def _largest_agreement(rows: FloatArray) -> np.ndarray:
    """Return which of the (N,) fixes agree with the best alignment through two of them, or one; all are tried."""
    there, here, std, yaw, yaw_std = rows[:, :2], rows[:, 2:4], rows[:, 4], rows[:, 5], rows[:, 6]
    headed = np.flatnonzero(np.isfinite(yaw))
    first, second = (np.r_[pairs, headed] for pairs in np.triu_indices(len(rows), 1))
    along_map, along_odom = there[second] - there[first], here[second] - here[first]
    turn = np.arctan2(along_map[:, 1], along_map[:, 0]) - np.arctan2(along_odom[:, 1], along_odom[:, 0])
    turn[len(turn) - len(headed) :] = yaw[headed]
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    offset = (there[first] + there[second]) / 2 - np.einsum(
        "kij,kj->ki", rotation, (here[first] + here[second]) / 2
    )
    carried = np.einsum("kij,nj->kni", rotation, here) + offset[:, None]
    squared = ((carried - there) ** 2).sum(axis=2) / std**2
    turned = _wrapped(turn[:, None] - yaw) / yaw_std
    agrees = (squared <= SIGMAS**2) & ~(np.abs(turned) > SIGMAS)
    # most agreeing fixes; among equals the smallest errors
    squared = squared + np.nan_to_num(turned) ** 2
    best = np.lexsort((np.where(agrees, squared, 0.0).sum(axis=1), -agrees.sum(axis=1)))[:1]
    return np.asarray(agrees[best].any(axis=0))


def _least_squares(rows: FloatArray) -> MapFromOdom:
    """Weighted rigid alignment in the plane, closed form (Arun et al. 1987, for two dimensions), and headings."""
    there, here, weight = rows[:, :2], rows[:, 2:4], 1.0 / rows[:, 4] ** 2
    middle_map, middle_odom = (np.average(points, axis=0, weights=weight) for points in (there, here))
    m, o = there - middle_map, here - middle_odom
    lever = float((weight * (o**2).sum(axis=1)).sum())  # information of the path on the yaw, 1 / rad²
    yaws = [
        math.atan2((weight * (o[:, 0] * m[:, 1] - o[:, 1] * m[:, 0])).sum(), (weight * (o * m).sum(axis=1)).sum())
    ]
    headed = rows[np.isfinite(rows[:, 5])]
    yaws, information = np.r_[yaws, headed[:, 5]], np.r_[lever, 1.0 / headed[:, 6] ** 2]
    total = float(information.sum())
    # about the surest, so that the mean knows no seam
    surest = yaws[np.argmax(information)]
    yaw = float(surest + (information @ _wrapped(yaws - surest) / total if total > 0 else 0.0))
    east, north = middle_map - _rotation(yaw) @ middle_odom
    return MapFromOdom(
        float(east), float(north), yaw, 1.0 / math.sqrt(total) if total > 0 else math.inf, len(rows)
    )


def _wrapped(angle: FloatArray) -> FloatArray:
    return np.asarray((angle + math.pi) % math.tau - math.pi)


def _rotation(yaw_rad: float) -> FloatArray:
    cos, sin = math.cos(yaw_rad), math.sin(yaw_rad)
    return np.array([[cos, -sin], [sin, cos]])
