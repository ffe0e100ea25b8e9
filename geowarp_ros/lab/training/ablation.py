"""The paper's ablations on any data set: loss terms (Table 3) and warping coefficient k (Figure 6)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines import Method
from geowarp_ros.lab.studies.metrics import recall_at
from geowarp_ros.lab.training.data import Photographs
from geowarp_ros.lab.training.parameters import K_SWEEP, SessionConfig, WarpConfig
from geowarp_ros.lab.training.recall import gallery_of, rank_candidates
from geowarp_ros.lab.training.session import BEST
from geowarp_ros.lab.training.warping import train_warp, with_regression
from geowarp_ros.model.checkpoints import load_model, read_header
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray


class Terms(NamedTuple):
    """Loss weights of one row of Table 3."""

    ss: float
    fw: float
    cons: float


LOSS_TABLE = tuple(Terms(ss, fw, cons) for ss in (0.0, 1.0) for fw in (0.0, 10.0) for cons in (0.0, 0.1))
"""Table 3 in the paper's order; without any loss the images are compared unwarped."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Result of one variant.

    Attributes:
        name: Display name.
        features: ``global``: retrieval; ``local``: re-ranked by eq. 4.
        terms: Loss weights.
        k: Warping coefficient.
        corner_error: On held-out generated pairs (half image sides); NaN if untrained.
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
    """Trains variants of R for one encoder and evaluates each on the same shortlists.

    Attributes:
        model: Model file whose encoder is used.
        photographs: Training images.
        held_out: Images for the corner error.
        queries: Queries to evaluate.
        places: Gallery to search.
        config: Training parameters; variants change the loss weights and k only.
        session: Session parameters of all trainings.
        thresholds_m: Recall thresholds.
        output: Output folder with one training per variant; finished trainings are reused.
        candidates: Re-ranked candidates.
        progress: Progress display.
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
    progress: Progress = silent

    def losses(self) -> list[Measured]:
        """Evaluate Table 3: retrieval alone, then each combination of losses."""
        k, describer = self.config.k, Describer(self._fresh(), "cpu")
        with gallery_of(self.places, describer, self.progress) as gallery:
            recall = self._recall(describer, gallery, "none")
            rows = [Measured("global", "global", Terms(0.0, 0.0, 0.0), k, float("nan"), recall)]
            for terms in self.progress(LOSS_TABLE, len(LOSS_TABLE), "losses"):
                name = f"ss{terms.ss:g}_fw{terms.fw:g}_cons{terms.cons:g}"
                rows.append(self._variant(name, terms, k, gallery))
        return rows

    def coefficients(self, sweep: Sequence[float] = K_SWEEP) -> list[Measured]:
        """Evaluate Figure 6: each k with the configured losses."""
        terms = Terms(self.config.lambda_ss, self.config.lambda_fw, self.config.lambda_cons)
        with gallery_of(self.places, Describer(self._fresh(), "cpu"), self.progress) as gallery:
            return [
                self._variant(f"k{k:g}", terms, k, gallery)
                for k in self.progress(sweep, len(sweep), "coefficients")
            ]

    def _fresh(self) -> GeoWarp:
        return with_regression(load_model(self.model), fresh=True)

    def _variant(self, name: str, terms: Terms, k: float, gallery: Gallery) -> Measured:
        folder = self.output / name
        model, error = self._fresh(), float("nan")
        if any(terms):
            if not (folder / BEST).exists():
                weights = {"lambda_ss": terms.ss, "lambda_fw": terms.fw, "lambda_cons": terms.cons}
                config = self.config.model_copy(update={**weights, "k": k})
                train_warp(model, self.photographs, self.held_out, config, self.session, folder)
            model = load_model(folder / BEST)
            error = float(read_header(folder / BEST)["corner_error"])
        return Measured(name, "local", terms, k, error, self._recall(Describer(model, "cpu"), gallery, "geowarp"))

    def _recall(self, describer: Describer, gallery: Gallery, method: Method) -> FloatArray:
        (outcome,) = rank_candidates(describer, gallery, self.queries, [method], self.candidates)
        return np.array([recall_at(outcome.error_m, 1, threshold) for threshold in self.thresholds_m])


def markdown_table(rows: Sequence[Measured], thresholds_m: Sequence[float]) -> str:
    """Return the results as a Markdown table with the paper's columns."""
    head = ["features", "λ_ss", "λ_fw", "λ_cons", "k", "corner error", *(f"R@1 {t:g} m" for t in thresholds_m)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        error = "–" if np.isnan(row.corner_error) else f"{row.corner_error:.3f}"
        cells = [row.features, *(f"{weight:g}" for weight in row.terms), f"{row.k:g}", error]
        lines.append("| " + " | ".join([*cells, *(f"{value:.1f}" for value in row.recall)]) + " |")
    return "\n".join(lines) + "\n"


def write_tables(rows: Sequence[Measured], thresholds_m: Sequence[float], folder: Path, name: str) -> str:
    """Write ``name``.csv and ``name``.md to a folder; return the Markdown table."""
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        recalls = [f"recall_at_1_{t:g}m" for t in thresholds_m]
        writer.writerow(
            ["name", "features", "lambda_ss", "lambda_fw", "lambda_cons", "k", "corner_error", *recalls]
        )
        for row in rows:
            writer.writerow([row.name, row.features, *row.terms, row.k, row.corner_error, *row.recall])
    table = markdown_table(rows, thresholds_m)
    (folder / f"{name}.md").write_text(table)
    return table


def plot_coefficients(rows: Sequence[Measured], thresholds_m: Sequence[float], path: Path) -> None:
    """Plot Recall@1 over k, one curve per threshold, as in Figure 6."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for column, threshold in enumerate(thresholds_m):
        axis.plot([row.k for row in rows], [row.recall[column] for row in rows], "o-", label=f"{threshold:g} m")
    axis.set_xlabel("warping coefficient k")
    axis.set_ylabel("Recall@1, %")
    axis.grid(alpha=0.3)
    axis.legend(title="within", frameon=False)
    figure.savefig(path, dpi=150)
