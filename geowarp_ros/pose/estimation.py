"""The ladder: from a query's keypoints and aligned photographs to the camera's pose, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.config import PoseConfig
from geowarp_ros.gallery.alignment.aligned import Photograph
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import Compared
from geowarp_ros.pose.anchors import pose_from_anchors
from geowarp_ros.pose.points import pose_from_points
from geowarp_ros.pose.sightings import Rays
from geowarp_ros.pose.view import View
from geowarp_ros.types import Gravity, Pose, PoseMethod

FIRST = 5
"""Number of photographs that are matched before it is asked whether that was enough."""

CERTAIN_STD_M = 0.1
"""Horizontal standard deviation, these taken as right, that more photographs need not improve."""

SUFFICIENT_STD_M = 0.4
"""The same that rays need not improve: they cost as much again."""


def estimate_pose(
    query: Keypoints,
    camera: Camera | None,
    photographs: Sequence[Photograph],
    config: PoseConfig,
    *,
    gravity: Gravity | None = None,
    affords: Callable[[PoseMethod], bool] = lambda rung: True,
    compared: Callable[[Photograph], Compared | None] = lambda photograph: None,
) -> Pose | None:
    """Estimate where a camera is and where it looks.

    Args:
        query: Its keypoints, px at working resolution.
        camera: Its camera, scaled to working resolution; None where unknown.
        photographs: Of the ranked candidates, best first; those that nothing ties are passed over.
        config: How many are looked at, ratio and thresholds.
        gravity: Where up is, if an IMU says.
        affords: Whether there is time for a rung; asked just before it.
        compared: Comparisons with the photographs' keypoints that others have begun; None where nobody has.

    Returns:
        The pose, its covariance not calibrated; None without a camera, without enough matches, or where the
        matches do not determine it.
    """
    if camera is None or not affords("points"):
        return None
    by_row = {photograph.row: photograph for photograph in photographs}
    tied = [photograph for photograph in by_row.values() if np.isfinite(photograph.rotation).all()]
    tied = tied[: config.photographs]
    view = View(query, camera, tied, config, gravity, Rays.of(query, camera), compared)
    pose = None
    for count in sorted({min(FIRST, len(tied)), len(tied)} - {0}):
        pose = sharper(pose, pose_from_points(view, count))
        if pose is not None and pose.fit_std_m < CERTAIN_STD_M:
            return pose
    if not tied or (pose is not None and pose.fit_std_m < SUFFICIENT_STD_M) or not affords("anchors"):
        return pose
    return sharper(pose, pose_from_anchors(view))


def sharper(first: Pose | None, second: Pose | None) -> Pose | None:
    """Return the pose that its matches determine better."""
    both = (pose for pose in (first, second) if pose is not None)
    return min(both, key=lambda pose: pose.fit_std_m, default=None)
