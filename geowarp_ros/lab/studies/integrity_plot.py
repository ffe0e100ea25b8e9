"""Precision against availability as the minimum confidence falls, drive by drive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.fixes import Judged


def write_tradeoff_plot(
    curves: Sequence[tuple[str, Judged, float]], min_confidence: float, title: str, path: Path
) -> None:
    """Draw false fixes over availability, and both over the minimum confidence, to a PNG.

    Args:
        curves: Name, answers and error limit of a right fix (m) of each drive.
        min_confidence: Minimum confidence in use, marked.
        title: Title above both axes.
        path: Path of the PNG.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    tradeoff_axes, threshold_axes = figure.subplots(1, 2)
    for number, (name, judged, correct_within_m) in enumerate(curves):
        colour = f"C{number % 10}"
        tradeoff = fixes.precision_availability(judged, correct_within_m)
        false = 100 * (1 - tradeoff.precision)
        tradeoff_axes.step(100 * tradeoff.availability, false, where="pre", color=colour, label=name)
        used = np.flatnonzero(tradeoff.threshold >= min_confidence)
        if len(used):
            tradeoff_axes.plot(100 * tradeoff.availability[used[-1]], false[used[-1]], "o", color=colour)
        threshold_axes.plot(tradeoff.threshold, 100 * tradeoff.availability, color=colour, label=name)
        threshold_axes.plot(tradeoff.threshold, false, color=colour, linestyle=":")
    tradeoff_axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    tradeoff_axes.set(xlabel="images with a fix, %", ylabel="false among the fixes, %", xlim=(0, 100))
    tradeoff_axes.set_ylim(0, 20)
    tradeoff_axes.legend(fontsize="small", loc="upper left")
    threshold_axes.axvline(min_confidence, color="grey", linewidth=0.8, linestyle="--")
    threshold_axes.set(xlabel="minimum confidence", ylabel="fixes (solid), false ones (dotted), %", xlim=(0, 1))
    threshold_axes.set_ylim(0, 100)
    for axes in (tradeoff_axes, threshold_axes):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
