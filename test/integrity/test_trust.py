"""Trust in poses against draws whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.config import PositionConfig
from geowarp_ros.integrity.calibration import Calibration
from geowarp_ros.integrity.trust import (
    NEES_95,
    POSE_FEATURES,
    UNCALIBRATED,
    PoseSample,
    PoseTrust,
    fit_trust,
    pose_row,
)
from geowarp_ros.position import decide
from geowarp_ros.types import Evidence, Pose, PoseMethod

EVIDENCE = Evidence(
    np.zeros((1, 2)), np.ones(1), np.ones(1, bool), 0.9, 0.3, 1.5, 0.6, 0.05, 0.1, 0.8, 40.0, 8.0
)  # fmt: skip


def pose_of(
    std_m: float = 0.05, near_m: float = 8.0, method: PoseMethod = "points", turn_deg: float = 0.2
) -> Pose:
    covariance = np.diag([std_m**2] * 3 + [math.radians(turn_deg) ** 2] * 3)
    return Pose(method, np.zeros(3), np.eye(3), covariance, 60, near_m, 3, 0.5, 0.6, 3.0)


def drawn(
    rng: np.random.Generator, right: bool, gain: float, floor_m: float, method: PoseMethod = "points"
) -> PoseSample:
    """A pose whose covariance is too small by a known gain and floor; wrong ones are far and uncertain."""
    std_m = float(np.exp(rng.normal(-3.0 if right else -0.5, 0.5)))
    near_m = float(np.exp(rng.normal(2.0 if right else 3.6, 0.3)))
    pose = pose_of(std_m, near_m, method)
    true_std = math.hypot(gain * std_m, floor_m)
    error = rng.normal(0, true_std, 2) if right else rng.normal(0, 1, 2) + 20.0
    turn = rng.normal(0, math.hypot(gain * 0.2, 0.3)) if right else 40.0
    return PoseSample(pose, EVIDENCE, error, turn)


def test_the_trust_finds_the_gain_and_the_floor_that_the_errors_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    samples = [drawn(rng, index % 3 > 0, 3.0, 0.1) for index in range(3000)]
    (method, trust), *others = fit_trust(samples).items()
    assert method == "points" and not others
    assert trust.position_gain == pytest.approx(3.0, rel=0.15)
    assert trust.position_floor_m == pytest.approx(0.1, rel=0.25)
    fresh = [drawn(rng, True, 3.0, 0.1) for _ in range(4000)]
    covariances = [trust.covariance(s.pose) for s in fresh]
    nees = [
        s.error_en_m @ np.linalg.solve(c[:2, :2], s.error_en_m) for s, c in zip(fresh, covariances, strict=True)
    ]
    assert np.mean(np.array(nees) <= NEES_95) == pytest.approx(0.95, abs=0.02)
    turned = [
        abs(s.heading_error_deg) <= 1.96 * math.degrees(math.sqrt(c[5, 5]))
        for s, c in zip(fresh, covariances, strict=True)
    ]
    assert np.mean(turned) == pytest.approx(0.95, abs=0.02)


def test_right_poses_are_told_from_wrong_ones_and_the_rate_is_kept() -> None:
    rng = np.random.default_rng(1)
    (trust,) = fit_trust([drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(1000)]).values()
    fresh = [drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(2000)]
    kept = [s for s in fresh if trust.confidence(s.pose, s.evidence) >= trust.min_confidence]
    assert sum(s.right for s in kept) > 0.9 * sum(s.right for s in fresh)
    assert sum(not s.right for s in kept) <= 0.005 * len(kept)


def test_what_is_not_trusted_but_enough_for_the_place_holds_the_rate_of_places() -> None:
    def overlapping(count: int, seed: int) -> list[PoseSample]:
        rng = np.random.default_rng(seed)
        found = [drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(count)]
        poses = [replace(s.pose, near_m=8.0, covariance=s.pose.covariance / (1 if s.right else 20)) for s in found]
        return [replace(s, pose=pose) for s, pose in zip(found, poses, strict=True)]

    (trust,) = fit_trust(overlapping(4000, 5), 0.02).values()
    assert trust.around_confidence < trust.min_confidence
    fresh = [(trust.confidence(s.pose, s.evidence), s) for s in overlapping(20_000, 6)]
    doubted = [s for p, s in fresh if trust.around_confidence <= p < trust.min_confidence]
    wrong = [s for s in doubted if np.hypot(*s.error_en_m) > 25.0]
    assert len(doubted) > 500 and 0 < len(wrong) <= 0.03 * len(doubted)


def test_each_method_has_its_own_trust_and_too_few_have_none() -> None:
    rng = np.random.default_rng(2)
    samples = [drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(100)]
    samples += [drawn(rng, index % 2 > 0, 8.0, 0.5, "anchors") for index in range(400)]
    fitted = fit_trust(samples)
    assert fitted["anchors"].position_gain > 2 * fitted["points"].position_gain
    assert set(fit_trust(samples[100:])) == {"anchors"}
    assert fit_trust(samples[:19]) == {}
    assert fit_trust([]) == {}


def test_the_covariance_is_scaled_by_block_and_stays_positive_definite() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(6, 6))
    own = root @ root.T * 1e-3
    pose = Pose("points", np.zeros(3), np.eye(3), own, 60, 8.0, 3, 0.5, 0.6, 3.0)
    trust = PoseTrust(
        features=(), mean=(), scale=(), weights=(), intercept=0.0, min_confidence=0.5,
        position_gain=3.0, position_floor_m=0.2, heading_gain=2.0, heading_floor_deg=1.0,
    )  # fmt: skip
    scaled = trust.covariance(pose)
    np.testing.assert_allclose(scaled[:3, :3], 9 * own[:3, :3] + 0.04 * np.eye(3))
    np.testing.assert_allclose(scaled[3:, 3:], 4 * own[3:, 3:] + math.radians(1.0) ** 2 * np.eye(3))
    np.testing.assert_allclose(scaled[:3, 3:], 6 * own[:3, 3:])
    assert np.linalg.eigvalsh(scaled).min() > 0


def test_the_rule_of_thumb_is_a_half_at_the_edge() -> None:
    def confidence(std_m: float, near_m: float) -> float:
        return UNCALIBRATED.confidence(pose_of(std_m, near_m), EVIDENCE)

    assert confidence(0.15, 25.0) == pytest.approx(0.5)
    assert confidence(0.05, 30.0) < 0.5 < confidence(0.05, 20.0)
    assert confidence(0.2, 5.0) < 0.5


def test_the_row_has_the_names_that_it_says() -> None:
    row = dict(zip(POSE_FEATURES, pose_row(pose_of(0.05, 8.0), EVIDENCE), strict=True))
    assert row["log_std"] == pytest.approx(math.log(0.05))
    assert row["log_near"] == pytest.approx(math.log(8.0))
    assert row["log_apart"] == pytest.approx(math.log1p(3.0))
    assert row["agreement"] == 0.9


def test_a_calibration_keeps_its_trust_in_poses() -> None:
    rng = np.random.default_rng(4)
    fitted = fit_trust([drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(100)])
    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=4.0, scatter_gain=1.0, correct_within_m=25.0, poses=fitted,
    )  # fmt: skip
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_a_method_that_was_not_fitted_is_not_trusted_beside_one_that_was() -> None:
    rng = np.random.default_rng(4)
    fitted = fit_trust([drawn(rng, index % 2 > 0, 2.0, 0.05) for index in range(100)])
    bare = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=4.0, scatter_gain=1.0, correct_within_m=25.0,
    )  # fmt: skip
    knows_points = bare.model_copy(update={"poses": fitted})
    for calibration, trusted in ((None, True), (bare, True), (knows_points, False)):
        decision = decide(EVIDENCE, pose_of(0.01, 3.0, "anchors"), PositionConfig(), calibration)
        assert (decision.pose is not None) == trusted
    points = decide(EVIDENCE, pose_of(0.01, 3.0, "points"), PositionConfig(), knows_points)
    assert points.pose is not None and points.fix
