"""First estimates of a pose by sample consensus: PoseLib where it is installed, OpenCV elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from geowarp_ros.pose.sightings import Sightings
from geowarp_ros.types import FloatArray

Guess = tuple[FloatArray, FloatArray]
"""Position (3,) and ``enu_from_camera`` (3, 3)."""

MAX_ITERATIONS = 2000
"""Samples drawn: three points that all hold are found among 15 % of right matches with 99.9 % probability."""


@cache
def poselib() -> Any:
    """PoseLib; None where it is not installed: it has no wheels for aarch64."""
    try:
        import poselib as library
    except ImportError:
        return None
    return library


def absolute_pose(seen: Sightings, focal_px: float, threshold_px: float) -> Guess | None:
    """Estimate a pose from triangulated points.

    Lambda Twist in LO-RANSAC (PoseLib), or OpenCV's USAC (Ivashechkin et al., "USACv20", 2021).

    Args:
        seen: Matches with points.
        focal_px: From normalised coordinates to px.
        threshold_px: Maximum reprojection error of an inlier.
    """
    if len(seen) < 4:
        return None
    middle = seen.points_m.mean(axis=0)
    points, pixels = seen.points_m - middle, seen.rays * focal_px
    if (library := poselib()) is not None:
        found, info = library.estimate_absolute_pose(
            pixels, points, _pinhole(focal_px), _options("max_reproj_error", threshold_px), {"max_iterations": 10}
        )
        return None if info["num_inliers"] < 4 else _guess(found.R, found.t, middle)
    cv2.setRNGSeed(0)
    parameters = cv2.UsacParams()
    parameters.threshold, parameters.maxIterations, parameters.confidence = threshold_px, MAX_ITERATIONS, 0.999
    parameters.sampler, parameters.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MSAC
    parameters.loMethod, parameters.loIterations, parameters.loSampleSize = cv2.LOCAL_OPTIM_INNER_LO, 10, 12
    matrix = np.diag([focal_px, focal_px, 1.0])
    try:
        good, _, vector, shift, _ = cv2.solvePnPRansac(points, pixels, matrix, None, params=parameters)
    except cv2.error:  # a sample of points on one line
        return None
    if not good or not np.isfinite(vector).all() or not np.isfinite(shift).all():
        return None
    return _guess(cv2.Rodrigues(vector)[0], shift.ravel(), middle)


def rig_pose(seen: Sightings, focal_px: float, threshold_px: float) -> Guess | None:
    """Estimate a pose from rays of several photographs (generalised relative pose; PoseLib only).

    PoseLib's samples are five matches of one photograph and one of another. Where no photograph has five, or all
    matches are of one, it draws for ever.
    """
    library = poselib()
    counts = np.unique(seen.photograph, return_counts=True)[1]
    if library is None or len(counts) < 2 or counts.max() < 5:
        return None
    middle = seen.origins_m.mean(axis=0)
    pairs, poses = [], []
    for slot, number in enumerate(np.unique(seen.photograph)):
        mine = seen[seen.photograph == number]
        camera_from_enu = mine.axes[0].T
        pose = library.CameraPose()
        pose.R, pose.t = camera_from_enu, -camera_from_enu @ (mine.origins_m[0] - middle)
        poses.append(pose)
        pair = library.PairwiseMatches()
        pair.cam_id1, pair.cam_id2 = slot, 0
        pair.x1, pair.x2 = mine.rays_p * focal_px, mine.rays * focal_px
        pairs.append(pair)
    camera, options = _pinhole(focal_px), _options("max_epipolar_error", threshold_px / 2)
    found, _ = library.estimate_generalized_relative_pose(
        pairs, poses, [camera] * len(poses), [library.CameraPose()], [camera], options, {"max_iterations": 10}
    )
    return _guess(found.R, found.t, middle) if np.isfinite(found.t).all() else None


def two_view_pose(part: Sightings, focal_px: float, threshold_px: float) -> Guess | None:
    """Estimate rotation and direction by one photograph alone (essential matrix, Nistér, PAMI 2004; USAC).

    Returns:
        Unit vector (3,) from the photograph to the query in ENU, and ``enu_from_camera`` of the query.
    """
    if len(part) < 8:
        return None
    cv2.setRNGSeed(0)
    matrix, good = cv2.findEssentialMat(
        part.rays_p, part.rays, np.eye(3), cv2.USAC_MAGSAC, 0.999, threshold_px / focal_px / 2
    )
    if matrix is None or matrix.shape != (3, 3):
        return None
    _, rotation, shift, _ = cv2.recoverPose(matrix, part.rays_p, part.rays, np.eye(3), mask=good)
    return part.axes[0] @ (-rotation.T @ shift.ravel()), part.axes[0] @ rotation.T


def _pinhole(focal_px: float) -> dict[str, Any]:
    return {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal_px, 0.0, 0.0]}


def _options(name: str, threshold_px: float) -> dict[str, Any]:
    return {name: threshold_px, "max_iterations": MAX_ITERATIONS, "min_iterations": 100, "seed": 0}


def _guess(camera_from_enu: Any, shift: Any, middle: FloatArray) -> Guess:
    rotation = np.asarray(camera_from_enu, np.float64)
    return middle - rotation.T @ np.asarray(shift, np.float64), rotation.T
