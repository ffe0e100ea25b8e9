"""Fixes against odometry: two whose poses contradict the motion between them cannot both be right. NumPy only."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from geowarp_ros.attitude import Mounting
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.odometry import Motion, Odometer
from geowarp_ros.types import Answer, Fix, FloatArray, NoFix

RECALLED = 4
"""Number of fixes that a new one is compared with, those held back among them: true ones outvote a false one, and
where the odometry itself was wrong, as with a wheel that slips, the third fix after it stands again."""

SIGMAS = 4.0
"""Minimum deviation that is a contradiction (standard deviations): 1 in 3 000 pairs of right fixes, more of them
if their covariances boast."""

DRIFT = 0.05
"""Standard deviation of the odometry's displacement, over the path length."""

YAW_DRIFT_RAD_PER_M = math.radians(0.3)
"""Standard deviation of the odometry's turn, over the path length."""

SLACK_M, YAW_SLACK_RAD = 0.2, math.radians(1.0)
"""Standard deviations of displacement and turn of a short path: stamps that differ, a lens that is bent."""

UNKNOWN_LEVER_M = 2.0
"""Maximum distance of a camera whose mounting is unknown from the odometry's child frame: a car's windscreen from
its rear axle."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A fix in the plane.

    Attributes:
        stamp_ns: Time of its image.
        position_m: (2,) east and north.
        covariance: (2, 2) of it, m².
        yaw_rad: Of the base if its position is the base's, else of the camera; NaN if unknown.
        yaw_std_rad: Standard deviation; NaN likewise.
        of_base: Whether it is where the odometry's child frame is, and heads as it does.
    """

    stamp_ns: int
    position_m: FloatArray
    covariance: FloatArray
    yaw_rad: float
    yaw_std_rad: float
    of_base: bool

    @classmethod
    def of(cls, fix: Fix, stamp_ns: int, frame: LocalFrame, mounting: Mounting | None) -> Sighting:
        """Return a fix in the plane of ``frame``, of the base where the camera's mounting is known."""
        found = mounting.base_of(fix) if mounting else fix
        return cls(
            stamp_ns,
            frame.to_enu(found.latitude_deg, found.longitude_deg)[:2],
            np.asarray(found.covariance, np.float64)[:2, :2],
            math.radians(90.0 - found.heading_deg),
            math.radians(found.heading_std_deg),
            mounting is not None and fix.orientation is not None,
        )


def contradiction(before: Sighting, after: Sighting, motion: Motion) -> str:
    """Return how two fixes contradict the odometry between them, in words; empty if they do not.

    The turn is compared where both have headings. The displacement is compared as a vector where both are of the
    base and headed; else as a length, for then nobody knows which way the odometry went in the map.
    """
    turn_rad = math.remainder(after.yaw_rad - before.yaw_rad, math.tau) if _headed(before, after) else math.nan
    off_rad = abs(math.remainder(turn_rad - motion.turn_rad, math.tau)) if _headed(before, after) else 0.0
    drift_rad = math.hypot(YAW_SLACK_RAD, YAW_DRIFT_RAD_PER_M * motion.path_m)
    if off_rad > SIGMAS * math.hypot(before.yaw_std_rad, after.yaw_std_rad, drift_rad):
        return f"turned by {math.degrees(turn_rad):.0f}°, by odometry {math.degrees(motion.turn_rad):.0f}°"
    moved_m = after.position_m - before.position_m
    deviation, how = _displaced(before, after, motion, moved_m)
    if deviation > SIGMAS:
        expected_m = float(np.linalg.norm(motion.forward_left_m))
        return f"moved by {np.linalg.norm(moved_m):.1f} m, by odometry {expected_m:.1f} m{how}"
    return ""


def _displaced(before: Sighting, after: Sighting, motion: Motion, moved_m: FloatArray) -> tuple[float, str]:
    """Return by how many standard deviations the displacement differs from the odometry's, and in which way."""
    covariance = before.covariance + after.covariance + np.eye(2) * (SLACK_M**2 + (DRIFT * motion.path_m) ** 2)
    if before.of_base and after.of_base:
        cos, sin = math.cos(before.yaw_rad), math.sin(before.yaw_rad)
        expected_m = np.array([[cos, -sin], [sin, cos]]) @ motion.forward_left_m
        across_m = np.array([-expected_m[1], expected_m[0]])
        covariance = covariance + np.outer(across_m, across_m) * before.yaw_std_rad**2
        off_m = moved_m - expected_m
        how = f", {np.linalg.norm(off_m):.1f} m from there"
        return math.sqrt(float(off_m @ np.linalg.solve(covariance, off_m))), how
    # the camera swings about the base by at most the chord of the turn
    swing_m = 2.0 * UNKNOWN_LEVER_M * abs(math.sin(motion.turn_rad / 2))
    apart_m = abs(float(np.linalg.norm(moved_m) - np.linalg.norm(motion.forward_left_m)))
    # an error in its worst direction changes the length by no more
    return max(0.0, apart_m - swing_m) / math.sqrt(float(np.linalg.eigvalsh(covariance)[1])), ""


def _headed(before: Sighting, after: Sighting) -> bool:
    return math.isfinite(before.yaw_std_rad) and math.isfinite(after.yaw_std_rad)


class Consistency:
    """Holds back a fix that more of the RECALLED fixes before it contradict than agree with.

    So two fixes that contradict one another are settled by the next: the one it agrees with is confirmed. Without
    odometry that covers both nothing is compared, and nothing held back.
    """

    def __init__(self) -> None:
        self._mounted = False
        self.reset()

    def reset(self) -> None:
        """Forget all fixes."""
        self._recalled: deque[Sighting] = deque(maxlen=RECALLED)

    def __call__(
        self, answer: Answer, frame: LocalFrame, odometer: Odometer, mounting: Mounting | None = None
    ) -> Answer:
        """Return the answer, with a NoFix ``jump`` in the place of a fix that contradicts the odometry.

        Args:
            answer: Answer to the newest image.
            frame: Local frame in whose plane fixes are compared: axes differ by 0.01° per km from the datum.
            odometer: Motion between the images.
            mounting: Where the camera sits on the odometry's child frame; None if unknown.
        """
        if answer.fix is None:
            return answer
        if (mounting is not None) != self._mounted:  # fixes of the camera and of the base are not of one point
            self._mounted = mounting is not None
            self.reset()
        new = Sighting.of(answer.fix, answer.header.stamp_ns, frame, mounting)
        if self._recalled and self._recalled[-1].stamp_ns == new.stamp_ns:  # the image is asked about again
            self._recalled.pop()
        found = [
            contradiction(old, new, motion)
            for old in self._recalled
            if (motion := odometer.motion(old.stamp_ns, new.stamp_ns)) is not None
        ]
        self._recalled.append(new)
        against = [words for words in found if words]
        if 2 * len(against) <= len(found):
            return answer
        detail = f"contradicts {len(against)} of the last {len(found)} fixes: {against[-1]}"
        return replace(answer, result=NoFix("jump", detail, answer.confidence, answer.fix))
