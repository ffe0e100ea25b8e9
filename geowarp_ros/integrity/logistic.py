"""A logistic model of "this is right", fitted on answers whose truth is known. Stored as JSON, no pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from geowarp_ros.config import Section
from geowarp_ros.types import FloatArray

BoolArray = NDArray[np.bool_]


class Logistic(Section):
    """Probability from standardised features."""

    features: tuple[str, ...] = Field(description="Names of the features used.")
    mean: tuple[float, ...] = Field(description="Mean of each feature on the calibration drive.")
    scale: tuple[float, ...] = Field(description="Standard deviation of each feature on that drive.")
    weights: tuple[float, ...] = Field(description="Logistic weights of the standardised features.")
    intercept: float = Field(description="Logistic intercept.")
    min_confidence: float = Field(ge=0.0, le=1.0, description="Minimum confidence that kept the false-fix rate.")

    @model_validator(mode="after")
    def _fits_together(self) -> Logistic:
        columns = (self.mean, self.scale, self.weights)
        if any(len(column) != len(self.features) for column in columns):
            raise ValueError(f"expected a mean, a scale and a weight for each of {len(self.features)} features")
        if unknown := set(self.features) - set(self.known_features()):
            raise ValueError(f"features has {unknown.pop()!r}, expected of {', '.join(self.known_features())}")
        numbers = [value for column in columns for value in column]
        if not all(map(math.isfinite, [*numbers, self.intercept])) or not all(value > 0 for value in self.scale):
            raise ValueError("expected finite numbers, and every scale above 0")
        return self

    @classmethod
    def known_features(cls) -> tuple[str, ...]:
        """Return the names of all features, in the order of a row of them."""
        raise NotImplementedError

    def probability(self, row: FloatArray) -> float:
        """Probability that it is right, 0..1; 0 if a feature it needs was not measured (NaN)."""
        names = self.known_features()
        chosen = row[[names.index(name) for name in self.features]]
        if not np.isfinite(chosen).all():
            return 0.0
        standard = np.clip((chosen - np.array(self.mean)) / np.array(self.scale), -8.0, 8.0)
        return float(1.0 / (1.0 + np.exp(-(float(standard @ np.array(self.weights)) + self.intercept))))


@dataclass(frozen=True, slots=True)
class FittedLogistic:
    """A fitted model before it is stored.

    Attributes:
        values: Values of the fields of :class:`Logistic`.
        held_out: (N,) probability of each answer by models that have not seen it.
        summary: ``auc`` and ``brier`` of ``held_out``, ``availability`` (share of the right ones kept) and
            ``false_fix_rate`` (share of wrong ones among those kept); ``right`` and ``kept``, how many are.
    """

    values: dict[str, object]
    held_out: FloatArray
    summary: dict[str, float]

    @property
    def kept(self) -> BoolArray:
        """(N,) whether each answer would be published."""
        return np.asarray(self.held_out >= float(self.values["min_confidence"]))  # type: ignore[arg-type]


LEAST_OF_EACH = 10
"""Minimum number of right and of wrong answers to fit on."""


def fit_logistic(
    rows: FloatArray,
    names: Sequence[str],
    right: BoolArray,
    false_fix_rate: float,
    seed: int = 0,
    drives: Sequence[int] = (),
    signs: Mapping[str, int] = MappingProxyType({}),
) -> FittedLogistic:
    """Fit a model; the minimum confidence follows from 5-fold cross-validation.

    Many answers of one kind of place must not hide the wrong ones of another: where answers are of several drives,
    each of them is held to the rate, but for one wrong answer.

    A feature whose weight says the opposite of what it means is left out, the worst first: correlated with others
    on these drives, it balances them here; elsewhere, as for noise, it would convince by what speaks against it.

    Args:
        rows: (N, F) features; one that is NaN anywhere is not used.
        names: Their F names.
        right: (N,) whether each answer is right.
        false_fix_rate: Wanted share of wrong ones among those kept, 0..1.
        seed: Seed of the folds.
        drives: Number of the drive of each answer; empty: all are of one.
        signs: Whether more of a feature speaks for (1) or against (-1) an answer, where it is known which.

    Raises:
        ValueError: Fewer than LEAST_OF_EACH right or wrong ones.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(right.sum(), (~right).sum()) < LEAST_OF_EACH:
        raise ValueError(
            f"{right.sum()} right and {(~right).sum()} wrong answers; at least {LEAST_OF_EACH} of each are needed"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    used: BoolArray = np.asarray(np.isfinite(rows).all(axis=0))
    meant = np.array([signs.get(name, 0) for name in names])
    while True:
        said = meant[used] * model.fit(rows[:, used], right)[1].coef_[0]
        if said.min() >= 0 or used.sum() == 1:
            break
        used[np.flatnonzero(used)[said.argmin()]] = False
    rows = rows[:, used]
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    held_out = cross_val_predict(model, rows, right, cv=folds, method="predict_proba")[:, 1]
    threshold = minimum_confidence(held_out, right, false_fix_rate)
    for drive in np.unique(drives):
        here = np.asarray(drives) == drive
        threshold = max(threshold, minimum_confidence(held_out[here], right[here], false_fix_rate, forgiven=1))
    kept = held_out >= threshold
    scaler, logistic = model[0], model[1]
    values: dict[str, object] = {
        "features": tuple(name for name, use in zip(names, used, strict=True) if use),
        "mean": tuple(scaler.mean_.tolist()),
        "scale": tuple(scaler.scale_.tolist()),
        "weights": tuple(logistic.coef_[0].tolist()),
        "intercept": float(logistic.intercept_[0]),
        "min_confidence": threshold,
    }
    summary = {
        "auc": float(roc_auc_score(right, held_out)),
        "brier": float(brier_score_loss(right, held_out)),
        "availability": float((kept & right).sum() / right.sum()),
        "false_fix_rate": float((kept & ~right).sum() / max(kept.sum(), 1)),
        "right": float(right.sum()),
        "kept": float(kept.sum()),
    }
    return FittedLogistic(values, held_out, summary)


def minimum_confidence(
    confidence: FloatArray, right: BoolArray, false_fix_rate: float, forgiven: int = 0
) -> float:
    """Smallest threshold that holds the wanted rate of wrong ones among those kept; 1 if none does.

    Where so few are kept that a single wrong one breaks the rate, counting says little: one is then forgiven if
    the confidences themselves promise the rate; as many as ``forgiven`` are in any case.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    # equal confidences cannot be told apart by a threshold: look at the last of each run
    last = np.flatnonzero(np.diff(ordered, append=-np.inf))
    wrong, expected = np.cumsum(~right[order])[last], np.cumsum(1 - ordered)[last]
    allowed = np.maximum(false_fix_rate * (last + 1), forgiven)
    good = np.flatnonzero((wrong <= allowed) | ((wrong <= 1) & (expected <= allowed)))
    return float(ordered[last[good[-1]]]) if len(good) else 1.0
