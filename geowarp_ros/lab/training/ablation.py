"""The paper's ablations on any data set: the loss terms (Table 3) and the warping coefficient k (Figure 6)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geowarp_ros.lab.training.data import Photographs
from geowarp_ros.lab.training.recall import Shortlists, recall_at, retrieve, score
from geowarp_ros.lab.training.session import BEST, SessionConfig
from geowarp_ros.lab.training.warping import WarpConfig, train_warp, with_regression
from geowarp_ros.model.checkpoints import load_model, read_header
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray


class Terms(NamedTuple):
    """One row of Table 3: the weights of the losses."""

    ss: float
    fw: float
    cons: float


LOSS_TABLE = tuple(Terms(ss, fw, cons) for ss in (0.0, 1.0) for fw in (0.0, 10.0) for cons in (0.0, 0.1))
"""Table 3, in the paper's order; with no loss at all the local features are compared as the images are."""

K_SWEEP = (0.2, 0.4, 0.6, 0.8)
"""Warping coefficients of Figure 6."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One trained variant.

    Attributes:
        name: For people.
        features: ``global`` is retrieval alone, ``local`` a re-ranking of its candidates by eq. 4.
        terms: Weights of the losses.
        k: Warping coefficient.
        corner_error: On held-out generated pairs, half image sides; NaN where nothing was trained.
        recall: (T,) Recall@1 in percent at each threshold.
    """

    name: str
    features: str
    terms: Terms
    k: float
    corner_error: float
    recall: FloatArray


@dataclass(frozen=True)
class Ablation:
    """Trains variants of R for one encoder and measures each on the same shortlists.

    Attributes:
        model: Path of the model whose encoder is kept.
        photographs: To train with.
        held_out: For the corner error.
        queries: To measure on.
        places: The gallery to measure on.
        config: Of every training; the variants change λ's and k alone.
        session: Of every training: one seed for all.
        thresholds_m: Of the recall.
        output: Folder; each variant trains in a folder of its own and is not trained again where that is done.
        candidates: How many places are re-ranked.
    """

    model: str
    photographs: Photographs
    held_out: Photographs
    queries: Sequence[SourceImage]
    places: Sequence[SourceImage]
    config: WarpConfig
    session: SessionConfig
    thresholds_m: Sequence[float]
    output: Path
    candidates: int = 5

    def losses(self, table: Sequence[Terms] = LOSS_TABLE, progress: Progress = silent) -> list[Measured]:
        """Table 3: retrieval alone, then each combination of losses."""
        describer = Describer(self._fresh(), "cpu")
        found = self._shortlists(describer, progress)
        nothing, k = Terms(0.0, 0.0, 0.0), self.config.k
        rows = [
            Measured("global", "global", nothing, k, float("nan"), recall_at(found.error_m, self.thresholds_m))
        ]
        for terms in progress(table, len(table), "losses"):
            name = f"ss{terms.ss:g}_fw{terms.fw:g}_cons{terms.cons:g}"
            rows.append(self._variant(name, terms, k, found))
        return rows

    def coefficients(self, sweep: Sequence[float] = K_SWEEP, progress: Progress = silent) -> list[Measured]:
        """Figure 6: each k with the configured losses."""
        found = self._shortlists(Describer(self._fresh(), "cpu"), progress)
        terms = Terms(self.config.lambda_ss, self.config.lambda_fw, self.config.lambda_cons)
        return [self._variant(f"k{k:g}", terms, k, found) for k in progress(sweep, len(sweep), "k")]

    def _fresh(self) -> GeoWarp:
        return with_regression(load_model(self.model), fresh=True)

    def _shortlists(self, describer: Describer, progress: Progress) -> Shortlists:
        return retrieve(describer, self.queries, self.places, self.candidates, progress=progress)

    def _variant(self, name: str, terms: Terms, k: float, found: Shortlists) -> Measured:
        folder = self.output / name
        model, error = self._fresh(), float("nan")
        if any(terms):
            if not (folder / BEST).exists():
                config = self.config.model_copy(
                    update={"lambda_ss": terms.ss, "lambda_fw": terms.fw, "lambda_cons": terms.cons, "k": k}
                )
                train_warp(model, self.photographs, self.held_out, config, self.session, folder)
            model = load_model(folder / BEST)
            error = float(read_header(folder / BEST)["corner_error"])
        describer = Describer(model, "cpu")
        warped, _ = score(found, describer, Warper(describer))
        return Measured(name, "local", terms, k, error, recall_at(found.error_m, self.thresholds_m, warped))


def markdown_table(rows: Sequence[Measured], thresholds_m: Sequence[float]) -> str:
    """Return the rows as a Markdown table with the paper's columns."""
    head = ["features", "λ_ss", "λ_fw", "λ_cons", "k", "corner error", *(f"R@1 {t:g} m" for t in thresholds_m)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        error = "–" if np.isnan(row.corner_error) else f"{row.corner_error:.3f}"
        cells = [row.features, *(f"{weight:g}" for weight in row.terms), f"{row.k:g}", error]
        lines.append("| " + " | ".join([*cells, *(f"{value:.1f}" for value in row.recall)]) + " |")
    return "\n".join(lines) + "\n"


def write_csv(rows: Sequence[Measured], thresholds_m: Sequence[float], path: Path) -> None:
    """Write the rows, one line each."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        recalls = [f"recall_at_1_{t:g}m" for t in thresholds_m]
        writer.writerow(
            ["name", "features", "lambda_ss", "lambda_fw", "lambda_cons", "k", "corner_error", *recalls]
        )
        for row in rows:
            writer.writerow([row.name, row.features, *row.terms, row.k, row.corner_error, *row.recall])


def plot_coefficients(rows: Sequence[Measured], thresholds_m: Sequence[float], path: Path) -> None:
    """Draw Recall@1 against k, one curve per threshold, as Figure 6."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for column, threshold in enumerate(thresholds_m):
        axis.plot([row.k for row in rows], [row.recall[column] for row in rows], "o-", label=f"{threshold:g} m")
    axis.set_xlabel("warping coefficient k")
    axis.set_ylabel("Recall@1, %")
    axis.grid(alpha=0.3)
    axis.legend(title="within", frameon=False)
    figure.savefig(path, dpi=150)
