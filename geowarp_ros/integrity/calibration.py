"""Evidence into probability, and a covariance that holds what it claims: measured on held-out drives.

A calibration turns the evidence of one answer into the probability that its position is right, and corrects the
covariance so that its ellipses hold the share of true positions they claim. It belongs to one gallery, model and
re-ranker, and is stored with the gallery. NumPy and scikit-learn; no torch, no ROS.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from geowarp_ros.config import (
    LearnedMatcher,
    LocalizerConfig,
    MatchMethod,
    RerankMode,
    Section,
    first_problem,
)
from geowarp_ros.errors import GalleryError
from geowarp_ros.files import quoted, write_whole
from geowarp_ros.gallery.manifest import CALIBRATION, PLACES, read_manifest
from geowarp_ros.integrity.evidence import FEATURES, SIGNS, feature_row
from geowarp_ros.integrity.logistic import LEAST_OF_EACH, Logistic, fit_logistic
from geowarp_ros.integrity.trust import NEES_95, PoseSample, PoseTrust, fit_trust
from geowarp_ros.integrity.widening import widening
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.rerank.verification import KIND_OF, method_of
from geowarp_ros.types import Evidence, FloatArray

_RENAMED = ('"rerank.verification.', '"position.verification.')
"""Settings in calibrations of version 0.1, and their names since."""

LEAST_STD_M = 1.0
"""Minimum standard deviation (m), however good the answers of the calibration drive were."""

LOOKS_ALIKE = 0.5
"""Confidence of a wrong answer from which on its place is a look-alike: it is said to be more likely right."""

NO_INLIERS = 4
"""Number of inliers that say nothing: four matches determine a homography, whatever they are."""


class OwnPlace(Section):
    """What a gallery's own photographs said of its look-alikes, each asked about with its place left out."""

    photographs: str = Field(description="Checksum of what the gallery held, :func:`photographs_in`.")
    asked: int = Field(ge=0, description="Number of photographs asked about.")
    alike: int = Field(ge=0, description="Number that look like another place of the gallery.")
    fixes: int = Field(ge=0, description="Number that would have been a fix there, by the calibration before.")
    before: float = Field(ge=0.0, le=1.0, description="Minimum confidence of the calibration before.")


class Calibration(Logistic):
    """Logistic model of "this position is right", and the covariance's correction; likewise for poses."""

    title: str = Field("the gallery's calibration", description="Name, for people.")
    position_std_m: float = Field(gt=0.0, description="Horizontal standard deviation without scatter (m).")
    std_per_spacing: float = Field(
        0.0, ge=0.0, description="Standard deviation per metre of the gallery's spacing, added in quadrature."
    )
    scatter_gain: float = Field(ge=0.0, description="Factor on the candidates' scatter covariance.")
    correct_within_m: float = Field(gt=0.0, description="Maximum error of a right answer (m).")
    samples: int = Field(0, description="Number of answers it was fitted on.")
    measured_with: dict[str, str] = Field(
        default_factory=dict, description="Model and settings that it was measured with."
    )
    poses: dict[str, PoseTrust] = Field(
        default_factory=dict, description="Trust in poses, by the method that estimated them."
    )
    look_alikes: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of look-alikes among the wrong answers of the drive that has most; 0: not known.",
    )
    own: OwnPlace | None = Field(None, description="The gallery's own photographs; null: measured on drives.")

    @classmethod
    def known_features(cls) -> tuple[str, ...]:
        """Return the names of the evidence."""
        return FEATURES

    def confidence(self, evidence: Evidence) -> float:
        """Probability that the position is right, 0..1.

        0 if a feature it needs was not measured, or where the verification looked and found nothing: a picture
        unlike all that it was fitted on, such as noise, must not be convincing by its strangeness.
        """
        if evidence.inliers <= NO_INLIERS:
            return 0.0
        return self.probability(feature_row(evidence))

    def std_m(self, spacing_m: float) -> float:
        """Horizontal standard deviation without scatter in a gallery of that spacing, m."""
        return math.hypot(self.position_std_m, self.std_per_spacing * spacing_m)

    def at_place(self, own: OwnPlace, most: float) -> Calibration:
        """Return the calibration for a robot inside a gallery that has at most this share of look-alikes.

        The odds of being right are the density of right answers over that of wrong ones (Bayes' rule). Where
        convincing wrong answers are fewer than on the drive that set the minimum confidence, all odds are as much
        greater, and as much smaller ones by this calibration are enough. Never more is demanded than before: where
        look-alikes abound, only a prior tells them apart.

        Args:
            own: What the gallery's photographs said.
            most: Upper limit of the share of look-alikes, 0..1.
        """
        fewer = min(1.0, most / self.look_alikes) if self.look_alikes else 1.0
        before = wanted = self.min_confidence
        if fewer < 1.0 and before < 1.0:  # 1: nothing convinces
            odds = fewer * before / (1.0 - before)
            wanted = min(before, max(odds / (1.0 + odds), LOOKS_ALIKE))
        title = "the calibration by the gallery's own photographs"
        return self.model_copy(update={"title": title, "min_confidence": wanted, "own": own})

    def at_spacing(self, spacing_m: float) -> Calibration:
        """Return the calibration for galleries of one spacing."""
        return self.model_copy(update={"position_std_m": self.std_m(spacing_m), "std_per_spacing": 0.0})


def keypoints_used(config: LocalizerConfig, stored: KeypointConfig | None) -> KeypointConfig | None:
    """Return a gallery's stored keypoints if the settings use them, else None."""
    methods = (config.rerank.method, method_of(config.position.verify, stored))
    return stored if stored is not None and stored.kind in map(KIND_OF.get, methods) else None


def settings_of(config: LocalizerConfig, model_fingerprint: str, stored: KeypointConfig | None) -> dict[str, str]:
    """Return the settings that a calibration depends on.

    Args:
        config: The settings.
        model_fingerprint: The model.
        stored: Keypoints that the gallery stores; None: none, so that they are detected in its images.
    """
    keypoints = stored if config.position.estimate == "pose" else keypoints_used(config, stored)
    return {
        "model": model_fingerprint,
        "retrieval.candidates": str(config.retrieval.candidates),
        "rerank.method": config.rerank.method,
        **({"score": "inliers"} if config.rerank.method in get_args(MatchMethod) else {}),  # 0.1: inliers / 225
        "rerank.mode": config.rerank.mode,
        "rerank.candidates": str(config.rerank.candidates),
        "rerank.retrieval_weight": f"{config.rerank.retrieval_weight:g}",
        # where a pose is not trusted, it is the cluster that answers
        "position.estimate": "best" if config.position.estimate == "best" else "cluster",
        "position.cluster_radius_m": f"{config.position.cluster_radius_m:g}",
        **_verification(config, stored),
        **({"keypoints": str(keypoints)} if keypoints else {}),
        **_matcher_weights(config),
    }


def _matcher_weights(config: LocalizerConfig) -> dict[str, str]:
    """Fingerprint of the weights of the networks that match, if any does."""
    methods = {config.rerank.method, config.position.verify} & set(get_args(LearnedMatcher))
    if not methods:
        return {}
    from geowarp_ros.model.describer import choose_device
    from geowarp_ros.model.learned import load_matcher

    device = choose_device(config.device)  # where they are loaded already
    found = (load_matcher(cast(LearnedMatcher, m), config.matcher_weights, device) for m in sorted(methods))
    return {"matcher_weights": ", ".join(one.weights for one in found)}


def _verification(config: LocalizerConfig, stored: KeypointConfig | None) -> dict[str, str]:
    """Settings of the verification, without those that are not read; what is automatic as what it is here."""
    if config.position.verify == "none":
        return {"position.verify": "none"}
    options = config.position.verification
    return {
        "position.verify": method_of(config.position.verify, stored),
        "position.verify_candidates": str(config.position.verify_candidates),
        **{
            f"position.verification.{name}": f"{getattr(options, name):g}"
            for name in ("keypoints", "ratio", "threshold_px")
        },
    }


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration, whole or not at all.

    Raises:
        GalleryError: It cannot be written.
    """
    write_whole(path, (calibration.model_dump_json(indent=2) + "\n").encode(), GalleryError)


def load_calibration(path: Path) -> Calibration | None:
    """Read a calibration; None where there is none.

    Raises:
        GalleryError: The file is there and is no calibration.
    """
    if not path.exists():
        return None
    try:
        found = Calibration.model_validate_json(path.read_text(encoding="utf-8").replace(*_RENAMED))
        return found.model_copy(update={"measured_with": _by_kind(found.measured_with)})
    except ValidationError as error:
        problem = first_problem(error)
    except (OSError, ValueError) as error:
        problem = str(error)
    raise GalleryError(f"{path}: is no calibration, run 'geowarp calibrate' again: {problem}")


def _by_kind(measured_with: dict[str, str]) -> dict[str, str]:
    """Until 0.2 ``sift`` meant the keypoints that the gallery stored, XFeat's too."""
    if not measured_with.get("keypoints", "").startswith("xfeat"):
        return measured_with
    old = ("rerank.method", "position.verify")
    return {n: "xfeat" if n in old and value == "sift" else value for n, value in measured_with.items()}


def find_calibration(
    config: LocalizerConfig,
    model_fingerprint: str,
    stored: KeypointConfig | None,
    model: Path,
    gallery: Path,
    spacing_m: float,
) -> tuple[Calibration | None, list[str]]:
    """Return the calibration that applies: the gallery's, else the one beside the model file.

    Args:
        config: The settings now.
        model_fingerprint: The model now.
        stored: Keypoints that the gallery stores; None: none.
        model: Its file.
        gallery: Folder of the gallery.
        spacing_m: Distance between its places, m.

    Returns:
        The first calibration that was measured with these settings, or None; and a line for each other one that
        says why it is not used.

    Raises:
        GalleryError: A file is there and is no calibration.
    """
    here = settings_of(config, model_fingerprint, stored)
    refused: list[str] = []
    for path in (gallery / CALIBRATION, _of_model(model, config, stored)):
        calibration = load_calibration(path)
        if calibration is None:
            continue
        why = _why_not(calibration, here) or stale(calibration, gallery)
        if not why:
            return calibration.at_spacing(spacing_m), refused
        refused.append(f"{calibration.title} is not used: {why}")
    return None, refused


def models_calibration(
    config: LocalizerConfig, model_fingerprint: str, stored: KeypointConfig | None, model: Path
) -> tuple[Calibration | None, str]:
    """Return the calibration beside the model file, or None and why none applies."""
    calibration = load_calibration(_of_model(model, config, stored))
    if calibration is None:
        return None, f"none lies beside {model}"
    why = _why_not(calibration, settings_of(config, model_fingerprint, stored))
    return (None, f"{calibration.title} does not apply: {why}") if why else (calibration, "")


def _why_not(calibration: Calibration, here: dict[str, str]) -> str:
    """Which settings it was not measured with; empty if it was measured with all of these."""
    measured = calibration.measured_with
    names = [name for name in dict.fromkeys([*measured, *here]) if measured.get(name) != here.get(name)]
    other = ", ".join(f"{name} = {measured.get(name)!r} (now {here.get(name)!r})" for name in names)
    return f"it was measured with {other}" if other else ""


def photographs_in(gallery: Path) -> str:
    """Checksum of the places that a gallery holds, 32 hex digits; an alignment or an index does not change it.

    Raises:
        GalleryError: There is no gallery, or its manifest is broken.
    """
    digest = hashlib.blake2b(digest_size=16)
    for segment in read_manifest(gallery, with_index=False).segments:
        digest.update("\0".join([segment.files[PLACES].blake2b, *sorted(segment.removed), ""]).encode())
    return digest.hexdigest()


def stale(calibration: Calibration, gallery: Path) -> str:
    """Why a calibration by a gallery's own photographs no longer holds, and what to do; empty if it holds."""
    if calibration.own is None or calibration.own.photographs == photographs_in(gallery):
        return ""
    command = f"geowarp gallery calibrate {quoted(gallery)} --never-outside"
    return f"photographs were added or removed since; '{command}' makes it anew"


def beside_model(model: Path, mode: RerankMode, verify: str = "sift") -> Path:
    """Where the calibration lies that holds for any gallery of a model file.

    Args:
        model: The file.
        mode: How candidates are re-ranked.
        verify: What verifies them; ``auto`` is not among these.
    """
    return model.with_name(f"{model.stem}.{mode}.{'' if verify == 'sift' else f'{verify}.'}calibration.json")


def _of_model(model: Path, config: LocalizerConfig, stored: KeypointConfig | None) -> Path:
    """The model's calibration for the settings; where there is none, another: it is said why it is not used."""
    path = beside_model(model, config.rerank.mode, method_of(config.position.verify, stored))
    names = (f"{escape(model.stem)}{mode}.calibration.json" for mode in (".*", ""))  # "": of version 0.1
    others = [other for name in names for other in sorted(model.parent.glob(name))]
    return path if path.exists() else next(iter(others), path)


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the localizer to an image whose position is known.

    Attributes:
        evidence: Evidence of the answer.
        error_m: Distance of the answer from the truth; infinite where the true place was not in the gallery.
        error_en_m: (2,) east and north error, m; NaN likewise.
        scatter: (2, 2) scatter of the agreeing candidates about the answer, m².
        correct_within_m: What counts as right where it was taken.
        spacing_m: Distance between the gallery's places, m.
        posed: The pose and its errors; None where there is no pose.
    """

    evidence: Evidence
    error_m: float
    error_en_m: FloatArray
    scatter: FloatArray
    correct_within_m: float
    spacing_m: float
    posed: PoseSample | None = None

    @property
    def right(self) -> bool:
        """Whether the answer counts as right."""
        return self.error_m <= self.correct_within_m


def fit_calibration(
    samples: Sequence[Sample], false_fix_rate: float = 0.01, seed: int = 0, drives: Sequence[int] = ()
) -> tuple[Calibration, dict[str, float]]:
    """Fit a calibration on answers from held-out drives.

    The confidence that each sample would have had is found by 5-fold cross-validation; the minimum confidence
    follows from it (:func:`fit_logistic`). Standard deviation and scatter gain maximise the likelihood of
    the errors of the right ones among those kept, and of those more likely right than wrong.

    Args:
        samples: Answers, right and wrong; the wrong ones may come from leaving the true place out of the gallery.
        false_fix_rate: Wanted share of wrong positions among those published, 0..1.
        seed: Seed of the folds.
        drives: Number of the drive of each sample, which are held to the rate one by one; empty: all are of one.

    Returns:
        The calibration, and what the cross-validation showed: ``auc``, ``brier``, ``availability`` (share of the
        right samples kept), ``false_fix_rate``, ``mean_nees``, ``inside_95``; the numbers of ``right`` answers, of
        those ``kept``, and of the ``ellipses`` looked at.

    Raises:
        ValueError: Fewer than ten right or ten wrong samples.
    """
    right = np.array([sample.right for sample in samples], bool)
    rows = (
        np.stack([feature_row(sample.evidence) for sample in samples]) if samples else np.empty((0, len(FEATURES)))
    )
    fitted = fit_logistic(rows, FEATURES, right, false_fix_rate, seed, drives, SIGNS)
    # where few are kept, the right ones that are more likely right than wrong tell the covariance, too
    telling = right & (fitted.kept | (fitted.held_out >= LOOKS_ALIKE))
    telling = telling if telling.any() else right
    sigma, per_spacing, gain = _fit_covariance([samples[row] for row in np.flatnonzero(telling).tolist()])
    calibration = Calibration.model_validate(
        {
            **fitted.values,
            "position_std_m": sigma,
            "std_per_spacing": per_spacing,
            "scatter_gain": gain,
            "correct_within_m": max(sample.correct_within_m for sample in samples),
            "samples": len(samples),
            "poses": fit_trust([s.posed for s in samples if s.posed is not None], false_fix_rate, seed),
            "look_alikes": _look_alikes(fitted.held_out, right, drives),
        }
    )
    published = fitted.kept & right if (fitted.kept & right).any() else telling
    nees = np.array([normalized_error(samples[row], calibration) for row in np.flatnonzero(published).tolist()])
    summary = {
        **fitted.summary,
        "mean_nees": float(nees.mean()),
        "inside_95": float((nees <= NEES_95).mean()),
        "ellipses": float(len(nees)),
    }
    return calibration, summary


def _look_alikes(held_out: FloatArray, right: NDArray[np.bool_], drives: Sequence[int]) -> float:
    """Share of wrong answers that look right, on the drive that has most; drives with few do not count."""
    of = np.asarray(drives) if len(drives) else np.zeros(len(right))
    wrong = [held_out[~right & (of == drive)] for drive in np.unique(of)]
    return max((float((c >= LOOKS_ALIKE).mean()) for c in wrong if len(c) >= LEAST_OF_EACH), default=0.0)


def covariance_of(scatter: FloatArray, position_std_m: float, scatter_gain: float) -> FloatArray:
    """(2, 2) horizontal covariance, m²: gain·scatter + std²·I."""
    return np.asarray(scatter_gain * scatter + position_std_m**2 * np.eye(2))


def normalized_error(sample: Sample, calibration: Calibration) -> float:
    """NEES of one answer: chi-squared with 2 degrees of freedom where the covariance is true."""
    std_m = calibration.std_m(sample.spacing_m)
    covariance = covariance_of(sample.scatter, std_m, calibration.scatter_gain)
    return float(sample.error_en_m @ np.linalg.solve(covariance, sample.error_en_m))


def _fit_covariance(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """Standard deviation, its growth with the spacing, and scatter gain, of greatest likelihood; then scaled.

    Errors are not Gaussian, and may be few: the covariance is scaled by :func:`widening`.
    The growth is 0 where all galleries have one spacing, which cannot tell it.
    """
    from scipy.optimize import minimize

    scatters = np.stack([s.scatter for s in samples])
    errors = np.stack([s.error_en_m for s in samples])
    spacings = np.array([s.spacing_m for s in samples])
    grows = float(spacings.max()) > 1.5 * float(spacings.min())

    def covariances(logs: FloatArray) -> FloatArray:
        variance = np.exp(2 * logs[0]) + grows * np.exp(2 * logs[2]) * spacings**2
        return np.asarray(np.exp(logs[1]) * scatters + variance[:, None, None] * np.eye(2))

    def nees(logs: FloatArray) -> FloatArray:
        return np.asarray((errors * np.linalg.solve(covariances(logs), errors[:, :, None])[:, :, 0]).sum(axis=1))

    def negative_log_likelihood(logs: FloatArray) -> float:
        return float((np.linalg.slogdet(covariances(logs))[1] + nees(logs)).mean())

    start = np.array([0.5 * math.log(max(float((errors**2).mean()), 1e-4)), -1.0, -1.0])
    bounds = [(math.log(LEAST_STD_M), math.log(1e3)), (-12.0, 0.0), (math.log(0.01), math.log(10.0))]
    best = minimize(negative_log_likelihood, start, method="L-BFGS-B", bounds=bounds).x
    scale = widening(nees(best), 2, 2 + grows)
    widen = math.sqrt(scale)
    sigma, per_spacing = max(LEAST_STD_M, math.exp(best[0]) * widen), grows * math.exp(best[2]) * widen
    return sigma, per_spacing, math.exp(best[1]) * scale
