"""Photographs seen against the points of other components: what two views could not tie, points do.

A façade that two photographs see from very different distances is a plane: two views leave two answers. Against
points whose places are known there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.pairs import MIN_SHARE, RATIO, Pair, Tagged, pinhole
from geowarp_ros.keypoints.matching import match
from geowarp_ros.progress import Progress

REPROJECTION_PX = 2.5
MIN_INLIERS = 12


@dataclass(frozen=True, slots=True)
class Bridge:
    """A photograph against the points of a component.

    Attributes:
        row: The photograph.
        component: Component of the points.
        position_m: (3,) its position by them.
        rotation: (3, 3) ``enu_from_camera``.
        pairs: Matches with photographs of the component.
        inliers: Number of points.
    """

    row: int
    component: int
    position_m: FloatArray
    rotation: FloatArray
    pairs: tuple[Pair, ...]
    inliers: int


@dataclass(frozen=True, slots=True)
class Known:
    """Points that are known so far, by keypoint.

    Attributes:
        component: (N,) component of each photograph; -1 where not tied.
        points: For each photograph, the keypoints that see a point (M,), and the points (M, 3).
    """

    component: NDArray[np.int32]
    points: Sequence[tuple[NDArray[np.int64], FloatArray]]


def find_bridges(
    photographs: Sequence[Tagged],
    rays: Sequence[FloatArray],
    candidates: Sequence[tuple[int, int]],
    known: Known,
    progress: Progress,
) -> list[Bridge]:
    """Look at photographs from components other than their own."""
    partners: Mapping[tuple[int, int], list[int]] = defaultdict(list)
    for a, b in candidates:
        of_a, of_b = int(known.component[a]), int(known.component[b])
        if of_a == of_b:
            continue
        for row, other, of in ((a, b, of_b), (b, a, of_a)):
            if of >= 0:
                partners[row, of].append(other)
    found = []
    for (row, of), others in progress(partners.items(), len(partners), "looking across photographs"):
        bridge = _look(photographs, rays, row, of, others, known)
        if bridge is not None:
            found.append(bridge)
    return found


def _look(
    photographs: Sequence[Tagged],
    rays: Sequence[FloatArray],
    row: int,
    of: int,
    others: Sequence[int],
    known: Known,
) -> Bridge | None:
    import poselib

    here = photographs[row]
    if here.camera is None:
        return None
    matched, points, whose = [], [], []
    for other in others:
        keypoints, seen = known.points[other]
        pairs = match(here.keypoints.descriptors, photographs[other].keypoints.descriptors[keypoints], RATIO)
        pairs = pairs[np.isfinite(rays[row][pairs[:, 0]]).all(axis=1)]
        matched.append(np.column_stack([pairs[:, 0], keypoints[pairs[:, 1]]]))
        points.append(seen[pairs[:, 1]])
        whose.append(np.full(len(pairs), other))
    both, where, who = np.concatenate(matched), np.concatenate(points), np.concatenate(whose)
    if len(np.unique(both[:, 0])) < MIN_INLIERS:
        return None
    pose, said = poselib.estimate_absolute_pose(
        rays[row][both[:, 0]] * here.camera.focal_px,
        where,
        pinhole(here.camera),
        {"max_reproj_error": REPROJECTION_PX, "max_iterations": 2000},
        {},
    )
    good = np.asarray(said["inliers"], bool)
    inliers, matches = len(np.unique(both[good, 0])), len(np.unique(both[:, 0]))
    if inliers < max(MIN_INLIERS, MIN_SHARE * matches):
        return None
    rotation = np.asarray(pose.R).T
    ties = []
    for other in np.unique(who[good]):
        joined = both[good & (who == other)].astype(np.int32)
        first, second = min(row, int(other)), max(row, int(other))
        ties.append(Pair(first, second, np.eye(3), np.zeros(3), 0.0, joined if first == row else joined[:, ::-1]))
    return Bridge(row, of, -rotation @ np.asarray(pose.t), rotation, tuple(ties), inliers)
