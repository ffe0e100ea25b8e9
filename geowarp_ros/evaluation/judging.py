"""The figures of a run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
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
    headings = np.full((len(items), 2), math.nan)
    for row, item in enumerate(items):
        if item.position is not None and item.truth is not None:
            errors[row] = error_en_m(run.frame, item.position, item.truth)
            covariance = item.position.covariance[:2, :2]
            if covariance[0, 0] > 0 and np.linalg.det(covariance) > 0:
                covariances[row] = covariance
            headings[row] = heading_error_deg(item.position, item.truth), item.position.heading_std_deg
    return Judged(
        error_en_m=errors,
        covariance_m2=covariances,
        confidence=np.array([item.answer.confidence for item in items], float),
        fixed=np.array([item.answer.fix is not None for item in items], bool),
        heading_error_deg=headings[:, 0],
        heading_std_deg=headings[:, 1],
        method=np.array([item.method for item in items], np.str_),
    )


def heading_error_deg(position: Fix, truth: Position) -> float:
    """Return heading minus true heading, -180 to 180 (deg); NaN where either is unknown."""
    off = position.heading_deg - truth.heading_deg
    return math.remainder(off, 360.0) if math.isfinite(off) else math.nan


def error_en_m(frame: LocalFrame, position: Fix, truth: Position) -> np.ndarray:
    """Return position minus truth, east and north (m)."""
    enu = frame.to_enu(
        np.array([position.latitude_deg, truth.latitude_deg]),
        np.array([position.longitude_deg, truth.longitude_deg]),
        np.zeros(2),
    )
    return np.asarray(enu[0, :2] - enu[1, :2])


def figures(run: Run) -> dict[str, Any]:
    """Return all figures of the run as JSON-ready values; null without a value."""
    judged = judge(run)
    correct = run.criteria.correct_within_m
    errors = judged.error_m[judged.fixed]
    claimed = judged.only(judged.claiming)
    nees = fixes.nees(claimed.error_en_m, claimed.covariance_m2)
    right, radius_m = nees[claimed.error_m <= correct], fixes.claimed_radius_m(claimed.covariance_m2)
    confident = np.isfinite(judged.confidence).any()
    area = fixes.area_under_precision(fixes.precision_availability(judged, correct)) if confident else None
    recall = fixes.recall_within(judged, run.criteria.thresholds_m)
    reasons = Counter(
        "dropped" if item.name in run.dropped else item.answer.result.reason
        for item in run.judged
        if isinstance(item.answer.result, NoFix)
    )
    return _plain(
        {
            "images": len(run.answered) + len(run.unreadable),
            "judged": len(judged),
            "without_truth": len(run.answered) - len(judged),
            "unreadable": len(run.unreadable),
            "dropped": len(run.dropped),
            "correct_within_m": correct,
            "availability": fixes.share(judged.fixed),
            "false_fix_rate": fixes.false_fix_rate(judged, correct),
            "guesses": fixes.share(judged.error_m[np.isfinite(judged.error_m)] > correct),
            "calibrated_by": run.calibration,
            "recall": {f"{metres:g}": share for metres, share in recall.items()},
            "error_m": fixes.error_quantiles(errors) | {"mean": _of(np.mean, errors), "max": _of(np.max, errors)},
            "heading": fixes.heading_figures(
                judged.heading_error_deg[judged.fixed], judged.heading_std_deg[judged.fixed]
            ),
            "methods": _by_method(judged),
            "no_fix_reasons": dict(reasons),
            "precision_availability_area": area,
            "calibration": {
                "fixes": len(claimed),
                "without_covariance": len(errors) - len(claimed),
                "inside": fixes.inside_ellipses(nees),
                "nees_mean": _of(np.mean, nees),
                "nees_median": _of(np.median, nees),
                "inside_of_right": fixes.inside_ellipses(right),
                "nees_mean_of_right": _of(np.mean, right),
                "claimed_radius_median_m": _of(np.median, radius_m),
                "stanford": fixes.stanford(claimed.error_m, radius_m, correct),
            },
            "latency_ms": fixes.latency_percentiles(
                [a.answer.header.timing_ms for a in run.answered if a.answer.header.timing_ms]
            ),
            "dropped_at_recorded_rate": _late(run),
        }
    )


def _by_method(judged: Judged) -> dict[str, dict[str, Any]]:
    """Return the figures of the fixes of each method, those with the most fixes first."""
    counts = Counter(judged.method[judged.fixed].tolist())
    found = {}
    for method, count in counts.most_common():
        chosen = judged.only(judged.fixed & (judged.method == method))
        claimed = chosen.only(chosen.claiming)
        nees = fixes.nees(claimed.error_en_m, claimed.covariance_m2)
        found[method] = {
            "fixes": count,
            "error_m": fixes.error_quantiles(chosen.error_m, (0.5, 0.95)) | {"max": _of(np.max, chosen.error_m)},
            "inside": fixes.inside_ellipses(nees, (0.95,)),
            "nees_mean": _of(np.mean, nees),
            "heading": fixes.heading_figures(chosen.heading_error_deg, chosen.heading_std_deg),
        }
    return found


def _late(run: Run) -> fixes.Share | None:
    """Return the share of images that this machine would drop at the recorded rate; None without times."""
    timed = [item for item in run.answered if item.answer.header.timing_ms and item.stamp_ns]
    if not timed or not run.timed:
        return None
    stamps = np.array([item.stamp_ns for item in timed], np.int64)
    return fixes.share(fixes.dropped_at_rate(stamps, np.array([i.answer.header.total_ms for i in timed])))


def _of(statistic: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    return float(statistic(values)) if len(values) else None


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of it: dataclasses as objects, keys as text, NaN and infinity as null."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=asdict), parse_constant=lambda _: None)
    return plain
