"""When another localizer is to be started from a fix: at the first one, and when the robot is found elsewhere.

NumPy only.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Literal

import numpy as np

from geowarp_ros.attitude import Mounting
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.consistency import (
    DRIFT,
    RECALLED,
    SIGMAS,
    SLACK_M,
    YAW_DRIFT_RAD_PER_M,
    Sighting,
    contradiction,
)
from geowarp_ros.motion.odometry import Motion, Odometer
from geowarp_ros.types import Answer, Fix, NoFix


class Seeding:
    """Decides which fixes a localizer that follows the robot by itself is to be started from.

    It is a fix with an orientation, of a camera whose mounting is known, as the pose is the base's: the first one
    and, with ``lost``, the first after the robot was lost or carried off. It was carried off if a fix is not where
    the motion since the last one leads, and one of those shortly before says the same: a single false fix is no
    reason to start a localizer anew that knows where it is. Those that tracking or odometry held back count, too.

    Args:
        when: ``once`` or ``lost``.
    """

    def __init__(self, when: Literal["once", "lost"]) -> None:
        self._again = when == "lost"
        self.reset()

    def reset(self) -> None:
        """Forget all fixes; the next one counts as the first."""
        self.wanted = True
        self._last: Sighting | None = None
        self._elsewhere: deque[Sighting] = deque(maxlen=RECALLED)

    def __call__(
        self,
        answer: Answer,
        frame: LocalFrame,
        odometer: Odometer,
        mounting: Mounting | None = None,
        *,
        lost: bool = False,
    ) -> bool:
        """Return whether the answer's fix is one to start from; ``wanted`` stays until the caller takes it back.

        Args:
            answer: Answer to the newest image.
            frame: Local frame in whose plane fixes are compared.
            odometer: Motion between the images.
            mounting: Where the camera sits on the base; None if unknown.
            lost: Whether the robot was outside the gallery before this answer.
        """
        fix, result = answer.fix, answer.result
        seen = result.held_back if isinstance(result, NoFix) else result
        self.wanted |= lost and self._again
        if seen is None:
            return False
        new = Sighting.of(seen, answer.header.stamp_ns, frame, mounting)
        if self._last is not None and _apart(self._last, new, odometer):
            confirmed = any(not _apart(old, new, odometer) for old in self._elsewhere)
            self._elsewhere.append(new)
            if not confirmed:
                return False
            self.wanted |= self._again
        if fix is None:
            return False
        self._last = new
        self._elsewhere.clear()
        return self.wanted and mounting is not None and fix.orientation is not None


def _apart(before: Sighting, after: Sighting, odometer: Odometer) -> bool:
    """Return whether the motion does not lead from one fix to another; without odometry, the maximum speed."""
    motion = odometer.motion(before.stamp_ns, after.stamp_ns)
    if motion is not None:
        return bool(contradiction(before, after, motion))
    std_m = sum(math.sqrt(float(np.linalg.eigvalsh(one.covariance)[1])) for one in (before, after))
    reach_m = odometer.reach_m(before.stamp_ns, after.stamp_ns)
    return float(np.linalg.norm(after.position_m - before.position_m)) > SIGMAS * std_m + reach_m


def carried_on(fix: Fix, motion: Motion) -> Fix:
    """Return where the base is, with an orientation, after a motion by odometry from where a fix puts it."""
    cos, sin = math.cos(motion.turn_rad), math.sin(motion.turn_rad)
    after_from_before = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    before_m = after_from_before @ -np.array([*motion.forward_left_m, 0.0])
    moved = Mounting(before_m, after_from_before).base_of(fix)  # the base before, as if mounted on the one after
    if moved.pose_covariance is None:
        return moved
    drift_m, drift_rad = math.hypot(SLACK_M, DRIFT * motion.path_m), YAW_DRIFT_RAD_PER_M * motion.path_m
    covariance = moved.pose_covariance + np.diag([drift_m**2, drift_m**2, 0.0, 0.0, 0.0, drift_rad**2])
    return replace(moved, covariance=covariance[:3, :3], pose_covariance=covariance)
