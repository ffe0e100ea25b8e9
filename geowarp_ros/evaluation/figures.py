"""The report's figures, drawn with Plotly. Axes, grid and text take their colours from the page and its theme."""

from __future__ import annotations

import math
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

MOST_GALLERY_POINTS = 4000
"""Maximum number of gallery places in the map; of more, every N-th is drawn."""

_DOTTED = {"dash": "dot", "color": QUIET, "width": 1.5}
_DASHED = {"dash": "dash", "color": QUIET, "width": 1}


def drive_map(
    gallery_m: FloatArray,
    truth_m: FloatArray,
    position_m: FloatArray,
    judged: Judged,
    names: Sequence[str],
    correct_within_m: float,
    headings_deg: FloatArray | None = None,
) -> go.Figure:
    """Draw gallery, true track, fixes coloured by error with a line to the truth, and crosses without a fix.

    Headings are arrows: the answers' at the fixes, the true ones at the true positions.

    Args:
        gallery_m: (G, 2) places, east and north (m).
        truth_m: (N, 2) true positions.
        position_m: (N, 2) answers; NaN if there is none.
        judged: The N answers.
        names: N texts for hovering.
        correct_within_m: Upper end of the colour scale (m).
        headings_deg: (N, 2) headings of the answers and true ones; NaN if unknown; None: none is known.
    """
    figure = go.Figure()
    step = max(1, math.ceil(len(gallery_m) / MOST_GALLERY_POINTS))
    fixed, lost = np.flatnonzero(judged.fixed).tolist(), np.flatnonzero(~judged.fixed).tolist()
    links = np.full((len(fixed), 3, 2), np.nan)
    links[:, 0], links[:, 1] = position_m[fixed], truth_m[fixed]
    dot = _by_error(judged.error_m[fixed], correct_within_m, 9) | {
        "line": {"width": 0.5, "color": "rgba(0,0,0,0.4)"},
        "colorbar": {"title": {"text": "error, m"}, "thickness": 10, "len": 0.6, "outlinewidth": 0},
    }
    cross = {"size": 8, "symbol": "x-thin", "line": {"width": 1.6, "color": SECOND}}
    _add(figure, *_xy(gallery_m[::step]), "gallery", marker={"size": 5, "color": QUIET, "opacity": 0.6})
    _add(figure, *_xy(truth_m), "truth", line={"color": QUIET, "width": 1.5})
    _add(figure, *_xy(links.reshape(-1, 2)), "error", opacity=0.7, line={"color": BAD, "width": 1})
    if headings_deg is not None and np.isfinite(headings_deg).any():
        shown_m = truth_m[np.isfinite(truth_m).all(axis=1)]
        length_m = max(1.0, float(np.ptp(shown_m, axis=0).max(initial=0.0)) / 60)
        true_m = _arrows(truth_m, headings_deg[:, 1], length_m)
        _add(figure, *_xy(true_m), "true heading", line={"color": QUIET, "width": 1.5})
        found_m = _arrows(position_m[fixed], headings_deg[fixed, 0], length_m)
        _add(figure, *_xy(found_m), "heading", line={"color": FIRST, "width": 1.5})
    for name, rows, where_m, marker in (("fix", fixed, position_m, dot), ("no fix", lost, truth_m, cross)):
        text = [names[row] for row in rows]
        _add(figure, *_xy(where_m[rows]), name, "%{text}", marker=marker, text=text, customdata=rows)
    figure.update_layout(
        xaxis=_axis("east, m"),
        yaxis=_axis("north, m", scaleanchor="x", scaleratio=1),
        hovermode="closest",
        dragmode="pan",
        legend={"orientation": "h", "y": 1.06, "x": 0},
    )
    return figure


def _arrows(where_m: FloatArray, heading_deg: FloatArray, length_m: float) -> FloatArray:
    """Return the strokes of the known arrows as points (6 N, 2): shaft and barbs, and a gap after each."""
    known = np.isfinite(heading_deg) & np.isfinite(where_m).all(axis=1)
    start, turn = where_m[known], np.radians(heading_deg[known])

    def ahead(turned: float, length: float) -> FloatArray:
        return length * np.column_stack([np.sin(turn + turned), np.cos(turn + turned)])

    tip = start + ahead(0.0, length_m)
    left, right = (tip + ahead(side * 2.6, 0.35 * length_m) for side in (-1.0, 1.0))
    gap = np.full_like(start, np.nan)
    return np.stack([start, tip, left, tip, right, gap], axis=1).reshape(-1, 2)


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


def _xy(points_m: FloatArray) -> tuple[list[float | None], list[float | None]]:
    """Return the coordinates of points (N, 2), rounded to the centimetre; NaN is a gap."""
    east, north = (
        [None if np.isnan(value) else round(value, 2) for value in axis] for axis in points_m.T.tolist()
    )
    return east, north
