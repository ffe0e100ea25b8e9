"""How good are fixes, and do they know it? Error, availability, precision, calibration, integrity. NumPy only.

Every function takes plain arrays with one row per image, so that a figure can be checked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.types import FloatArray

BoolArray = NDArray[np.bool_]

PROBABILITIES = (0.50, 0.95, 0.99)
"""The error ellipses that calibration is judged by."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers to N images whose true position is known.

    Attributes:
        error_en_m: (N, 2) answer minus truth, east and north, m; of the position that would have been published
            without any least confidence; NaN where the localizer had none to give.
        covariance_m2: (N, 2, 2) what the answer claims about that error; NaN likewise.
        confidence: (N,) 0..1; NaN where unknown (recorded fixes do not carry it).
        fixed: (N,) bool, whether it was published as a fix.
    """

    error_en_m: FloatArray
    covariance_m2: FloatArray
    confidence: FloatArray
    fixed: BoolArray

    def __len__(self) -> int:
        return len(self.fixed)

    @property
    def error_m(self) -> FloatArray:
        """(N,) horizontal distance of the answer from the truth; NaN where there is no answer."""
        return np.hypot(self.error_en_m[:, 0], self.error_en_m[:, 1])


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % Wilson interval; NaN of nothing.

    Attributes:
        value: ``count / of``.
        low: Lower end.
        high: Upper end.
        count: How many.
        of: Of how many.
    """

    value: float
    low: float
    high: float
    count: int
    of: int


def share(chosen: BoolArray, z: float = 1.959964) -> Share:
    """Share of true values with Wilson's interval (Wilson 1927), which holds for few trials and for 0 of N."""
    count, of = int(chosen.sum()), len(chosen)
    if not of:
        return Share(math.nan, math.nan, math.nan, 0, 0)
    p = count / of
    centre = (p + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return Share(p, max(0.0, centre - half), min(1.0, centre + half), count, of)


def recall_within(judged: Judged, thresholds_m: Sequence[float]) -> dict[float, Share]:
    """Share of all images that have a fix within each distance of the truth."""
    errors = judged.error_m
    return {metres: share(judged.fixed & (errors <= metres)) for metres in thresholds_m}


def false_fix_rate(judged: Judged, correct_within_m: float) -> Share:
    """Share of the published fixes that lie farther from the truth than ``correct_within_m``."""
    return share(judged.error_m[judged.fixed] > correct_within_m)


def error_quantiles(errors_m: FloatArray, probabilities: Sequence[float] = (0.5, 0.9, 0.95)) -> dict[float, float]:
    """Quantiles of the errors, linearly interpolated; NaN of nothing."""
    if not len(errors_m):
        return dict.fromkeys(probabilities, math.nan)
    return {p: float(np.quantile(errors_m, p)) for p in probabilities}


def cumulative(errors_m: FloatArray, of: int) -> tuple[FloatArray, FloatArray]:
    """Error CDF as steps: sorted errors (K,) and the share of ``of`` images at or below each (K,).

    With all images in ``of`` the curve ends at the availability, not at 1.
    """
    ordered = np.sort(errors_m)
    return ordered, np.arange(1, len(ordered) + 1) / max(of, 1)


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """What each confidence threshold would give; K distinct thresholds, strictest first.

    Attributes:
        threshold: (K,) least confidence.
        availability: (K,) share of all images whose confidence reaches it.
        precision: (K,) share of those whose answer is right.
    """

    threshold: FloatArray
    availability: FloatArray
    precision: FloatArray


def precision_availability(judged: Judged, correct_within_m: float) -> Tradeoff:
    """Precision against availability as the confidence threshold falls; images without confidence never count."""
    known = np.isfinite(judged.confidence) & np.isfinite(judged.error_m)
    confidence, right = judged.confidence[known], judged.error_m[known] <= correct_within_m
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    # equal confidences cannot be told apart by a threshold: keep the last of each run
    last = np.flatnonzero(np.diff(confidence, append=-np.inf))
    kept = last + 1
    return Tradeoff(confidence[last], kept / max(len(judged), 1), np.cumsum(right)[last] / np.maximum(kept, 1))


def area_under_precision(tradeoff: Tradeoff) -> float:
    """Area under precision over availability, as steps, 0..1; 1: every image answered, every answer right."""
    return float((np.diff(tradeoff.availability, prepend=0.0) * tradeoff.precision).sum())


def nees(error_en_m: FloatArray, covariance_m2: FloatArray) -> FloatArray:
    """Normalised estimation error squared, eᵀ C⁻¹ e, (N,); chi-squared with 2 degrees of freedom, mean 2.

    Bar-Shalom, Li, Kirubarajan: Estimation with Applications to Tracking and Navigation, sec. 5.4.2.
    """
    solved = np.linalg.solve(covariance_m2, error_en_m[:, :, None])[:, :, 0]
    return np.asarray((error_en_m * solved).sum(axis=1))


def ellipse_bound(probability: float) -> float:
    """NEES at the edge of the ellipse that holds ``probability``: -2 ln(1 - p), chi-squared with 2 degrees."""
    return -2.0 * math.log(1.0 - probability)


def inside_ellipses(nees_values: FloatArray, probabilities: Sequence[float] = PROBABILITIES) -> dict[float, Share]:
    """Share of the truths inside the ellipse of each probability; a true covariance gives that probability."""
    return {p: share(nees_values <= ellipse_bound(p)) for p in probabilities}


def claimed_radius_m(covariance_m2: FloatArray, probability: float = 0.95) -> FloatArray:
    """Semi-major axis of the ellipse of that probability, (N,) m: the farthest the truth may lie, by the claim.

    As the horizontal protection level of satellite navigation, K·d_major (RTCA DO-229, appendix J).
    """
    east, north, mixed = covariance_m2[:, 0, 0], covariance_m2[:, 1, 1], covariance_m2[:, 0, 1]
    largest = (east + north) / 2 + np.hypot((east - north) / 2, mixed)  # eigenvalue of a symmetric 2×2
    return np.asarray(np.sqrt(ellipse_bound(probability) * largest))


@dataclass(frozen=True, slots=True)
class Stanford:
    """How many fixes fall into each field of the Stanford plot of error against claimed radius.

    Attributes:
        nominal: Error within the claim, claim within the limit.
        unavailable: Claim beyond the limit, error within the claim.
        misleading: Error beyond the claim; both on one side of the limit.
        hazardous: Claim within the limit, error beyond it: the robot is misled without a warning.
    """

    nominal: int
    unavailable: int
    misleading: int
    hazardous: int


def stanford(error_m: FloatArray, radius_m: FloatArray, alert_limit_m: float) -> Stanford:
    """Count the fields of the Stanford (ESA) integrity diagram; every fix falls into exactly one."""
    misled = error_m > radius_m
    claims = radius_m <= alert_limit_m
    hazardous = misled & claims & (error_m > alert_limit_m)
    return Stanford(
        nominal=int((~misled & claims).sum()),
        unavailable=int((~misled & ~claims).sum()),
        misleading=int((misled & ~hazardous).sum()),
        hazardous=int(hazardous.sum()),
    )


def latency_percentiles(
    timings_ms: Sequence[Mapping[str, float]], percentiles: Sequence[float] = (50, 95, 99)
) -> dict[str, dict[float, float]]:
    """Percentiles of each stage's duration over the images, and of their sum as ``total``, in ms."""
    if not timings_ms:
        return {}
    stages = dict.fromkeys(stage for timing in timings_ms for stage in timing)  # a refused image has few
    columns = {stage: [timing.get(stage, 0.0) for timing in timings_ms] for stage in stages}
    columns["total"] = [sum(timing.values()) for timing in timings_ms]
    return {stage: {p: float(np.percentile(values, p)) for p in percentiles} for stage, values in columns.items()}


def dropped_at_rate(stamps_ns: NDArray[np.int64], busy_ms: FloatArray, rate: float = 1.0) -> BoolArray:
    """Which images a node would have dropped that keeps only the latest while it is busy.

    Args:
        stamps_ns: (N,) ascending.
        busy_ms: (N,) how long each image keeps the node busy.
        rate: Replay speed; 2 is twice as fast as recorded.

    Returns:
        (N,) bool.
    """
    arrival_ms = (stamps_ns - stamps_ns[0]) / 1e6 / rate if len(stamps_ns) else np.zeros(0)
    dropped = np.zeros(len(stamps_ns), bool)
    free_ms, waiting = -math.inf, -1
    for index, now_ms in enumerate(arrival_ms):
        if waiting >= 0 and free_ms <= now_ms:
            free_ms, waiting = free_ms + busy_ms[waiting], -1
        if free_ms <= now_ms:
            free_ms = now_ms + busy_ms[index]
            continue
        if waiting >= 0:
            dropped[waiting] = True
        waiting = index
    return dropped
