from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from geowarp_ros.cameras import Camera
from geowarp_ros.config import PoseConfig
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import Matched
from geowarp_ros.pose import estimate_pose, solvers
from geowarp_ros.pose.refinement import PATCH_BIAS_PX, PATCH_PX
from geowarp_ros.pose.sightings import KEYPOINT_STD_PX
from geowarp_ros.types import Gravity
from test.pose.conftest import (
    CAMERA,
    TRACK,
    TRUE_POSITION,
    TRUE_ROTATION,
    Street,
    facade,
    pose_error,
)

CONFIG = PoseConfig()


@pytest.fixture(params=["poselib", "opencv"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "opencv":
        monkeypatch.setattr(solvers, "poselib", lambda: None)
    else:
        pytest.importorskip("poselib")
    return str(request.param)


def disturbed(keypoints: Keypoints, rng: np.random.Generator) -> Keypoints:
    """Shift the keypoints of each patch of the image together."""
    cell = np.floor(keypoints.points / PATCH_PX).astype(int)
    _, patch = np.unique(cell, axis=0, return_inverse=True)
    patch = patch.reshape(-1)
    shift = rng.normal(0, PATCH_BIAS_PX, (patch.max() + 1, 2))
    return Keypoints((keypoints.points + shift[patch]).astype(np.float32), keypoints.descriptors)


def test_exact_points_give_the_exact_pose(rng: np.random.Generator, solver: str) -> None:
    street = Street(facade(rng), rng, std_px=0.0)
    query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
    pose = estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG)
    assert pose is not None and pose.method == "points"
    assert np.abs(pose_error(pose)[:3]).max() < 2e-3  # keypoints are float32
    assert np.degrees(np.abs(pose_error(pose)[3:])).max() < 0.01
    ranges = np.linalg.norm(street.points_m[visible] - TRUE_POSITION, axis=1)
    assert pose.inliers <= len(visible) and pose.near_m == pytest.approx(np.percentile(ranges, 10), rel=0.1)
    nearest = min(np.linalg.norm(position - TRUE_POSITION) for position, _ in TRACK)
    assert pose.apart_m == pytest.approx(nearest, abs=0.01)


def test_a_network_matches_where_descriptors_say_nothing(rng: np.random.Generator) -> None:
    """The pairs that it found, right ones here, are all that is used of the matching."""
    street = Street(facade(rng), rng, std_px=0.0)
    query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
    photographs = street.photographs(TRACK)
    query = Keypoints(query.points, rng.integers(0, 256, query.descriptors.shape).astype(np.uint8))
    assert estimate_pose(query, CAMERA, photographs, CONFIG) is None
    found = {}
    for photograph, taken_at in zip(photographs, TRACK, strict=True):
        _, seen = street.seen(*taken_at)
        _, q, p = np.intersect1d(visible, seen, return_indices=True)
        found[photograph.row] = Matched(np.column_stack([q, p]), photograph.part)
    pose = estimate_pose(query, CAMERA, photographs, CONFIG, compared=lambda photograph: found[photograph.row])
    assert pose is not None and np.abs(pose_error(pose)[:3]).max() < 2e-3  # keypoints are float32


@pytest.mark.parametrize("camera", [
    CAMERA,
    Camera(320, 240, 190.0, 195.0, 150.0, 125.0, "plumb_bob", (-0.28, 0.09, 0.001, -0.0005, 0.0)),
    Camera(320, 240, 140.0, 140.0, 159.5, 119.5, "equidistant", (0.01, -0.004, 0.0, 0.0)),
])  # fmt: skip
def test_normalised_errors_are_chi_squared(camera: Camera) -> None:
    """With noise as assumed, own and shared by a patch, NEES has the mean and spread of chi-squared(6)."""
    nees = []
    for draw in range(60):
        rng = np.random.default_rng(draw)
        street = Street(facade(rng, 150), rng, std_px=KEYPOINT_STD_PX)
        photographs = street.photographs(TRACK, camera)
        query = disturbed(street.seen(TRUE_POSITION, TRUE_ROTATION, camera)[0], rng)
        pose = estimate_pose(query, camera, photographs, CONFIG)
        assert pose is not None
        error = pose_error(pose)
        nees.append(float(error @ np.linalg.solve(pose.covariance, error)))
    # the mean of 60 draws of chi-squared(6) has a standard deviation of 0.45
    assert 4.6 < np.mean(nees) < 7.4
    assert np.mean(np.array(nees) < chi2.ppf(0.95, 6)) > 0.86


def test_poselib_and_opencv_agree(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("poselib")
    street = Street(facade(rng), rng)
    photographs = street.photographs(TRACK)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    with_poselib = estimate_pose(query, CAMERA, photographs, CONFIG)
    monkeypatch.setattr(solvers, "poselib", lambda: None)
    with_opencv = estimate_pose(query, CAMERA, photographs, CONFIG)
    assert with_poselib is not None and with_opencv is not None
    apart = pose_error(with_opencv, np.asarray(with_poselib.position_m), np.asarray(with_poselib.rotation))
    # the last stage is the same: only inliers at the edge may differ
    assert apart @ np.linalg.solve(with_poselib.covariance, apart) < 0.5


def test_false_matches_are_found_out(rng: np.random.Generator, solver: str) -> None:
    street = Street(facade(rng), rng)
    photographs = street.photographs(TRACK)
    query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
    points, wrong = query.points.copy(), rng.uniform(size=len(visible)) < 0.6
    points[wrong] = rng.uniform((0, 0), (320, 240), (wrong.sum(), 2))
    pose = estimate_pose(Keypoints(points, query.descriptors), CAMERA, photographs, CONFIG)
    assert pose is not None
    error = pose_error(pose)
    assert error @ np.linalg.solve(pose.covariance, error) < chi2.ppf(0.999, 6)


def test_matches_that_are_all_false_give_none(solver: str) -> None:
    for draw in range(20):
        rng = np.random.default_rng(draw)
        street = Street(facade(rng), rng)
        photographs = street.photographs(TRACK)
        query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
        anywhere = rng.uniform((0, 0), (320, 240), (len(visible), 2)).astype(np.float32)
        assert estimate_pose(Keypoints(anywhere, query.descriptors), CAMERA, photographs, CONFIG) is None


def test_photographs_off_by_a_common_error_widen_the_covariance(rng: np.random.Generator) -> None:
    street = Street(facade(rng), rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    photographs = street.photographs(TRACK)
    loose = [replace(photograph, position_std_m=0.3, heading_std_rad=0.02) for photograph in photographs]
    exact, wide = (estimate_pose(query, CAMERA, of, CONFIG) for of in (photographs, loose))
    assert exact is not None and wide is not None
    gained = wide.covariance - exact.covariance
    assert np.allclose(np.diag(gained), [0.09, 0.09, 0.09, 0, 0, 0.0004], atol=1e-6)


def test_gravity_narrows_roll_and_pitch(rng: np.random.Generator) -> None:
    street = Street(facade(rng, 60), rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    photographs = street.photographs(TRACK)
    gravity = Gravity(TRUE_ROTATION.T @ (0.0, 0.0, 1.0), 1e-4)
    free, held = (estimate_pose(query, CAMERA, photographs, CONFIG, gravity=prior) for prior in (None, gravity))
    assert free is not None and held is not None
    assert np.abs(pose_error(held)[3:5]).max() < 5e-4
    assert held.covariance[3, 3] < free.covariance[3, 3] / 4


def test_the_covariance_is_symmetric_and_positive(rng: np.random.Generator) -> None:
    street = Street(facade(rng), rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    pose = estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG)
    assert pose is not None and (pose.covariance == pose.covariance.T).all()
    assert np.linalg.eigvalsh(pose.covariance)[0] > 0


def on_a_line(rng: np.random.Generator) -> Any:
    return np.array([0.0, 10.0, 2.0]) + rng.uniform(-6, 10, 200)[:, None] * (1.0, 0.05, 0.1)


def on_one_spot(rng: np.random.Generator) -> Any:
    return np.array([3.0, 10.0, 2.0]) + rng.normal(0, 0.02, (200, 3))


def on_a_car(rng: np.random.Generator) -> Any:
    return np.array([4.0, 12.0, 1.0]) + rng.uniform(-0.5, 0.5, (200, 3)) * (2.0, 0.5, 1.0)


def far_away(rng: np.random.Generator) -> Any:
    return np.column_stack([rng.uniform(-600, 600, 300), rng.uniform(900, 1200, 300), rng.uniform(-200, 500, 300)])


@pytest.mark.parametrize("points", [on_a_line, on_one_spot, on_a_car, far_away])
def test_points_that_do_not_determine_a_pose_give_none(points: Any, rng: np.random.Generator, solver: str) -> None:
    street = Street(points(rng), rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    assert len(query) >= 50
    assert estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG) is None


def test_points_in_one_plane_give_a_pose(rng: np.random.Generator, solver: str) -> None:
    points = facade(rng)
    points[:, 1] = 10.0
    street = Street(points, rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    pose = estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG)
    assert pose is not None
    error = pose_error(pose)
    assert error @ np.linalg.solve(pose.covariance, error) < chi2.ppf(0.999, 6)


def test_a_view_of_other_places_gives_none(rng: np.random.Generator, solver: str) -> None:
    street, elsewhere = Street(facade(rng), rng), Street(facade(rng), rng)
    query, _ = elsewhere.seen(TRUE_POSITION, TRUE_ROTATION)
    assert estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG) is None


def test_what_is_missing_gives_none(rng: np.random.Generator) -> None:
    street = Street(facade(rng), rng)
    photographs = street.photographs(TRACK)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    untied = [replace(photograph, rotation=np.full((3, 3), np.nan)) for photograph in photographs]
    empty = Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    few = Keypoints(query.points[:5], query.descriptors[:5])
    assert estimate_pose(query, None, photographs, CONFIG) is None
    assert estimate_pose(query, CAMERA, [], CONFIG) is None
    assert estimate_pose(query, CAMERA, untied, CONFIG) is None
    assert estimate_pose(empty, CAMERA, photographs, CONFIG) is None
    assert estimate_pose(few, CAMERA, photographs, CONFIG) is None


def test_keypoints_without_a_ray_are_left_out(rng: np.random.Generator) -> None:
    """At the edge of a fisheye's image there are none."""
    fisheye = Camera(320, 240, 80.0, 80.0, 159.5, 119.5, "equidistant")
    street = Street(facade(rng), rng)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION, fisheye)
    corner = Keypoints(
        np.vstack([query.points, np.zeros((40, 2), np.float32)]),
        np.vstack([query.descriptors, street.descriptors[:40]]),
    )
    assert np.isnan(fisheye.normalised(corner.points)[-1]).all()
    photographs = street.photographs(TRACK, fisheye)
    pose, without = (estimate_pose(of, fisheye, photographs, CONFIG) for of in (corner, query))
    assert pose is not None and without is not None
    assert np.allclose(pose.position_m, without.position_m) and pose.inliers == without.inliers


def test_duplicates_are_no_further_evidence(rng: np.random.Generator) -> None:
    street = Street(facade(rng), rng)
    photographs = street.photographs(TRACK)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    once = estimate_pose(query, CAMERA, photographs, CONFIG)
    twice = estimate_pose(query, CAMERA, photographs * 2, CONFIG)
    assert once is not None and twice is not None
    assert twice.inliers == once.inliers
    assert twice.std_m > 0.9 * once.std_m
