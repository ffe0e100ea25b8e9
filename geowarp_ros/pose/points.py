"""First rung: the camera's pose from triangulated points (2-D-3-D)."""

from __future__ import annotations

from geowarp_ros.pose.sightings import distinct_points
from geowarp_ros.pose.solvers import absolute_pose
from geowarp_ros.pose.view import View
from geowarp_ros.types import Pose


def pose_from_points(view: View, count: int) -> Pose | None:
    """Estimate the pose from the triangulated points of the first ``count`` photographs.

    Only descriptors of triangulated points are matched: a third of all, so a third of the time.
    """
    seen = distinct_points(view.sightings(count, located=True))
    thresholds = (view.config.threshold_px, view.config.threshold_px / 4)
    guesses = [absolute_pose(seen, view.camera.focal_px, threshold) for threshold in thresholds]
    return view.pose("points", seen, [guess for guess in guesses if guess])
