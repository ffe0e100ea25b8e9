"""Recall as curves: against the threshold, and against the number of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geowarp_ros.lab.studies.dataset import Outcome
from geowarp_ros.lab.studies.metrics import recall_at
from geowarp_ros.lab.studies.tables import TITLES


def write_recall_plot(outcomes: Sequence[Outcome], thresholds_m: Sequence[float], title: str, path: Path) -> None:
    """Draw Recall@1 over thresholds up to the largest, and Recall@N at the middle one, to a PNG."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    by_threshold, by_number = figure.subplots(1, 2)
    models = list(dict.fromkeys(outcome.contender.label for outcome in outcomes))
    styles = ("-", "--", ":", "-.")
    metres = np.linspace(0, max(thresholds_m), 101)
    middle = sorted(thresholds_m)[len(thresholds_m) // 2]
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    for outcome in outcomes:
        name = TITLES[outcome.method] or "retrieval"
        style = {
            "label": f"{outcome.contender.label}, {name}" if len(models) > 1 else name,
            "color": f"C{methods.index(outcome.method) % 10}",
            "linestyle": styles[models.index(outcome.contender.label) % len(styles)],
            "linewidth": 1.5,
        }
        numbers = np.arange(1, outcome.error_m.shape[1] + 1)
        by_threshold.plot(metres, [recall_at(outcome.error_m, 1, float(t)) for t in metres], **style)
        by_number.plot(numbers, [recall_at(outcome.error_m, int(n), middle) for n in numbers], **style)
    by_threshold.set(xlabel="distance that counts as right, m", ylabel="Recall@1, %", xlim=(0, metres[-1]))
    by_number.set(xlabel="N candidates", ylabel=f"Recall@N within {middle:g} m, %", xlim=(1, None))
    for axes in (by_threshold, by_number):
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
    by_number.legend(fontsize="small", loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
