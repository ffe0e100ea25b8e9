"""Figures of fixes: error, availability, precision, calibration, integrity, latency. NumPy only.

Every function takes plain arrays with one row per image, so that a figure can be checked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.types import FloatArray

BoolArray = NDArray[np.bool_]

PROBABILITIES = (0.50, 0.95, 0.99)
"""Probabilities of the error ellipses by which calibration is judged."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The answers to N images whose true position is known.

    Attributes:
        error_en_m: (N, 2) answer minus truth, east and north (m), of the fix or, of a NoFix, the position with a
            minimum confidence of 0; NaN without a position.
        covariance_m2: (N, 2, 2) claimed covariance of that error (m²); NaN likewise.
        confidence: (N,) 0..1; NaN if unknown (recorded fixes do not carry it).
        fixed: (N,) bool, whether it was published as a fix.
        heading_error_deg: (N,) heading of the answer minus the true one, -180 to 180; NaN where either is unknown.
        heading_std_deg: (N,) claimed standard deviation of it; NaN likewise.
        method: (N,) method of the position; empty without a position. It and both headings may have no rows.
    """

    error_en_m: FloatArray
    covariance_m2: FloatArray
    confidence: FloatArray
    fixed: BoolArray
    heading_error_deg: FloatArray = field(default_factory=lambda: np.zeros(0))
    heading_std_deg: FloatArray = field(default_factory=lambda: np.zeros(0))
    method: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))

    def __len__(self) -> int:
        return len(self.fixed)

    @property
    def error_m(self) -> FloatArray:
        """(N,) horizontal distance of the answer from the truth (m); NaN without an answer."""
        return np.hypot(self.error_en_m[:, 0], self.error_en_m[:, 1])

    @property
    def claiming(self) -> BoolArray:
        """(N,) bool, whether it was published as a fix with a valid covariance; recorded fixes may carry zeros."""
        return np.asarray(self.fixed & np.isfinite(self.covariance_m2).all(axis=(1, 2)))

    def only(self, rows: BoolArray) -> Judged:
        """Return the answers that ``rows`` (N,) chooses."""
        given = (getattr(self, each.name) for each in fields(self))
        return Judged(*(values[rows] if len(values) else values for values in given))


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % Wilson interval; NaN without values.

    Attributes:
        value: ``count / of``.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number that was chosen.
        of: Number in all.
    """

    value: float
    low: float
    high: float
    count: int
    of: int


def share(chosen: BoolArray, z: float = 1.959964) -> Share:
    """Return the share of true values with Wilson's interval (1927), valid for few trials and for 0 of N."""
    count, of = int(chosen.sum()), len(chosen)
    if not of:
        return Share(math.nan, math.nan, math.nan, 0, 0)
    p = count / of
    centre = (p + z**2 / (2 * of)) / (1 + z**2 / of)
    half = z / (1 + z**2 / of) * math.sqrt(p * (1 - p) / of + z**2 / (4 * of**2))
    return Share(p, max(0.0, centre - half), min(1.0, centre + half), count, of)


def recall_within(judged: Judged, thresholds_m: Sequence[float]) -> dict[float, Share]:
    """Return the share of all images that have a fix within each distance of the truth."""
    errors = judged.error_m
    return {metres: share(judged.fixed & (errors <= metres)) for metres in thresholds_m}


def false_fix_rate(judged: Judged, correct_within_m: float) -> Share:
    """Return the share of published fixes farther from the truth than ``correct_within_m``."""
    return share(judged.error_m[judged.fixed] > correct_within_m)


def error_quantiles(errors_m: FloatArray, probabilities: Sequence[float] = (0.5, 0.9, 0.95)) -> dict[float, float]:
    """Return quantiles of the errors, linearly interpolated; NaN without errors."""
    if not len(errors_m):
        return dict.fromkeys(probabilities, math.nan)
    return {p: float(np.quantile(errors_m, p)) for p in probabilities}


def cumulative(errors_m: FloatArray, of: int) -> tuple[FloatArray, FloatArray]:
    """Return the error CDF as steps: sorted errors (K,) and the share of ``of`` images at or below each (K,).

    With all images in ``of`` the curve ends at the availability, not at 1.
    """
    ordered = np.sort(errors_m)
    return ordered, np.arange(1, len(ordered) + 1) / max(of, 1)


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Availability and precision at K distinct minimum confidences, strictest first.

    Attributes:
        threshold: (K,) minimum confidence.
        availability: (K,) share of all images whose confidence reaches it.
        precision: (K,) share of those whose answer is right.
    """

    threshold: FloatArray
    availability: FloatArray
    precision: FloatArray


def precision_availability(judged: Judged, correct_within_m: float) -> Tradeoff:
    """Return precision and availability as the minimum confidence falls; unknown confidences never count."""
    known = np.isfinite(judged.confidence) & np.isfinite(judged.error_m)
    confidence, right = judged.confidence[known], judged.error_m[known] <= correct_within_m
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    # equal confidences cannot be told apart by a threshold: keep the last of each run
    last = np.flatnonzero(np.diff(confidence, append=-np.inf))
    kept = last + 1
    return Tradeoff(confidence[last], kept / max(len(judged), 1), np.cumsum(right)[last] / np.maximum(kept, 1))


def area_under_precision(tradeoff: Tradeoff) -> float:
    """Return the area under precision over availability, as steps, 0..1; 1: every image answered rightly."""
    return float((np.diff(tradeoff.availability, prepend=0.0) * tradeoff.precision).sum())


def nees(error_en_m: FloatArray, covariance_m2: FloatArray) -> FloatArray:
    """Return the normalised estimation error squared, eᵀ C⁻¹ e, (N,): chi-squared, 2 degrees of freedom, mean 2.

    Bar-Shalom, Li, Kirubarajan: Estimation with Applications to Tracking and Navigation, sec. 5.4.2.
    """
    solved = np.linalg.solve(covariance_m2, error_en_m[:, :, None])[:, :, 0]
    return np.asarray((error_en_m * solved).sum(axis=1))


def ellipse_bound(probability: float) -> float:
    """Return the NEES at the edge of the ellipse that holds ``probability``: -2 ln(1 - p)."""
    return -2.0 * math.log(1.0 - probability)


def inside_ellipses(nees_values: FloatArray, probabilities: Sequence[float] = PROBABILITIES) -> dict[float, Share]:
    """Return the share of truths inside the ellipse of each probability, which a true covariance reproduces."""
    return {p: share(nees_values <= ellipse_bound(p)) for p in probabilities}


def heading_figures(error_deg: FloatArray, std_deg: FloatArray) -> dict[str, float | Share]:
    """Return the figures of heading errors: where the errors are all NaN, all are NaN.

    Args:
        error_deg: (N,) signed errors; NaN where unknown, which is left out.
        std_deg: (N,) claimed standard deviations.

    Returns:
        ``headings``: number of errors. ``median_deg``, ``p95_deg``: quantiles of their size. ``bias_deg``: signed
        median, which a camera that does not look along the truth's x axis shows. ``inside_95``: share within 1.96
        standard deviations, 95 % if they are true. ``nees_mean``: mean of (error / standard deviation)², 1 if so.
    """
    known = np.isfinite(error_deg)
    error, ratio = error_deg[known], error_deg[known] / std_deg[known]
    quantiles = error_quantiles(np.abs(error), (0.5, 0.95))
    return {
        "headings": int(known.sum()),
        "median_deg": quantiles[0.5],
        "p95_deg": quantiles[0.95],
        "bias_deg": float(np.median(error)) if len(error) else math.nan,
        "inside_95": share(np.abs(ratio) <= 1.959964),
        "nees_mean": float(np.mean(ratio**2)) if len(ratio) else math.nan,
    }


def claimed_radius_m(covariance_m2: FloatArray, probability: float = 0.95) -> FloatArray:
    """Return the semi-major axis (N,), m, of the ellipse of a probability: the claimed maximum error.

    As the horizontal protection level of satellite navigation, K·d_major (RTCA DO-229, appendix J).
    """
    east, north, mixed = covariance_m2[:, 0, 0], covariance_m2[:, 1, 1], covariance_m2[:, 0, 1]
    largest = (east + north) / 2 + np.hypot((east - north) / 2, mixed)  # eigenvalue of a symmetric 2×2
    return np.asarray(np.sqrt(ellipse_bound(probability) * largest))


def stanford(error_m: FloatArray, radius_m: FloatArray, alert_limit_m: float) -> dict[str, int]:
    """Count the fields of the Stanford (ESA) diagram of error against claimed radius.

    Returns:
        Number of fixes by field, each fix in exactly one. ``nominal``: error within the claim, claim within the
        limit. ``unavailable``: claim beyond the limit, error within the claim. ``misleading``: error beyond the
        claim, both on one side of the limit. ``hazardous``: claim within the limit, error beyond it: the robot is
        misled without a warning.
    """
    misled, claims = error_m > radius_m, radius_m <= alert_limit_m
    hazardous = misled & claims & (error_m > alert_limit_m)
    fields = {"nominal": ~misled & claims, "unavailable": ~misled & ~claims, "misleading": misled & ~hazardous}
    return {name: int(field.sum()) for name, field in (fields | {"hazardous": hazardous}).items()}


def latency_percentiles(
    timings_ms: Sequence[Mapping[str, float]], percentiles: Sequence[float] = (50, 95, 99)
) -> dict[str, dict[float, float]]:
    """Return percentiles (ms) of the duration of each stage over the images, and of their sum as ``total``."""
    if not timings_ms:
        return {}
    stages = dict.fromkeys(stage for timing in timings_ms for stage in timing)  # a refused image has few
    columns = {stage: [timing.get(stage, 0.0) for timing in timings_ms] for stage in stages}
    columns["total"] = [sum(timing.values()) for timing in timings_ms]
    return {stage: {p: float(np.percentile(values, p)) for p in percentiles} for stage, values in columns.items()}


def dropped_at_rate(stamps_ns: NDArray[np.int64], busy_ms: FloatArray, rate: float = 1.0) -> BoolArray:
    """Return which images are dropped by a node that keeps only the latest while it is busy.

    Args:
        stamps_ns: (N,) stamps, ascending.
        busy_ms: (N,) time for which each image keeps the node busy (ms).
        rate: Replay speed; 2: twice as fast as recorded.

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
