"""Second rung: the camera's pose from points and the rays of photographs together (2-D-3-D and 2-D-2-D).

A keypoint that one photograph alone has matched has no point, but a ray: the query must see it on its epipolar
line. Rays of one spot give the rotation and a direction, rays of two spots a position; points, few as they are,
give the scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geowarp_ros.pose.sightings import Sightings, distinct_points, distinct_rays, together
from geowarp_ros.pose.solvers import Guess, absolute_pose, poselib, rig_pose, two_view_pose
from geowarp_ros.pose.view import View
from geowarp_ros.types import Pose

MOST_MATCHED = 4
"""Number of photographs whose two views with the query are solved: those with the most matches."""

SAME_SCALE = 0.1
"""Relative difference of two distances that agree."""

REACH_M = 100.0
"""Maximum distance of a query from a photograph that it is measured against."""

REFINED = 3
"""Number of first guesses that are refined: those that the most matches obey roughly."""


def pose_from_anchors(view: View) -> Pose | None:
    """Estimate the pose from the points and the rays of all photographs at hand."""
    count, focal = len(view.photographs), view.camera.focal_px
    threshold = view.config.threshold_px
    points = distinct_points(view.sightings(count, located=True))
    rays = distinct_rays(view.sightings(count, located=False))
    rays = rays[~np.isin(rays.keypoint, points.keypoint)]
    seen = together([points, rays])
    guesses = [absolute_pose(points, focal, threshold)]
    if poselib() is not None:
        guesses.append(rig_pose(seen, focal, threshold))
    else:
        guesses += _from_scales(seen, focal, threshold)
    return view.pose("anchors", seen, [guess for guess in guesses if guess is not None], REFINED)


def _from_scales(seen: Sightings, focal_px: float, threshold_px: float) -> Iterator[Guess]:
    """First guesses without PoseLib: a rotation and a direction from one photograph, the distance from the others.

    On the line c = c_p + s t that two views give, the epipolar constraint of a ray of another photograph,
    ((c - c_o) × d_o)·d_q = 0, is linear in s: every match votes for a distance.
    """
    numbers, counts = np.unique(seen.photograph, return_counts=True)
    rays_q, rays_o = (np.column_stack([rays, np.ones(len(seen))]) for rays in (seen.rays, seen.rays_p))
    along_o = (seen.axes @ rays_o[:, :, None])[:, :, 0]
    for number in numbers[np.argsort(-counts, kind="stable")][:MOST_MATCHED]:
        part = seen[seen.photograph == number]
        found = two_view_pose(part, focal_px, threshold_px)
        if found is None:
            continue
        direction, rotation = found
        origin = part.origins_m[0]
        normal = np.cross(along_o, rays_q @ rotation.T)
        with np.errstate(divide="ignore", invalid="ignore"):
            votes = ((seen.origins_m - origin) * normal).sum(axis=1) / (normal @ direction)
            votes = np.log(votes[(votes > 0.1) & (votes < REACH_M)])
        votes.sort()
        for _ in range(2):
            if len(votes) < 3:
                break
            agree = np.searchsorted(votes, votes + SAME_SCALE) - np.arange(len(votes))
            best = int(agree.argmax())
            scale = float(np.exp(votes[best : best + agree[best]].mean()))
            yield origin + scale * direction, rotation
            votes = np.delete(votes, np.s_[best : best + agree[best]])
