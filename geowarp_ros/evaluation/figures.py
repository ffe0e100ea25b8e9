"""The report's figures, drawn with Plotly. Axes, grid and text take their colours from the page and its theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.types import FloatArray

GOOD, DOUBTFUL, BAD, QUIET, FIRST, SECOND = "#2a9d8f", "#e0a030", "#d1495b", "#8a93a0", "#3b7dd8", "#d9822b"
"""Colours that are readable on white and on near-black."""

ERROR_SCALE = [[0.0, GOOD], [0.5, DOUBTFUL], [1.0, BAD]]

_DOTTED = {"dash": "dot", "color": QUIET, "width": 1.5}
_DASHED = {"dash": "dash", "color": QUIET, "width": 1}


def error_cdf(runs: Sequence[tuple[str, Judged]], thresholds_m: Sequence[float]) -> go.Figure:
    """Draw the share of all images with a fix within a distance of the truth; it ends at the availability."""
    figure = go.Figure()
    for (name, judged), colour in zip(runs, (FIRST, SECOND), strict=False):
        errors, shares = fixes.cumulative(judged.error_m[judged.fixed], len(judged))
        line = {"shape": "hv", "color": colour, "width": 2}
        hover = "%{y:.1%} of all images within %{x:.2f} m"
        _add(figure, np.maximum(errors, 0.01), shares, name, hover, line=line)
    for metres in thresholds_m:
        figure.add_vline(x=metres, line={"width": 1, "dash": "dot", "color": QUIET})
    figure.update_layout(
        xaxis=_axis("error, m", type="log", dtick="D2"),
        yaxis=_share_axis("share of all images"),
        showlegend=len(runs) > 1,
    )
    return figure


def precision_availability(runs: Sequence[tuple[str, Judged]], correct_within_m: float) -> go.Figure:
    """Draw precision against availability as the minimum confidence falls; a diamond marks the run."""
    figure = go.Figure()
    lowest = 0.9
    for (name, judged), colour in zip(runs, (FIRST, SECOND), strict=False):
        curve = fixes.precision_availability(judged, correct_within_m)
        lowest = min(lowest, float(curve.precision.min(initial=1.0)) - 0.05)
        _add(
            figure, curve.availability, curve.precision, name,
            "confidence from %{customdata:.3f}: %{x:.1%} available, %{y:.1%} right",
            mode="lines+markers", customdata=curve.threshold.tolist(),
            line={"color": colour, "width": 2}, marker={"size": 4},
        )  # fmt: skip
        if judged.fixed.any():
            right = judged.error_m[judged.fixed] <= correct_within_m
            diamond = {"symbol": "diamond", "size": 12, "color": colour, "line": {"width": 1, "color": "white"}}
            _add(
                figure, [judged.fixed.mean()], [right.mean()], "as published",
                "as published: %{x:.1%} available, %{y:.1%} right", marker=diamond, showlegend=False,
            )  # fmt: skip
    figure.update_layout(
        xaxis=_share_axis("availability"),
        yaxis=_share_axis(f"precision within {correct_within_m:g} m", max(0.0, lowest)),
        showlegend=len(runs) > 1,
    )
    return figure


def ellipse_calibration(nees_all: FloatArray, nees_right: FloatArray) -> go.Figure:
    """Draw the share of truths inside the error ellipse against its claimed probability."""
    claimed = np.linspace(0.01, 0.99, 99)
    bounds = np.array([fixes.ellipse_bound(p) for p in claimed])
    figure = go.Figure()
    _add(figure, [0, 1], [0, 1], "as claimed", line=_DOTTED)
    for name, values, colour in (("all fixes", nees_all, SECOND), ("right fixes", nees_right, FIRST)):
        if len(values):
            inside = (values[None, :] <= bounds[:, None]).mean(axis=1)
            hover = f"{name}: %{{y:.1%}} inside the %{{x:.0%}} ellipse"
            _add(figure, claimed, inside, name, hover, line={"color": colour, "width": 2})
    figure.update_layout(
        xaxis=_axis("claimed probability", range=[0, 1], tickformat=".0%"),
        yaxis=_share_axis("truths inside the ellipse"),
        legend={"x": 0.02, "y": 0.98},
    )
    return figure


def stanford(error_m: FloatArray, radius_m: FloatArray, names: Sequence[str], alert_limit_m: float) -> go.Figure:
    """Draw the claimed 95 % radius against the error, logarithmic; above the diagonal the claim holds."""
    low, high = 0.05, max(200.0, float(np.max(error_m, initial=1)) * 1.5, float(np.max(radius_m, initial=1)) * 1.5)
    figure = go.Figure()
    figure.add_shape(
        type="rect", x0=alert_limit_m, x1=high, y0=low, y1=alert_limit_m, layer="below", line={"width": 0},
        fillcolor=BAD, opacity=0.14,
    )  # fmt: skip
    _add(figure, [low, high], [low, high], None, line=_DOTTED)
    figure.add_hline(y=alert_limit_m, line=_DASHED)
    misled = (error_m > radius_m) & (error_m > alert_limit_m) & (radius_m <= alert_limit_m)
    colours = np.where(misled, BAD, np.where(error_m > radius_m, DOUBTFUL, GOOD))
    hover = "%{text}<br>error %{x:.2f} m, claimed %{y:.2f} m"
    marker = {"size": 7, "color": colours.tolist(), "opacity": 0.8}
    _add(figure, np.clip(error_m, low, None), radius_m, None, hover, text=list(names), marker=marker)
    ends = [float(np.log10(low)), float(np.log10(high))]
    figure.update_layout(
        xaxis=_axis("error, m", type="log", range=ends, dtick=1),
        yaxis=_axis("claimed 95 % radius, m", type="log", range=ends, dtick=1),
        showlegend=False,
    )
    return figure


def latency(percentiles: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Draw a bar for the median (key ``50``) of each stage, with its 95th and 99th percentile, ms."""
    stages = list(percentiles)[::-1]
    figure = go.Figure()
    medians = [percentiles[stage]["50"] for stage in stages]
    figure.add_bar(
        y=stages, x=medians, orientation="h", name="median", marker={"color": FIRST}, width=0.45,
        hovertemplate="%{y}: median %{x:.1f} ms<extra></extra>",
    )  # fmt: skip
    for percentile, symbol, size, stroke in (("95", "line-ns", 13, 2.5), ("99", "diamond-tall", 8, 0)):
        values = [percentiles[stage][percentile] for stage in stages]
        marker = {"symbol": symbol, "size": size, "color": SECOND, "line": {"width": stroke, "color": SECOND}}
        hover = f"%{{y}}: p{percentile} %{{x:.1f}} ms"
        _add(figure, values, stages, f"p{percentile}", hover, marker=marker)
    figure.update_layout(
        xaxis=_axis("ms per image", rangemode="tozero"),
        yaxis={"type": "category"},
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    return figure


def error_over_time(
    seconds: FloatArray, judged: Judged, names: Sequence[str], correct_within_m: float
) -> go.Figure:
    """Draw the error of each fix along the drive, and a tick at the bottom for each image without a fix."""
    figure = go.Figure()
    text, fixed, lost = np.array(names, object), judged.fixed, ~judged.fixed
    dot = _by_error(judged.error_m[fixed], correct_within_m, 6)
    tick = {"symbol": "line-ns", "size": 12, "line": {"width": 1.5, "color": SECOND}}
    heights = np.where(fixed, np.maximum(judged.error_m, 0.01), 0.012)
    for name, rows, marker in (("fix", fixed, dot), ("no fix", lost, tick)):
        _add(figure, seconds[rows], heights[rows], name, "%{text}", marker=marker, text=text[rows].tolist())
    figure.add_hline(y=correct_within_m, line=_DASHED)
    figure.update_layout(
        xaxis=_axis("seconds into the drive"), yaxis=_axis("error, m", type="log", dtick=1), showlegend=False
    )
    return figure


def _add(figure: go.Figure, x: Any, y: Any, name: str | None, hover: str = "", **style: Any) -> None:
    """Add a line, or points if there is a marker; without ``hover`` hovering shows nothing."""
    style.setdefault("mode", "markers" if "marker" in style else "lines")
    style |= {"hovertemplate": f"{hover}<extra></extra>"} if hover else {"hoverinfo": "skip"}
    figure.add_scatter(x=np.asarray(x).tolist(), y=np.asarray(y).tolist(), name=name, **style)


def _axis(title: str, **style: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **style}


def _share_axis(title: str, low: float = 0) -> dict[str, Any]:
    return _axis(title, range=[low, 1.02], tickformat=".0%")


def _by_error(error_m: FloatArray, most_m: float, size: int) -> dict[str, Any]:
    """Return a marker that is coloured by the error."""
    return {"color": error_m.tolist(), "colorscale": ERROR_SCALE, "cmin": 0, "cmax": most_m, "size": size}
