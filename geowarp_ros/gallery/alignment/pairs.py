"""Which photographs see the same, and how they stand to one another: two views with known cameras.

Convention:
    ``rotation`` is ``second_from_first``; ``direction`` is the second camera's position in the first's optical
    frame, of unit length: two views do not say how far.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geowarp_ros.cameras import Camera
from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import match
from geowarp_ros.progress import Progress

RATIO = 0.8
EPIPOLAR_PX = 1.5
"""Maximum epipolar error of an inlier (px at working resolution)."""
MIN_INLIERS = 15
MIN_SHARE = 0.25
"""Minimum share of the matches that are inliers: matches by chance obey some geometry too, a fifth of them."""
MIN_PARALLAX_RAD = math.radians(0.7)
"""Minimum median angle between the two rays of an inlier for its pair to say anything about directions."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A photograph as it comes: its tag, its camera, its keypoints.

    Attributes:
        position_m: (3,) the tag, ENU; NaN as its third: no altitude.
        heading_deg: Compass heading of the optical axis; NaN where unknown.
        camera: Intrinsics for the image at working resolution; None where unknown: it is not tied.
        keypoints: Its keypoints.
        size: Width and height of the image at working resolution; None where its camera is known.
        lens: Which unknown focal length it has, of which its camera is a first guess; -1: its camera is known.
    """

    position_m: FloatArray
    heading_deg: float
    camera: Camera | None
    keypoints: Keypoints
    size: tuple[int, int] | None = None
    lens: int = -1


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs compared; without inliers: they do not see the same.

    Attributes:
        first: Row of the first photograph.
        second: Row of the second, above ``first``.
        rotation: (3, 3) ``second_from_first``.
        direction: (3,) unit vector to the second camera in the first's frame.
        parallax_rad: Median angle between the two rays of an inlier, rotations taken out.
        matches: (M, 2) int32 keypoints of first and second that obey them; M is 0 where they do not see the same.
        share: Share of all matches that these are.
    """

    first: int
    second: int
    rotation: FloatArray
    direction: FloatArray
    parallax_rad: float
    matches: NDArray[np.int32]
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.matches)


Compared = MutableMapping[tuple[int, int], Pair]
"""Pairs compared by now, by their rows: what a killed or an earlier run left is not compared again."""


def candidate_pairs(
    positions_m: FloatArray, headings_deg: FloatArray, views_rad: FloatArray, neighbours: int, slack_deg: float
) -> list[tuple[int, int]]:
    """Return pairs of photographs that may see the same: the nearest, if their headings do not forbid it.

    Args:
        positions_m: (N, 2) tags.
        headings_deg: (N,) headings, NaN where unknown.
        views_rad: (N,) angle of view; NaN leaves a photograph out.
        neighbours: Number of nearest photographs that each is compared with.
        slack_deg: By how much a difference of headings may exceed the angle of view.

    Returns:
        Rows (first, second), first < second, ascending.
    """
    usable = np.flatnonzero(np.isfinite(views_rad))
    if len(usable) < 2:
        return []
    _, near = cKDTree(positions_m[usable]).query(positions_m[usable], k=min(neighbours + 1, len(usable)))
    first, second = usable[np.repeat(np.arange(len(usable)), near.shape[1])], usable[near.ravel()]
    apart = np.abs((headings_deg[first] - headings_deg[second] + 180) % 360 - 180)
    limit = np.degrees(np.maximum(views_rad[first], views_rad[second])) + slack_deg
    kept = (first != second) & ~(apart > limit)
    return sorted({(int(min(a, b)), int(max(a, b))) for a, b in zip(first[kept], second[kept], strict=True)})


def compare(
    photographs: Sequence[Tagged],
    rays: Sequence[FloatArray],
    candidates: Sequence[tuple[int, int]],
    compared: Compared,
    progress: Progress,
) -> list[Pair]:
    """Compare candidate pairs, in threads; returns those that see the same, and notes all in ``compared``."""
    missing = [rows for rows in candidates if rows not in compared]
    for pair in progress(_compared(photographs, rays, missing), len(missing), "comparing photographs in pairs"):
        compared[pair.first, pair.second] = pair
    return [compared[rows] for rows in candidates if len(compared[rows])]


def _compared(
    photographs: Sequence[Tagged], rays: Sequence[FloatArray], rows: Iterable[tuple[int, int]]
) -> Iterator[Pair]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(lambda pair: relate(photographs, rays, *pair), rows)


def relate(
    photographs: Sequence[Tagged],
    rays: Sequence[FloatArray],
    first: int,
    second: int,
    known: NDArray[Any] | None = None,
) -> Pair:
    """Match two photographs, if their matches are not known, and estimate their relative pose.

    By five-point LO-RANSAC of PoseLib.
    """
    import poselib

    nothing = Pair(first, second, np.eye(3), np.zeros(3), 0.0, np.empty((0, 2), np.int32))
    a, b = photographs[first], photographs[second]
    if a.camera is None or b.camera is None:
        return nothing
    matches = match(a.keypoints.descriptors, b.keypoints.descriptors, RATIO) if known is None else known
    one, two = rays[first][matches[:, 0]], rays[second][matches[:, 1]]
    good = np.isfinite(one).all(axis=1) & np.isfinite(two).all(axis=1)
    matches, one, two = matches[good], one[good], two[good]
    if len(matches) < MIN_INLIERS:
        return nothing
    pose, said = poselib.estimate_relative_pose(
        one * a.camera.focal_px,
        two * b.camera.focal_px,
        pinhole(a.camera),
        pinhole(b.camera),
        {"max_epipolar_error": EPIPOLAR_PX, "max_iterations": 5000},
        {},
    )
    inliers = np.asarray(said["inliers"], bool)
    if inliers.sum() < max(MIN_INLIERS, MIN_SHARE * len(matches)):
        return nothing
    rotation, step = np.asarray(pose.R), np.asarray(pose.t)
    ahead = np.column_stack([one, np.ones(len(one))])[inliers] @ rotation.T
    angles = _angles(ahead, np.column_stack([two, np.ones(len(two))])[inliers])
    direction = -rotation.T @ step
    return Pair(
        first,
        second,
        rotation,
        direction / max(float(np.linalg.norm(direction)), 1e-12),
        float(np.median(angles)),
        matches[inliers].astype(np.int32),
        float(inliers.mean()),
    )


def pinhole(camera: Camera) -> dict[str, Any]:
    """Return what PoseLib calls a camera, for normalised coordinates times its focal length."""
    size = {"width": camera.width_px, "height": camera.height_px}
    return {"model": "SIMPLE_PINHOLE", **size, "params": [camera.focal_px, 0.0, 0.0]}


def _angles(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the angles (N,) between vectors (N, 3), rad."""
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(axis=1)))
