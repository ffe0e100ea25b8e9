"""From ranked candidates to a position with its uncertainty, or an honest absence of one. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geowarp_ros.attitude import fix_from_pose
from geowarp_ros.config import PositionConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import Calibration, covariance_of
from geowarp_ros.integrity.trust import NEES_95, UNCALIBRATED
from geowarp_ros.types import Candidate, Evidence, Fix, FloatArray, NoFix, Pose, confidence_text

UNCONTRASTED = 0.5
"""Uncalibrated confidence when every candidate agrees: nothing tells a gallery's only place from no place."""

CONVINCING_INLIERS = 20
"""Uncalibrated confidence is 0.5 for a candidate with this many inliers and no rival."""

UNCALIBRATED_MIN_CONFIDENCE = 0.5
"""Minimum confidence without a calibration."""


@dataclass(frozen=True, slots=True)
class Doubted:
    """A pose that is not trusted.

    Attributes:
        pose: The pose.
        covariance: (6, 6), calibrated.
        confidence: Probability that it is right, by the calibration.
        wanted: Minimum confidence for the photographs around it to be a fix.
    """

    pose: Pose
    covariance: FloatArray
    confidence: float
    wanted: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What is published of an answer.

    Attributes:
        pose: The pose if it is trusted; None: the position of photographs, or none.
        covariance: (6, 6) of the pose, calibrated; None without one.
        confidence: Probability that it is right.
        wanted: Minimum confidence of a fix.
        doubted: The pose if it is not trusted; None without a calibration that judged its method.
    """

    pose: Pose | None
    covariance: FloatArray | None
    confidence: float
    wanted: float
    doubted: Doubted | None = None

    @property
    def fix(self) -> bool:
        """Whether it is a fix."""
        return self.confidence >= self.wanted


def decide(
    evidence: Evidence,
    pose: Pose | None,
    config: PositionConfig,
    calibration: Calibration | None = None,
) -> Decision:
    """Climb down the ladder: the pose if it is trusted, else the photographs that agree.

    Confidence is the calibration's probability of being right. Without a calibration, a pose has that of
    :class:`geowarp_ros.integrity.trust.RuleOfThumb`; a cluster the best candidate's share of the inliers, with
    CONVINCING_INLIERS added to the total, or without verification the share of the candidates' weight that agrees:
    an image taken elsewhere finds its candidates equally unlike, and scattered.

    Args:
        evidence: Of the candidates.
        pose: As estimated; None without one.
        config: Minimum confidence.
        calibration: Measured on a held-out drive, see :mod:`geowarp_ros.integrity`.
    """
    known = calibration.poses if calibration else {}
    # who knows how far poses of one method can be trusted does not trust another's by the rule of thumb
    trust = known.get(pose.method, None if known else UNCALIBRATED) if pose is not None else None
    doubted = None
    if pose is not None and trust is not None:
        confidence = trust.confidence(pose, evidence)
        wanted = config.min_confidence if config.min_confidence >= 0 else trust.min_confidence
        if confidence >= wanted:
            return Decision(pose, trust.covariance(pose), confidence, wanted)
        if known:
            around = config.min_confidence if config.min_confidence >= 0 else trust.around_confidence
            doubted = Doubted(pose, trust.covariance(pose), confidence, around)
    return Decision(None, None, _confidence(evidence, calibration), _min_confidence(config, calibration), doubted)


@dataclass(frozen=True, slots=True)
class Around:
    """Position of photographs, relative to their mean.

    Attributes:
        offset_m: (2,) east, north.
        covariance: (2, 2), m².
        confidence: Probability that it is right.
        fix: Whether it is a fix.
    """

    offset_m: FloatArray
    covariance: FloatArray
    confidence: float
    fix: bool


def around_pose(decision: Decision, pose_m: FloatArray, covariance: FloatArray) -> Around:
    """Draw the position of photographs to a pose that is not trusted but lies within their 95 % ellipse.

    Either is right, the pose with its probability: mean and covariance are those of this mixture (Bar-Shalom, Li
    and Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, sec. 1.4.16). A pose that is
    probable enough makes a fix of photographs that are not convincing by themselves.

    Args:
        decision: Without a trusted pose.
        pose_m: (2,) position of the doubted pose, relative to the photographs' mean.
        covariance: (2, 2) of the photographs' position, m².
    """
    plain = Around(np.zeros(2), covariance, decision.confidence, decision.fix)
    doubted = decision.doubted
    if doubted is None or not np.isfinite(pose_m).all() or pose_m @ np.linalg.solve(covariance, pose_m) > NEES_95:
        return plain
    p = doubted.confidence
    mixed = p * doubted.covariance[:2, :2] + (1 - p) * covariance + p * (1 - p) * np.outer(pose_m, pose_m)
    convincing = p >= doubted.wanted and not decision.fix
    return Around(p * pose_m, mixed, p if convincing else decision.confidence, decision.fix or convincing)


def estimate_position(
    candidates: Sequence[Candidate],
    evidence: Evidence | None,
    pose: Pose | None,
    frame: LocalFrame,
    config: PositionConfig,
    calibration: Calibration | None = None,
) -> Fix | NoFix:
    """Estimate where the query was taken, and where it looked if a pose is trusted.

    Without a pose the candidates within ``cluster_radius_m`` of the best one agree with it; they make the position
    and its scatter. A pose that is not trusted may draw it nearer (:func:`around_pose`).

    Args:
        candidates: Best first.
        evidence: Gathered from them; None without candidates.
        pose: As estimated; None without one.
        frame: Local frame of the pose.
        config: Estimate, radius, minimum confidence, minimum standard deviation.
        calibration: Measured on a held-out drive, see :mod:`geowarp_ros.integrity`.

    Returns:
        A Fix, or a NoFix: ``empty_gallery`` without candidates; below the minimum confidence ``disagreement`` if
        most of the weight lies elsewhere, else ``low_confidence``.
    """
    if evidence is None:
        return NoFix("empty_gallery", "the gallery has no place to compare with")
    decision = decide(evidence, pose, config, calibration)
    if decision.pose is not None and decision.covariance is not None:
        return fix_from_pose(decision.pose, frame, decision.confidence, decision.covariance)

    centre, scatter, share = locate(evidence, config.estimate)
    if calibration:
        position_std_m, scatter_gain = calibration.position_std_m, calibration.scatter_gain
    else:
        position_std_m, scatter_gain = config.position_std_m, 1.0
    origin = LocalFrame(candidates[0].place.latitude_deg, candidates[0].place.longitude_deg)
    apart = np.full(2, np.nan)
    if decision.doubted is not None:
        there = frame.to_geodetic(decision.doubted.pose.position_m)
        apart = origin.to_enu(*map(float, there))[:2] - centre
    found = around_pose(decision, apart, covariance_of(scatter, position_std_m, scatter_gain))
    if not found.fix:
        return _no_fix(evidence, decision.confidence, decision.wanted, config)
    centre = centre + found.offset_m
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = found.covariance
    altitude, covariance[2, 2] = _altitude(candidates, evidence.agrees, share, config)
    latitude, longitude, _ = origin.to_geodetic(np.array([[centre[0], centre[1], 0.0]]))
    return Fix(
        latitude_deg=float(latitude[0]),
        longitude_deg=float(longitude[0]),
        altitude_m=altitude,
        covariance=covariance,
        confidence=found.confidence,
        method="best" if config.estimate == "best" else "cluster",
    )


def locate(evidence: Evidence, estimate: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Position (2,) about the best candidate, m; scatter (2, 2) about it, m²; shares (M,) of the agreeing ones."""
    points, weights = evidence.east_north_m[evidence.agrees], evidence.weights[evidence.agrees]
    share = weights / weights.sum()
    centre = np.zeros(2) if estimate == "best" else share @ points
    offsets = points - centre
    return np.asarray(centre), np.asarray((offsets * share[:, None]).T @ offsets), np.asarray(share)


def _confidence(evidence: Evidence, calibration: Calibration | None) -> float:
    if calibration:
        return calibration.confidence(evidence)
    if math.isfinite(evidence.inliers):
        return evidence.inliers / (evidence.inliers + evidence.rival_inliers + CONVINCING_INLIERS)
    return evidence.agreement if evidence.contrasted else UNCONTRASTED


def _min_confidence(config: PositionConfig, calibration: Calibration | None) -> float:
    if config.min_confidence >= 0:
        return config.min_confidence
    return calibration.min_confidence if calibration else UNCALIBRATED_MIN_CONFIDENCE


def _no_fix(evidence: Evidence, confidence: float, wanted: float, config: PositionConfig) -> NoFix:
    said = f"confidence {confidence_text(confidence)}, at least {wanted:.3f} wanted"
    if evidence.agreement < 0.5:
        squares = (evidence.east_north_m**2).sum(axis=1)
        spread = float(np.sqrt(np.average(squares, weights=evidence.weights)))
        share = (
            f"{evidence.agreement:.2f} of the candidates' weight within {config.cluster_radius_m:g} m of the best"
        )
        return NoFix("disagreement", f"{said}; {share}, spread {spread:.0f} m", confidence)
    nearest = f"nearest descriptor distance {evidence.distance:.3g}, contrast {evidence.contrast:.3g}"
    if math.isfinite(evidence.inliers):
        nearest += f", {evidence.inliers:.0f} points agree and {evidence.rival_inliers:.0f} elsewhere"
    return NoFix("low_confidence", f"{said}; {nearest}", confidence)


def _altitude(
    candidates: Sequence[Candidate], agrees: np.ndarray, share: FloatArray, config: PositionConfig
) -> tuple[float, float]:
    """Altitude (m) and its variance (m²): 0 with a variance that says "unknown" where a place has none."""
    altitudes = np.array([c.place.altitude_m for c, agree in zip(candidates, agrees, strict=True) if agree])
    if not np.isfinite(altitudes).all():
        return 0.0, config.vertical_std_m**2
    mean = float(altitudes[0]) if config.estimate == "best" else float(share @ altitudes)
    return mean, float(share @ (altitudes - mean) ** 2) + config.position_std_m**2
