from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from geowarp_ros.config import PoseConfig
from geowarp_ros.pose import anchors, estimate_pose, solvers
from geowarp_ros.pose.sightings import KEYPOINT_STD_PX, Rays, sightings, together
from geowarp_ros.types import PoseMethod
from test.pose.conftest import CAMERA, TRACK, TRUE_POSITION, TRUE_ROTATION, Street, facade, looking, pose_error

CONFIG = PoseConfig()
POINTLESS = 0.0
FEW_POINTS = 0.04


@pytest.fixture(params=["poselib", "opencv"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "opencv":
        for module in (solvers, anchors):
            monkeypatch.setattr(module, "poselib", lambda: None)
    else:
        pytest.importorskip("poselib")
    return str(request.param)


@pytest.mark.parametrize("located", [POINTLESS, FEW_POINTS])
def test_rays_of_several_spots_give_a_pose(rng: np.random.Generator, solver: str, located: float) -> None:
    street = Street(facade(rng), rng, std_px=KEYPOINT_STD_PX, located=located)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    pose = estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG)
    assert pose is not None and pose.method == "anchors" and pose.photographs >= 2
    error = pose_error(pose)
    assert np.abs(error[:3]).max() < 0.3
    assert error @ np.linalg.solve(pose.covariance, error) < chi2.ppf(0.999, 6)


def test_a_rung_without_time_is_not_tried(rng: np.random.Generator) -> None:
    street = Street(facade(rng), rng, std_px=KEYPOINT_STD_PX, located=POINTLESS)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    asked: list[PoseMethod] = []

    def only_points(rung: PoseMethod) -> bool:
        asked.append(rung)
        return rung == "points"

    photographs = street.photographs(TRACK)
    assert estimate_pose(query, CAMERA, photographs, CONFIG, affords=only_points) is None
    assert asked == ["points", "anchors"]  # no point: only the second rung would have given the pose
    with_points = Street(facade(rng), rng)
    query, photographs = with_points.seen(TRUE_POSITION, TRUE_ROTATION)[0], with_points.photographs(TRACK)
    assert estimate_pose(query, CAMERA, photographs, CONFIG, affords=only_points) is not None
    assert estimate_pose(query, CAMERA, photographs, CONFIG, affords=lambda rung: False) is None


def test_without_noise_the_pose_is_exact(rng: np.random.Generator, solver: str) -> None:
    street = Street(facade(rng), rng, std_px=0.0, located=POINTLESS)
    query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
    pose = estimate_pose(query, CAMERA, street.photographs(TRACK), CONFIG)
    assert pose is not None and pose.method == "anchors"
    assert np.abs(pose_error(pose)[:3]).max() < 5e-3  # keypoints are float32
    ranges = np.linalg.norm(street.points_m[visible] - TRUE_POSITION, axis=1)
    assert pose.near_m == pytest.approx(np.percentile(ranges, 10), rel=0.15)


def test_normalised_errors_are_chi_squared() -> None:
    nees = []
    for draw in range(40):
        rng = np.random.default_rng(draw)
        street = Street(facade(rng, 200), rng, std_px=KEYPOINT_STD_PX, located=POINTLESS)
        pose = estimate_pose(
            street.seen(TRUE_POSITION, TRUE_ROTATION)[0], CAMERA, street.photographs(TRACK), CONFIG
        )
        assert pose is not None
        error = pose_error(pose)
        nees.append(float(error @ np.linalg.solve(pose.covariance, error)))
    # a keypoint seen by several photographs is several rays, whose common noise is counted apart
    assert 2.0 < np.mean(nees) < 9.0


@pytest.mark.parametrize("counts", [(4, 4, 4), (20,), ()])
def test_what_poselib_would_sample_for_ever_is_not_given_to_it(
    counts: tuple[int, ...], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        solvers, "poselib", lambda: SimpleNamespace()
    )  # whose functions are not there to be called
    street = Street(facade(rng), rng, located=POINTLESS)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    rays = Rays.of(query, CAMERA)
    seen = [sightings(query, rays, p, n, 0.8) for n, p in enumerate(street.photographs(TRACK))]
    few = together(
        [part[np.arange(count)] for part, count in zip(seen, counts, strict=False)] or [seen[0][np.arange(0)]]
    )
    assert solvers.rig_pose(few, CAMERA.focal_px, 4.0) is None


def one_spot() -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return [(np.array([2.0, 0.0, 1.5]), looking(heading)) for heading in (-20.0, 0.0, 20.0)]


def test_one_spot_gives_no_position(rng: np.random.Generator, solver: str) -> None:
    street = Street(facade(rng), rng, located=POINTLESS)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    assert estimate_pose(query, CAMERA, street.photographs(one_spot()), CONFIG) is None


def test_a_query_between_its_photographs_on_their_line_gives_no_position(
    rng: np.random.Generator, solver: str
) -> None:
    """Pure forward motion: all epipoles are one, and nothing tells how far along the line the query is."""
    ahead = np.column_stack([rng.uniform(-8, 8, 300), rng.uniform(10, 40, 300), rng.uniform(-2, 8, 300)])
    street = Street(ahead, rng, located=POINTLESS)
    track = [(np.array([0.0, north, 1.5]), looking(0.0)) for north in (-6.0, -2.0, 2.0)]
    position, rotation = np.array([0.0, 0.0, 1.5]), looking(0.0)
    query, _ = street.seen(position, rotation)
    pose = estimate_pose(query, CAMERA, street.photographs(track), CONFIG)
    if pose is not None:  # then what it says of the line is honest
        error = pose_error(pose, position, rotation)
        assert error @ np.linalg.solve(pose.covariance, error) < chi2.ppf(0.999, 6)


def test_rays_of_another_place_give_none(rng: np.random.Generator, solver: str) -> None:
    for _ in range(5):
        street, elsewhere = (Street(facade(rng), rng, located=POINTLESS) for _ in range(2))
        query, _ = elsewhere.seen(TRUE_POSITION, TRUE_ROTATION)
        elsewhere.descriptors = query.descriptors
        photographs = street.photographs(TRACK)
        assert estimate_pose(query, CAMERA, photographs, CONFIG) is None


def test_false_rays_give_none(solver: str) -> None:
    for draw in range(6):
        rng = np.random.default_rng(draw)
        street = Street(facade(rng), rng, located=POINTLESS)
        photographs = street.photographs(TRACK)
        query, visible = street.seen(TRUE_POSITION, TRUE_ROTATION)
        query.points[:] = rng.uniform((0, 0), (320, 240), (len(visible), 2))
        assert estimate_pose(query, CAMERA, photographs, CONFIG) is None


def test_with_and_without_poselib_the_answers_agree(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("poselib")
    street = Street(facade(rng), rng, located=FEW_POINTS)
    photographs = street.photographs(TRACK)
    query, _ = street.seen(TRUE_POSITION, TRUE_ROTATION)
    with_poselib = estimate_pose(query, CAMERA, photographs, CONFIG)
    for module in (solvers, anchors):
        monkeypatch.setattr(module, "poselib", lambda: None)
    without = estimate_pose(query, CAMERA, photographs, CONFIG)
    assert with_poselib is not None and without is not None
    apart = pose_error(without, np.asarray(with_poselib.position_m), np.asarray(with_poselib.rotation))
    assert apart @ np.linalg.solve(with_poselib.covariance, apart) < 0.5
