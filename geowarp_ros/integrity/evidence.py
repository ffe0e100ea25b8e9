"""What the candidates of an image say about the best one's position. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Candidate, Evidence, FloatArray

SHARPNESS = 10.0
"""How fast a candidate loses weight as its distance exceeds the nearest one's: exp(-SHARPNESS·(d/d_min - 1))."""

LEAST_LOG_WEIGHT = -30.0
"""No weight underflows to 0, so that whichever candidate re-ranking puts first has a share to average."""


def candidate_weights(distances: FloatArray) -> FloatArray:
    """Weight of each candidate from its squared descriptor distance, the nearest one's being 1.

    The weight depends on ratios of distances only, so it means the same for every model.

    Args:
        distances: (N,) squared distances, at least 0.

    Returns:
        (N,) in (0, 1].
    """
    nearest = float(distances.min())
    excess = (distances - nearest) / max(nearest, 1e-12)
    return np.asarray(np.exp(np.maximum(-SHARPNESS * excess, LEAST_LOG_WEIGHT)))


def east_north_m(candidates: Sequence[Candidate]) -> FloatArray:
    """Positions (N, 2) of the candidates about the first one, east and north in m; at least one candidate."""
    first = candidates[0].place
    latitude = np.array([c.place.latitude_deg for c in candidates])
    longitude = np.array([c.place.longitude_deg for c in candidates])
    frame = LocalFrame(first.latitude_deg, first.longitude_deg)
    return frame.to_enu(latitude, longitude, np.zeros(len(candidates)))[:, :2]


def gather_evidence(candidates: Sequence[Candidate], cluster_radius_m: float) -> Evidence:
    """Look at ranked candidates, best first; at least one.

    Raises:
        ValueError: No candidates.
    """
    if not candidates:
        raise ValueError("no candidates to gather evidence from")
    best, east_north = candidates[0], east_north_m(candidates)
    distances = np.array([c.distance for c in candidates])
    weights = candidate_weights(distances)
    agrees = np.hypot(east_north[:, 0], east_north[:, 1]) <= cluster_radius_m
    elsewhere = [c for c, agree in zip(candidates, agrees, strict=True) if not agree]
    rivals = [c.score for c in elsewhere if c.score is not None]
    inliers = math.nan if best.inliers is None else float(best.inliers)
    rival_inliers = max((float(c.inliers) for c in elsewhere if c.inliers is not None), default=0.0)
    score, unwarped = (math.nan if s is None else s for s in (best.score, best.score_unwarped))
    return Evidence(
        east_north_m=east_north,
        weights=weights,
        agrees=agrees,
        agreement=float(weights[agrees].sum() / weights.sum()),
        distance=best.distance,
        contrast=min(c.distance for c in elsewhere) / max(best.distance, 1e-12) if elsewhere else 1.0,
        score=score,
        score_gain=score - unwarped,
        score_margin=score - max(rivals) if rivals else 0.0 * score,
        quad_area=min(_area(best.quad_q), _area(best.quad_p)),
        inliers=inliers,
        rival_inliers=rival_inliers if best.inliers is not None else math.nan,
    )


def _area(quad: FloatArray | None) -> float:
    """Area of a quad over the frame's (4); 0 where it is not convex or runs anticlockwise."""
    if quad is None:
        return math.nan
    edges = np.roll(quad, -1, axis=0) - quad
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    if (turns <= 0).any():
        return 0.0
    following_point = np.roll(quad, -1, axis=0)
    return float((quad[:, 0] * following_point[:, 1] - quad[:, 1] * following_point[:, 0]).sum() / 2 / 4)


FEATURES = (
    "log_distance", "log_contrast", "agreement", "score", "score_gain", "score_margin", "quad_area", "log_inliers",
    "inlier_margin",
)  # fmt: skip


SIGNS = {
    "log_distance": -1, "log_contrast": 1, "agreement": 1, "score": 1, "score_margin": 1, "log_inliers": 1,
    "inlier_margin": 1,
}  # fmt: skip
"""Whether more of a feature speaks for an answer (1) or against it (-1); of the others nobody knows."""


def feature_row(evidence: Evidence) -> FloatArray:
    """The evidence as (9,) numbers in the order of :data:`FEATURES`; NaN for what nothing has measured."""
    return np.array(
        [
            math.log(max(evidence.distance, 1e-9)),
            math.log(max(evidence.contrast, 1e-9)),
            evidence.agreement,
            evidence.score,
            evidence.score_gain,
            evidence.score_margin,
            evidence.quad_area,
            math.log1p(evidence.inliers),
            math.log1p(evidence.inliers) - math.log1p(evidence.rival_inliers),
        ]
    )
