"""Evidence into probability, and a covariance that holds what it claims: measured on held-out drives.

A calibration turns the evidence of one answer into the probability that its position is right, and corrects the
covariance so that its ellipses hold the share of true positions they claim. It belongs to one gallery, model and
re-ranker, and is stored with the gallery. NumPy and scikit-learn; no torch, no ROS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from geowarp_ros.config import LocalizerConfig, Section
from geowarp_ros.errors import GalleryError
from geowarp_ros.integrity.evidence import FEATURES, Evidence, feature_row
from geowarp_ros.types import FloatArray

CALIBRATION_FILE = "calibration.json"
"""Its name in a gallery's folder."""


class Calibration(Section):
    """Logistic model of "this position is right", and the covariance's correction. Stored as JSON, no pickle."""

    features: tuple[str, ...] = Field(description="Names of the evidence used; without re-ranking only the first.")
    mean: tuple[float, ...] = Field(description="Mean of each feature on the calibration drive.")
    scale: tuple[float, ...] = Field(description="Standard deviation of each feature there.")
    weights: tuple[float, ...] = Field(description="Logistic weights of the standardised features.")
    intercept: float = Field(description="Logistic intercept.")
    min_confidence: float = Field(ge=0.0, le=1.0, description="Least confidence that held the false-fix rate.")
    position_std_m: float = Field(gt=0.0, description="Horizontal standard deviation without any scatter, m.")
    scatter_gain: float = Field(ge=0.0, description="Factor on the candidates' scatter covariance.")
    correct_within_m: float = Field(gt=0.0, description="What counted as right.")
    samples: int = Field(0, description="Answers it was fitted on.")
    measured_with: dict[str, str] = Field(
        default_factory=dict, description="Model, re-ranker and position settings that it holds for."
    )

    def confidence(self, evidence: Evidence) -> float:
        """Probability that the position is within ``correct_within_m`` of the truth, 0..1."""
        row = feature_row(evidence)[[FEATURES.index(name) for name in self.features]]
        row = np.clip((row - np.array(self.mean)) / np.array(self.scale), -8.0, 8.0)
        return float(1.0 / (1.0 + np.exp(-(float(row @ np.array(self.weights)) + self.intercept))))


def settings_of(config: LocalizerConfig, model_fingerprint: str) -> dict[str, str]:
    """What a calibration depends on: measured with one of these changed, it would be another."""
    return {
        "model": model_fingerprint,
        "retrieval.candidates": str(config.retrieval.candidates),
        "rerank.method": config.rerank.method,
        "rerank.candidates": str(config.rerank.candidates),
        "rerank.retrieval_weight": f"{config.rerank.retrieval_weight:g}",
        "position.estimate": config.position.estimate,
        "position.cluster_radius_m": f"{config.position.cluster_radius_m:g}",
    }


def save_calibration(gallery: Path, calibration: Calibration) -> None:
    """Write the calibration into a gallery's folder, whole or not at all.

    Raises:
        GalleryError: The folder cannot be written.
    """
    partial = gallery / f"{CALIBRATION_FILE}.partial"
    try:
        partial.write_text(calibration.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(gallery / CALIBRATION_FILE)
    except OSError as error:
        raise GalleryError(f"cannot write {gallery / CALIBRATION_FILE}: {error.strerror}") from error


def load_calibration(gallery: Path) -> Calibration | None:
    """Read a gallery's calibration; None where it has none.

    Raises:
        GalleryError: The file is there and is no calibration.
    """
    path = gallery / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GalleryError(f"{path} is no calibration; run 'geowarp calibrate' again: {error}") from None


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the localizer to an image whose position is known.

    Attributes:
        evidence: Of the answer.
        error_m: Distance of the answer from the truth; infinite where the true place was not in the gallery.
        error_en_m: (2,) east and north error, m; NaN likewise.
        scatter: (2, 2) scatter of the agreeing candidates about the answer, m².
    """

    evidence: Evidence
    error_m: float
    error_en_m: FloatArray
    scatter: FloatArray


def fit_calibration(
    samples: Sequence[Sample], correct_within_m: float, false_fix_rate: float = 0.01, seed: int = 0
) -> tuple[Calibration, dict[str, float]]:
    """Fit a calibration on answers from a held-out drive.

    The confidence that each sample would have had is found by 5-fold cross-validation; the least confidence is
    the smallest at which the share of wrong positions among those kept is at most ``false_fix_rate``. Position
    standard deviation and scatter gain maximise the likelihood of the errors of the right ones among those kept.

    Args:
        samples: Answers, right and wrong; the wrong ones may come from leaving the true place out of the gallery.
        correct_within_m: What counts as right.
        false_fix_rate: Wanted share of wrong positions among those published, 0..1.
        seed: Of the folds.

    Returns:
        The calibration, and what the cross-validation showed: ``auc``, ``brier``, ``availability`` (share of the
        right samples kept), ``false_fix_rate``, ``mean_nees``, ``inside_95``.

    Raises:
        ValueError: Fewer than ten right or ten wrong samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    right = np.array([sample.error_m <= correct_within_m for sample in samples])
    if min(right.sum(), (~right).sum()) < 10:
        raise ValueError(f"{right.sum()} right and {(~right).sum()} wrong answers; at least 10 of each are needed")
    rows = np.stack([feature_row(sample.evidence) for sample in samples])
    used = np.asarray(np.isfinite(rows).all(axis=0))
    rows = rows[:, used]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    held_out = cross_val_predict(model, rows, right, cv=folds, method="predict_proba")[:, 1]
    threshold = _least_confidence(held_out, right, false_fix_rate)
    kept = np.asarray(held_out >= threshold)
    # where no confidence holds the wanted rate nothing is published, and all right answers tell the covariance
    telling = kept & right if (kept & right).any() else right
    published = [samples[row] for row in np.flatnonzero(telling).tolist()]
    sigma, gain = _fit_covariance(published)
    model.fit(rows, right)
    scaler, logistic = model[0], model[1]
    calibration = Calibration(
        features=tuple(name for name, use in zip(FEATURES, used, strict=True) if use),
        mean=tuple(scaler.mean_.tolist()),
        scale=tuple(scaler.scale_.tolist()),
        weights=tuple(logistic.coef_[0].tolist()),
        intercept=float(logistic.intercept_[0]),
        min_confidence=threshold,
        position_std_m=sigma,
        scatter_gain=gain,
        correct_within_m=correct_within_m,
        samples=len(samples),
    )
    nees = np.array([normalized_error(sample, sigma, gain) for sample in published])
    summary = {
        "auc": float(roc_auc_score(right, held_out)),
        "brier": float(brier_score_loss(right, held_out)),
        "availability": float((kept & right).sum() / right.sum()),
        "false_fix_rate": float((kept & ~right).sum() / max(kept.sum(), 1)),
        "mean_nees": float(nees.mean()),
        "inside_95": float((nees <= 5.991).mean()),
    }
    return calibration, summary


def _least_confidence(confidence: FloatArray, right: np.ndarray, false_fix_rate: float) -> float:
    """Smallest threshold from which on the share of wrong ones is at most the wanted one; 1 if there is none."""
    order = np.argsort(-confidence, kind="stable")
    wrong_share = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(wrong_share <= false_fix_rate)
    if not len(good):
        return 1.0
    return float(confidence[order][good[-1]])


def covariance_of(scatter: FloatArray, position_std_m: float, scatter_gain: float) -> FloatArray:
    """(2, 2) horizontal covariance, m²: gain·scatter + std²·I."""
    return np.asarray(scatter_gain * scatter + position_std_m**2 * np.eye(2))


def normalized_error(sample: Sample, position_std_m: float, scatter_gain: float) -> float:
    """NEES of one answer: chi-squared with 2 degrees of freedom where the covariance is true."""
    covariance = covariance_of(sample.scatter, position_std_m, scatter_gain)
    return float(sample.error_en_m @ np.linalg.solve(covariance, sample.error_en_m))


def _fit_covariance(samples: Sequence[Sample]) -> tuple[float, float]:
    """Standard deviation and scatter gain of greatest likelihood, then scaled so that 95 % lie inside 95 %."""
    from scipy.optimize import minimize

    scatters = np.stack([s.scatter for s in samples])
    errors = np.stack([s.error_en_m for s in samples])

    def negative_log_likelihood(logs: FloatArray) -> float:
        covariances = np.exp(logs[1]) * scatters + np.exp(2 * logs[0]) * np.eye(2)
        solved = np.linalg.solve(covariances, errors[:, :, None])[:, :, 0]
        return float((np.linalg.slogdet(covariances)[1] + (errors * solved).sum(axis=1)).mean())

    start = np.array([0.5 * math.log(max(float((errors**2).mean()), 1e-4)), -1.0])
    bounds = [(math.log(0.05), math.log(1e3)), (-12.0, 4.0)]
    best = minimize(negative_log_likelihood, start, method="L-BFGS-B", bounds=bounds).x
    sigma, gain = math.exp(best[0]), math.exp(best[1])
    nees = np.array([normalized_error(s, sigma, gain) for s in samples])
    # heavier tails than a Gaussian's: widen until the claimed 95 % is held, never narrow
    widen = max(1.0, float(np.quantile(nees, 0.95)) / 5.991)
    return sigma * math.sqrt(widen), gain * widen
