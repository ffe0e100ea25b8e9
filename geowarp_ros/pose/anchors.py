"""Second rung: the camera's pose from points and the rays of photographs together (2-D-3-D and 2-D-2-D).

A keypoint that one photograph alone has matched has no point, but a ray: the query must see it on its epipolar
line. Rays of one spot give the rotation and a direction, rays of two spots a position; points, few as they are,
give the scale.
"""

from __future__ import annotations

import numpy as np

from geowarp_ros.pose.sightings import distinct_points, distinct_rays, together
from geowarp_ros.pose.solvers import absolute_pose, hybrid_pose
from geowarp_ros.pose.view import View
from geowarp_ros.types import Pose

STEPS_M = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Distances from a photograph at which a pose is looked for along the direction that its essential matrix gives."""

REFINED = 4
"""Number of those that are refined, best first."""


def pose_from_anchors(view: View) -> Pose | None:
    """Estimate the pose from the points and the rays of all photographs at hand."""
    count, focal = len(view.photographs), view.camera.focal_px
    threshold = view.config.threshold_px
    points = distinct_points(view.sightings(count, located=True))
    rays = distinct_rays(view.sightings(count, located=False))
    rays = rays[~np.isin(rays.keypoint, points.keypoint)]
    seen = together([points, rays])
    guesses = [absolute_pose(points, focal, threshold), hybrid_pose(points, rays, focal, threshold)]
    found = [guess for guess in guesses if guess is not None]
    return view.pose("anchors", seen, found)
