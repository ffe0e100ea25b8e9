"""When a pose can be trusted, and how far: its confidence, and the covariance that holds what it claims.

Numbers of inliers do not tell right from wrong: a façade that closes the street collects hundreds, and turning
looks like moving. The geometry does: the estimate's own covariance, and how near its inliers are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import Field

from geowarp_ros.attitude import enu_from_body_of, heading_std
from geowarp_ros.integrity.evidence import FEATURES, SIGNS, feature_row
from geowarp_ros.integrity.logistic import LEAST_OF_EACH, Logistic, fit_logistic, minimum_confidence
from geowarp_ros.integrity.widening import widening
from geowarp_ros.types import Evidence, FloatArray, Pose

NEES_95 = 5.991
"""NEES at the edge of the 95 % ellipse: chi-squared with 2 degrees of freedom."""

POSE_CORRECT_WITHIN_M = 5.0
"""Maximum horizontal error of a right pose, m."""

FALSE_POSE_RATE = 0.001
"""Wanted share of wrong poses among those published: ten times less than of clusters, as a pose claims more."""

RULE_STD_M, RULE_NEAR_M = 0.15, 25.0
"""Without a calibration a pose is trusted with a horizontal standard deviation below the first and with a tenth of
its inliers nearer than the second: of the poses of prototypes on 102 images of a town none such was wrong, but the
rule was read off those same images."""

POSE_FEATURES = (
    "log_std", "log_near", "log_pose_inliers", "log_photographs", "log_spread", "log_residual", "log_apart",
    "log_significance", *FEATURES,
)  # fmt: skip

POSE_SIGNS = {"log_std": -1, "log_near": -1, "log_photographs": 1, "log_spread": 1, "log_significance": 1, **SIGNS}
"""As :data:`geowarp_ros.integrity.evidence.SIGNS`. Numbers of inliers may speak for either."""


def pose_row(pose: Pose, evidence: Evidence) -> FloatArray:
    """A pose and its candidates' evidence as numbers in the order of :data:`POSE_FEATURES`; NaN if unknown."""
    own = [
        math.log(max(pose.fit_std_m, 1e-4)),
        math.log(max(pose.near_m, 1e-2)),
        math.log(max(pose.inliers, 1)),
        math.log(max(pose.photographs, 1)),
        math.log(max(pose.spread, 1e-4)),
        math.log(max(pose.residual_px, 1e-3)),
        math.log1p(pose.apart_m),
        math.log(max(pose.significance, 1.0)),
    ]
    return np.concatenate([own, feature_row(evidence)])


class PoseTrust(Logistic):
    """Logistic model of "this pose is right", and its covariance's correction."""

    around_confidence: float = Field(
        1.0, ge=0.0, le=1.0, description="Minimum confidence for the photographs around a pose to be a fix."
    )
    position_gain: float = Field(gt=0.0, description="Factor on the standard deviation of the position.")
    position_floor_m: float = Field(ge=0.0, description="Standard deviation added in quadrature (m).")
    heading_gain: float = Field(gt=0.0, description="Factor on the standard deviation of the rotation.")
    heading_floor_deg: float = Field(ge=0.0, description="Standard deviation added in quadrature (deg).")
    samples: int = Field(0, description="Number of poses it was fitted on.")

    @classmethod
    def known_features(cls) -> tuple[str, ...]:
        """Return the names of what is known of a pose."""
        return POSE_FEATURES

    def confidence(self, pose: Pose, evidence: Evidence) -> float:
        """Probability that the pose is right, 0..1."""
        return self.probability(pose_row(pose, evidence))

    def covariance(self, pose: Pose) -> FloatArray:
        """The pose's covariance (6, 6) so that its ellipses hold what they claim."""
        gains = np.repeat([self.position_gain, self.heading_gain], 3)
        floors = np.repeat([self.position_floor_m, math.radians(self.heading_floor_deg)], 3)
        return np.asarray(pose.covariance * np.outer(gains, gains) + np.diag(floors**2))


class RuleOfThumb(PoseTrust):
    """Trust without a calibration, see RULE_STD_M and RULE_NEAR_M."""

    def confidence(self, pose: Pose, evidence: Evidence) -> float:
        """0.5 at the edge of the rule, more within it."""
        std = RULE_STD_M / (RULE_STD_M + pose.fit_std_m)
        near = RULE_NEAR_M / (RULE_NEAR_M + pose.near_m)
        return min(std, near)


UNCALIBRATED = RuleOfThumb(
    features=(),
    mean=(),
    scale=(),
    weights=(),
    intercept=0.0,
    min_confidence=0.5,
    position_gain=4.0,
    position_floor_m=0.1,
    heading_gain=4.0,
    heading_floor_deg=0.5,
)
"""Gains by prototypes, whose errors over their own covariance had a median of 3.6; a calibration replaces them."""


@dataclass(frozen=True, slots=True)
class PoseSample:
    """A pose of an image whose own is known.

    Attributes:
        pose: The pose.
        evidence: Evidence of its candidates.
        error_en_m: (2,) east and north error, m; infinite where the true place was not in the gallery.
        heading_error_deg: Error of the heading; NaN where the true one is unknown.
        place_within_m: Error up to which a fix by photographs would count as right, m.
        apart_en_m: (2,) how far the pose is from the photographs' mean, m.
    """

    pose: Pose
    evidence: Evidence
    error_en_m: FloatArray
    heading_error_deg: float
    place_within_m: float = 25.0
    apart_en_m: FloatArray = field(default_factory=lambda: np.full(2, np.nan))

    @property
    def right(self) -> bool:
        """Whether the pose counts as right."""
        return bool(np.hypot(*self.error_en_m) <= POSE_CORRECT_WITHIN_M)


def fit_trust(samples: Sequence[PoseSample], false_fix_rate: float = 0.01, seed: int = 0) -> dict[str, PoseTrust]:
    """Fit the trust in each method with enough right and wrong poses; beside it no other is trusted.

    Args:
        samples: Poses, right and wrong.
        false_fix_rate: Wanted share of wrong places among the poses that are not trusted as such, but enough for
            the photographs around them to be a fix.
        seed: Seed of the folds.
    """
    by_method: defaultdict[str, list[PoseSample]] = defaultdict(list)
    for sample in samples:
        by_method[sample.pose.method].append(sample)
    fitted = {}
    for method, found in by_method.items():
        right = np.array([sample.right for sample in found], bool)
        if min(right.sum(), (~right).sum()) < LEAST_OF_EACH:
            continue
        rows = np.stack([pose_row(s.pose, s.evidence) for s in found])
        logistic = fit_logistic(rows, POSE_FEATURES, right, FALSE_POSE_RATE, seed, signs=POSE_SIGNS)
        kept = right & logistic.kept
        telling = [found[row] for row in np.flatnonzero(kept if kept.sum() >= LEAST_OF_EACH else right).tolist()]
        doubted = ~logistic.kept
        place = np.array([np.hypot(*s.error_en_m) <= s.place_within_m for s in found])
        around = minimum_confidence(logistic.held_out[doubted], place[doubted], false_fix_rate)
        logistic.values["around_confidence"] = around
        fitted[method] = PoseTrust.model_validate(
            {**logistic.values, **_fit_position(telling), **_fit_heading(telling), "samples": len(found)}
        )
    return fitted


def _fit_position(samples: Sequence[PoseSample]) -> dict[str, float]:
    """Gain and floor of greatest likelihood, then scaled by :func:`widening`."""
    from scipy.optimize import minimize

    claimed = np.stack([s.pose.covariance[:2, :2] for s in samples])
    errors = np.stack([s.error_en_m for s in samples])

    def covariances(logs: FloatArray) -> FloatArray:
        return np.asarray(np.exp(2 * logs[0]) * claimed + np.exp(2 * logs[1]) * np.eye(2))

    def nees(logs: FloatArray) -> FloatArray:
        return np.asarray((errors * np.linalg.solve(covariances(logs), errors[:, :, None])[:, :, 0]).sum(axis=1))

    def negative_log_likelihood(logs: FloatArray) -> float:
        return float((np.linalg.slogdet(covariances(logs))[1] + nees(logs)).mean())

    bounds = [(math.log(0.5), math.log(20.0)), (math.log(0.005), math.log(10.0))]
    best = minimize(negative_log_likelihood, np.log([2.0, 0.05]), method="L-BFGS-B", bounds=bounds).x
    widen = math.sqrt(widening(nees(best), 2, 2))
    return {"position_gain": math.exp(best[0]) * widen, "position_floor_m": math.exp(best[1]) * widen}


def _fit_heading(samples: Sequence[PoseSample]) -> dict[str, float]:
    """The same for the heading, where the true one is known."""
    from scipy.optimize import minimize

    known = [s for s in samples if math.isfinite(s.heading_error_deg)]
    if len(known) < LEAST_OF_EACH:
        return {"heading_gain": 2.0, "heading_floor_deg": 0.5}
    claimed = np.array([heading_std(enu_from_body_of(s.pose), s.pose.covariance) for s in known])
    errors = np.array([s.heading_error_deg for s in known])

    def variance(logs: FloatArray) -> FloatArray:
        return np.asarray(np.exp(2 * logs[0]) * claimed**2 + np.exp(2 * logs[1]))

    def negative_log_likelihood(logs: FloatArray) -> float:
        return float((np.log(variance(logs)) + errors**2 / variance(logs)).mean())

    bounds = [(math.log(0.5), math.log(20.0)), (math.log(0.01), math.log(10.0))]
    best = minimize(negative_log_likelihood, np.log([2.0, 0.2]), method="L-BFGS-B", bounds=bounds).x
    widen = math.sqrt(widening(errors**2 / variance(best), 1, 2))
    return {"heading_gain": math.exp(best[0]) * widen, "heading_floor_deg": math.exp(best[1]) * widen}
