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
from geowarp_ros.types import FloatArray, Pose

STEPS_M = (1.0, 3.0, 9.0)
"""Distances from a photograph at which the query is looked for, along the direction that the two views give."""

MOST_MATCHED = 4
"""Number of photographs that give such directions: those with the most matches."""

PARALLEL_CONDITION = 1e3
"""Maximum condition of two lines that cross: about 3.6° between them."""

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
        guesses += _from_directions(seen, focal, threshold)
    return view.pose("anchors", seen, [guess for guess in guesses if guess is not None], REFINED)


def _from_directions(seen: Sightings, focal_px: float, threshold_px: float) -> Iterator[Guess]:
    """First guesses without PoseLib, from the directions in which photographs see the query.

    Where two of them cross, and steps along each.
    """
    numbers, counts = np.unique(seen.photograph, return_counts=True)
    lines: list[tuple[FloatArray, FloatArray]] = []
    for number in numbers[np.argsort(-counts, kind="stable")][:MOST_MATCHED]:
        part = seen[seen.photograph == number]
        found = two_view_pose(part, focal_px, threshold_px)
        if found is None:
            continue
        direction, rotation = found
        origin = part.origins_m[0]
        yield from ((origin + step * direction, rotation) for step in STEPS_M)
        across = np.eye(3) - np.outer(direction, direction)
        for other_origin, other_across in lines:
            # the point nearest to both lines; parallel ones leave the sum singular
            both = across + other_across
            if np.linalg.cond(both) < PARALLEL_CONDITION:
                yield np.linalg.solve(both, across @ origin + other_across @ other_origin), rotation
        lines.append((origin, across))
