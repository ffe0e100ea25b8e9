"""Position from candidates, against hand-worked values and simulated draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geowarp_ros.config import PositionConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import Calibration
from geowarp_ros.integrity.evidence import SHARPNESS, candidate_weights, gather_evidence
from geowarp_ros.integrity.trust import PoseTrust
from geowarp_ros.position import CONVINCING_INLIERS, UNCONTRASTED, Decision, Doubted, around_pose
from geowarp_ros.position import estimate_position as estimate
from geowarp_ros.types import Candidate, Fix, NoFix, Place, Pose

FRAME = LocalFrame(55.7, 13.2)


def estimate_position(
    candidates: list[Candidate], config: PositionConfig, calibration: Calibration | None = None
) -> Fix | NoFix:
    evidence = gather_evidence(candidates, config.cluster_radius_m) if candidates else None
    return estimate(candidates, evidence, None, FRAME, config, calibration)


def candidate(east: float, north: float, distance: float, altitude: float = math.nan, index: int = 0) -> Candidate:
    latitude, longitude, _ = FRAME.to_geodetic(np.array([[east, north, 0.0]]))
    place = Place(f"{index}.jpg", float(latitude[0]), float(longitude[0]), altitude)
    return Candidate(index, place, distance)


def east_north(fix: Fix) -> NDArray[Any]:
    return FRAME.to_enu(np.array([fix.latitude_deg]), np.array([fix.longitude_deg]), np.zeros(1))[0, :2]


def test_weights_depend_on_ratios_of_distances() -> None:
    weights = candidate_weights(np.array([0.2, 0.3, 0.4]))
    assert weights == pytest.approx([1.0, math.exp(-SHARPNESS * 0.5), math.exp(-SHARPNESS)])
    assert candidate_weights(np.array([20.0, 30.0, 40.0])) == pytest.approx(weights)


def test_an_identical_image_keeps_its_weight() -> None:
    assert candidate_weights(np.array([0.0, 0.1])) == pytest.approx([1.0, 0.0])
    assert candidate_weights(np.array([0.0, 0.1])).min() > 0


def test_cluster_is_the_weighted_mean_of_what_agrees() -> None:
    # two equally near candidates 6 m apart agree, the third lies 100 m away with weight exp(-10)
    candidates = [candidate(0, 0, 1.0), candidate(6, 0, 1.0), candidate(100, 0, 2.0)]
    fix = estimate_position(candidates, PositionConfig(position_std_m=2.0))
    assert isinstance(fix, Fix)
    assert east_north(fix) == pytest.approx([3.0, 0.0], abs=1e-3)
    # scatter of ±3 m about the mean is 9 m², plus 2² of the floor
    assert fix.covariance[0, 0] == pytest.approx(13.0, abs=1e-2)
    assert fix.covariance[1, 1] == pytest.approx(4.0, abs=1e-2)
    assert fix.confidence == pytest.approx(2 / (2 + math.exp(-10)), abs=1e-9)


def test_best_is_the_first_candidates_position() -> None:
    candidates = [candidate(0, 0, 1.0), candidate(6, 0, 1.0), candidate(100, 0, 2.0)]
    fix = estimate_position(candidates, PositionConfig(estimate="best", position_std_m=2.0))
    assert isinstance(fix, Fix)
    assert east_north(fix) == pytest.approx([0.0, 0.0], abs=1e-3)
    # the second candidate lies 6 m off with half of the weight: 18 m², plus the floor
    assert fix.covariance[0, 0] == pytest.approx(22.0, abs=1e-2)


def test_rank_decides_which_place_is_best_not_distance() -> None:
    candidates = [candidate(50, 0, 1.02), candidate(0, 0, 1.0)]
    fix = estimate_position(candidates, PositionConfig(min_confidence=0.0))
    assert isinstance(fix, Fix)
    assert east_north(fix) == pytest.approx([50.0, 0.0], abs=1e-2)


def test_no_candidates_is_an_empty_gallery() -> None:
    answer = estimate_position([], PositionConfig())
    assert isinstance(answer, NoFix)
    assert answer.reason == "empty_gallery"


def test_scattered_candidates_disagree() -> None:
    candidates = [candidate(100.0 * i, 0, 1.0 + 0.001 * i) for i in range(10)]
    answer = estimate_position(candidates, PositionConfig())
    assert isinstance(answer, NoFix)
    assert answer.reason == "disagreement"
    assert answer.confidence < 0.12
    assert "0.1" in answer.detail


def test_a_single_place_is_neither_certain_nor_refused_by_default() -> None:
    fix = estimate_position([candidate(0, 0, 1.0)], PositionConfig())
    assert isinstance(fix, Fix)
    assert fix.confidence == UNCONTRASTED
    answer = estimate_position([candidate(0, 0, 1.0)], PositionConfig(min_confidence=0.6))
    assert isinstance(answer, NoFix)
    assert answer.reason == "low_confidence"


def test_altitude_only_where_every_agreeing_place_knows_it() -> None:
    known = [candidate(0, 0, 1.0, 10.0), candidate(1, 0, 1.0, 14.0)]
    fix = estimate_position(known, PositionConfig(position_std_m=1.0))
    assert isinstance(fix, Fix)
    assert fix.altitude_m == pytest.approx(12.0)
    assert fix.covariance[2, 2] == pytest.approx(4.0 + 1.0)
    partly = [candidate(0, 0, 1.0, 10.0), candidate(1, 0, 1.0)]
    fix = estimate_position(partly, PositionConfig())
    assert isinstance(fix, Fix)
    assert fix.altitude_m == 0.0
    assert fix.covariance[2, 2] == pytest.approx(1000.0**2)


@given(
    st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.floats(0, 4)), min_size=1, max_size=20),
    st.sampled_from(["best", "cluster"]),
)
def test_covariance_is_symmetric_positive_definite(rows: list[tuple[float, float, float]], estimate: str) -> None:
    candidates = [candidate(*row, index=i) for i, row in enumerate(rows)]
    answer = estimate_position(
        candidates, PositionConfig.model_validate({"estimate": estimate, "min_confidence": 0})
    )
    assert isinstance(answer, Fix)
    assert answer.covariance == pytest.approx(answer.covariance.T)
    assert np.linalg.eigvalsh(answer.covariance).min() >= 5.0**2 - 1e-6
    assert 0.0 <= answer.confidence <= 1.0


def test_covariance_is_consistent_where_its_model_holds() -> None:
    # truth scattered with the floor's standard deviation about a gallery place: NEES of two dimensions averages 2
    rng = np.random.default_rng(0)
    fix = estimate_position([candidate(0, 0, 1.0), candidate(900, 0, 3.0)], PositionConfig(position_std_m=4.0))
    assert isinstance(fix, Fix)
    errors = rng.normal(0, 4.0, (4000, 2))
    nees = np.einsum("ni,ij,nj->n", errors, np.linalg.inv(fix.covariance[:2, :2]), errors)
    assert nees.mean() == pytest.approx(2.0, abs=0.15)


def verified(east: float, distance: float, inliers: int | None) -> Candidate:
    return replace(candidate(east, 0, distance), inliers=inliers)


def test_uncalibrated_confidence_is_the_share_of_the_inliers() -> None:
    fix = estimate_position([verified(0, 1.0, 60), verified(80, 1.0, 20), verified(90, 1.0, 4)], PositionConfig())
    assert isinstance(fix, Fix)
    assert fix.confidence == pytest.approx(60 / (60 + 20 + CONVINCING_INLIERS))


def test_few_points_that_agree_are_no_fix_and_the_detail_says_how_many() -> None:
    answer = estimate_position([verified(0, 1.0, 12), verified(80, 3.0, 7)], PositionConfig())
    assert isinstance(answer, NoFix)
    assert answer.reason == "low_confidence"
    assert "12 points agree and 7 elsewhere" in answer.detail


def test_as_many_points_elsewhere_are_no_fix() -> None:
    answer = estimate_position([verified(0, 1.0, 90), verified(500, 1.0, 88)], PositionConfig())
    assert isinstance(answer, NoFix)


def test_evidence_that_a_calibration_counts_on_and_nobody_measured_gives_no_fix() -> None:
    calibration = Calibration(
        features=("log_inliers",), mean=(3.0,), scale=(1.0,), weights=(1.0,), intercept=0.0,
        min_confidence=0.3, position_std_m=4.0, scatter_gain=0.0, correct_within_m=25.0,
    )  # fmt: skip
    fix = estimate_position([verified(0, 1.0, 60)], PositionConfig(), calibration)
    assert isinstance(fix, Fix)
    assert fix.confidence == pytest.approx(1 / (1 + math.exp(-(math.log(61) - 3.0))))
    assert fix.covariance[:2, :2] == pytest.approx(16.0 * np.eye(2))
    unknown = estimate_position([verified(0, 1.0, None)], PositionConfig(), calibration)
    assert isinstance(unknown, NoFix) and unknown.confidence == 0.0


# ---- poses

NORTH_LEVEL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""``enu_from_camera`` of a level camera that looks north."""


def pose_of(std_m: float, near_m: float = 8.0) -> Pose:
    covariance = np.diag([std_m**2] * 3 + [math.radians(0.2) ** 2] * 3)
    return Pose("points", np.array([30.0, 40.0, 1.5]), NORTH_LEVEL, covariance, 60, near_m, 3, 0.5, 0.6, 3.0, 40.0)


def test_a_trusted_pose_is_the_fix_and_another_leaves_the_cluster() -> None:
    candidates = [candidate(0, 0, 1.0, index=0), candidate(300, 0, 5.0, index=1)]
    evidence = gather_evidence(candidates, 10.0)

    def fix_with(pose: Pose | None, min_confidence: float = -1.0) -> Fix:
        fix = estimate(candidates, evidence, pose, FRAME, PositionConfig(min_confidence=min_confidence))
        assert isinstance(fix, Fix)
        return fix

    trusted = fix_with(pose_of(0.05))
    assert east_north(trusted) == pytest.approx([30.0, 40.0], abs=1e-3)
    assert trusted.method == "points" and trusted.heading_deg % 360 == pytest.approx(0.0, abs=0.01)
    assert trusted.altitude_m == pytest.approx(1.5, abs=0.01)
    # by the rule of thumb: four times the estimate's own standard deviation, and 0.1 m
    assert np.diag(trusted.covariance) == pytest.approx([16 * 0.05**2 + 0.1**2] * 3, rel=1e-6)
    for doubtful in (pose_of(0.3), pose_of(0.05, near_m=60.0)):
        cluster = fix_with(doubtful)
        assert (cluster.method, cluster.orientation) == ("cluster", None)
        assert east_north(cluster) == pytest.approx(east_north(fix_with(None)))
    # whoever asks for every position gets the pose
    assert fix_with(pose_of(0.3), 0.0).method == "points"


def test_a_pose_does_not_make_a_fix_of_what_nobody_trusts() -> None:
    candidates = [candidate(0, 0, 1.0, index=0), candidate(300, 0, 1.0, index=1), candidate(600, 0, 1.0, index=2)]
    evidence = gather_evidence(candidates, 10.0)
    refused = estimate(candidates, evidence, pose_of(0.3), FRAME, PositionConfig())
    assert isinstance(refused, NoFix) and refused.reason == "disagreement"
    assert refused == estimate(candidates, evidence, None, FRAME, PositionConfig())


def trust(probability: float, around: float = 1.0) -> PoseTrust:
    """As probable whatever the pose; nothing less than 0.99 is trusted."""
    return PoseTrust(
        features=(), mean=(), scale=(), weights=(), intercept=math.log(probability / (1 - probability)),
        min_confidence=0.99, around_confidence=around,
        position_gain=2.0, position_floor_m=0.0, heading_gain=1.0, heading_floor_deg=0.0,
    )  # fmt: skip


def test_photographs_are_drawn_to_a_pose_within_their_ellipse() -> None:
    doubted = Doubted(pose_of(0.1), 0.04 * np.eye(6), 0.75, 0.7)
    for confidence, said in ((0.95, 0.95), (0.6, 0.75)):  # a fix by itself, and one by the pose
        decision = Decision(None, None, confidence, 0.9, doubted)
        found = around_pose(decision, np.array([4.0, 0.0]), 16.0 * np.eye(2))
        assert found.offset_m == pytest.approx([3.0, 0.0])
        # 0.75 · 0.04 + 0.25 · 16, and 0.75 · 0.25 · 4² along the line between the two
        assert found.covariance == pytest.approx(np.diag([4.03 + 3.0, 4.03]))
        assert (found.confidence, found.fix) == (said, True)
        for outside in ([10.0, 0.0], [math.nan, math.nan]):  # 10 m are 2.5 standard deviations
            kept = around_pose(decision, np.array(outside), 16.0 * np.eye(2))
            assert kept.offset_m.tolist() == [0.0, 0.0] and kept.covariance.tolist() == [[16.0, 0.0], [0.0, 16.0]]
            assert (kept.confidence, kept.fix) == (confidence, confidence > 0.9)
    improbable = replace(decision, doubted=replace(doubted, wanted=0.8))
    assert not around_pose(improbable, np.array([4.0, 0.0]), 16.0 * np.eye(2)).fix


def test_what_a_mixture_claims_is_what_draws_show() -> None:
    rng = np.random.default_rng(0)
    pose_m, covariance = np.array([3.0, -4.0]), np.array([[9.0, 2.0], [2.0, 7.0]])
    doubted = Doubted(pose_of(0.1), np.diag([0.3, 0.2, 1.0, 1.0, 1.0, 1.0]), 0.8, 1.0)
    right = rng.random(200_000) < 0.8
    of_pose = rng.multivariate_normal(pose_m, doubted.covariance[:2, :2], len(right))
    of_photographs = rng.multivariate_normal([0.0, 0.0], covariance, len(right))
    draws = np.where(right[:, None], of_pose, of_photographs)
    found = around_pose(Decision(None, None, 0.9, 0.5, doubted), pose_m, covariance)
    assert found.offset_m == pytest.approx(draws.mean(axis=0), abs=0.02)
    assert found.covariance == pytest.approx(np.cov(draws.T), abs=0.05)


def test_a_doubted_pose_draws_a_calibrated_fix_but_gives_it_no_heading() -> None:
    candidates = [candidate(27.0, 38.0, 1.0, index=0), candidate(300.0, 0.0, 5.0, index=1)]
    evidence = gather_evidence(candidates, 10.0)

    def said_with(pose: Pose | None, judged: dict[str, PoseTrust], wanted: float = 0.9) -> Fix | NoFix:
        calibration = Calibration(
            features=(), mean=(), scale=(), weights=(), intercept=3.0, min_confidence=wanted,
            position_std_m=4.0, scatter_gain=1.0, correct_within_m=25.0, poses=judged,
        )  # fmt: skip
        return estimate(candidates, evidence, pose, FRAME, PositionConfig(), calibration)

    def fix_with(pose: Pose | None, judged: dict[str, PoseTrust], wanted: float = 0.9) -> Fix:
        fix = said_with(pose, judged, wanted)
        assert isinstance(fix, Fix) and fix.method == ("points" if fix.orientation else "cluster")
        return fix

    alone, trusted = fix_with(None, {}), fix_with(pose_of(0.3), {"points": trust(0.995)})
    assert east_north(alone) == pytest.approx([27.0, 38.0], abs=1e-3) and trusted.method == "points"
    drawn = fix_with(pose_of(0.3), {"points": trust(0.9)})
    assert east_north(drawn) == pytest.approx([27.0 + 0.9 * 3.0, 38.0 + 0.9 * 2.0], abs=1e-2)
    assert drawn.confidence == alone.confidence and drawn.std_m < alone.std_m
    # not where nothing was measured of such poses
    assert east_north(fix_with(pose_of(0.3), {"anchors": trust(0.9)})) == pytest.approx(east_north(alone))
    # photographs that do not convince by themselves: only around a pose that is probable enough
    assert isinstance(said_with(pose_of(0.3), {"points": trust(0.9)}, 0.99), NoFix)
    by_pose = fix_with(pose_of(0.3), {"points": trust(0.9, around=0.85)}, 0.99)
    assert by_pose.confidence == pytest.approx(0.9) and by_pose.orientation is None
    assert (by_pose.latitude_deg, by_pose.longitude_deg) == (drawn.latitude_deg, drawn.longitude_deg)
