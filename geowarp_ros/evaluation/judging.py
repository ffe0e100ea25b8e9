"""A run as arrays, and every figure of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.drive import Position
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.run import Run
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Fix, NoFix


def judge(run: Run) -> Judged:
    """Return the answers with a known truth as arrays, one row each."""
    items = run.judged
    errors = np.full((len(items), 2), math.nan)
    covariances = np.full((len(items), 2, 2), math.nan)
    for row, item in enumerate(items):
        if item.position is not None and item.truth is not None:
            errors[row] = error_en_m(run.frame, item.position, item.truth)
            covariance = item.position.covariance[:2, :2]
            if covariance[0, 0] > 0 and np.linalg.det(covariance) > 0:
                covariances[row] = covariance
    return Judged(
        error_en_m=errors,
        covariance_m2=covariances,
        confidence=np.array([item.answer.confidence for item in items], float),
        fixed=np.array([isinstance(item.answer, Fix) for item in items], bool),
    )


def error_en_m(frame: LocalFrame, position: Fix, truth: Position) -> np.ndarray:
    """Position minus truth, east and north, m."""
    enu = frame.to_enu(
        np.array([position.latitude_deg, truth.latitude_deg]),
        np.array([position.longitude_deg, truth.longitude_deg]),
        np.zeros(2),
    )
    return np.asarray(enu[0, :2] - enu[1, :2])


def figures(run: Run) -> dict[str, Any]:
    """Return every figure of the run as JSON-ready values; what has no value is null."""
    judged = judge(run)
    correct = run.criteria.correct_within_m
    errors = judged.error_m[judged.fixed]
    values: dict[str, Any] = _plain(
        {
            "images": len(run.answered) + len(run.unreadable),
            "judged": len(judged),
            "without_truth": len(run.answered) - len(judged),
            "unreadable": len(run.unreadable),
            "dropped": len(run.dropped),
            "correct_within_m": correct,
            "availability": fixes.share(judged.fixed),
            "false_fix_rate": fixes.false_fix_rate(judged, correct),
            "recall": fixes.recall_within(judged, run.criteria.thresholds_m),
            "error_m": fixes.error_quantiles(errors) | {"mean": _mean(errors), "max": _max(errors)},
            "no_fix_reasons": dict(
                Counter(
                    "dropped" if item.name in run.dropped else item.answer.reason
                    for item in run.judged
                    if isinstance(item.answer, NoFix)
                )
            ),
            "precision_availability_area": _area(judged, correct),
            "calibration": _calibration(judged, correct),
            "latency_ms": fixes.latency_percentiles(
                [a.answer.timing_ms for a in run.answered if a.answer.timing_ms]
            ),
            "dropped_at_recorded_rate": _late(run),
        }
    )
    return values


def _calibration(judged: Judged, correct_within_m: float) -> dict[str, Any]:
    """Ellipses, NEES and Stanford fields of all fixes, and the ellipses of the right ones alone."""
    claimed = claims(judged)
    values, radii = claimed.nees, claimed.radius_m
    right = values[claimed.error_m <= correct_within_m]
    return {
        "fixes": len(values),
        "without_covariance": int(judged.fixed.sum()) - len(values),
        "inside": fixes.inside_ellipses(values),
        "nees_mean": _mean(values),
        "nees_median": float(np.median(values)) if len(values) else math.nan,
        "inside_of_right": fixes.inside_ellipses(right),
        "nees_mean_of_right": _mean(right),
        "claimed_radius_median_m": float(np.median(radii)) if len(radii) else math.nan,
        "stanford": fixes.stanford(claimed.error_m, radii, correct_within_m),
    }


@dataclass(frozen=True, slots=True)
class Claims:
    """The K fixes that claim a covariance.

    Attributes:
        rows: (K,) which of the judged answers.
        error_m: (K,).
        nees: (K,).
        radius_m: (K,) claimed 95 % radius.
    """

    rows: np.ndarray
    error_m: np.ndarray
    nees: np.ndarray
    radius_m: np.ndarray


def claims(judged: Judged) -> Claims:
    """Return the fixes whose covariance is one: recorded fixes may carry zeros."""
    rows = np.flatnonzero(judged.fixed & np.isfinite(judged.covariance_m2).all(axis=(1, 2)))
    covariances = judged.covariance_m2[rows]
    values = fixes.nees(judged.error_en_m[rows], covariances)
    return Claims(rows, judged.error_m[rows], values, fixes.claimed_radius_m(covariances))


def _area(judged: Judged, correct_within_m: float) -> float:
    if not np.isfinite(judged.confidence).any():
        return math.nan
    return fixes.area_under_precision(fixes.precision_availability(judged, correct_within_m))


def _late(run: Run) -> fixes.Share | None:
    """Images that the node on this machine would have dropped at the recorded rate; None without times."""
    timed = [item for item in run.answered if item.answer.timing_ms and item.stamp_ns]
    if not timed or not run.timed:
        return None
    stamps = np.array([item.stamp_ns for item in timed], np.int64)
    return fixes.share(fixes.dropped_at_rate(stamps, np.array([sum(i.answer.timing_ms.values()) for i in timed])))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _max(values: np.ndarray) -> float:
    return float(values.max()) if len(values) else math.nan


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, keys as text, NaN and infinity as null."""
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
