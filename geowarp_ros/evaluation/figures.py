"""The report's figures, drawn with Plotly. Axes, grid and text take their colours from the page and its theme."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.types import FloatArray

GOOD, DOUBTFUL, BAD, QUIET, FIRST, SECOND = "#2a9d8f", "#e0a030", "#d1495b", "#8a93a0", "#3b7dd8", "#d9822b"
"""Readable on white and on near-black."""

ERROR_SCALE = [[0.0, GOOD], [0.5, DOUBTFUL], [1.0, BAD]]

MOST_GALLERY_POINTS = 4000
"""More would only slow the map; every N-th is drawn then."""


def drive_map(
    gallery_m: FloatArray,
    truth_m: FloatArray,
    position_m: FloatArray,
    judged: Judged,
    names: Sequence[str],
    correct_within_m: float,
) -> go.Figure:
    """Gallery, true track, fixes coloured by error with a line to the truth, and crosses where there is no fix.

    Args:
        gallery_m: (G, 2) east, north.
        truth_m: (N, 2).
        position_m: (N, 2); NaN where there is no answer.
        judged: N answers.
        names: N texts for hovering.
        correct_within_m: End of the colour scale.
    """
    figure = go.Figure()
    step = max(1, len(gallery_m) // MOST_GALLERY_POINTS)
    gallery_m = gallery_m[::step]
    figure.add_scatter(
        **_xy(gallery_m), name="gallery", mode="markers", hoverinfo="skip",
        marker={"size": 5, "color": QUIET, "opacity": 0.6},
    )  # fmt: skip
    figure.add_scatter(
        **_xy(truth_m), name="truth", mode="lines", hoverinfo="skip", line={"color": QUIET, "width": 1.5}
    )
    fixed, lost = np.flatnonzero(judged.fixed).tolist(), np.flatnonzero(~judged.fixed).tolist()
    links = np.full((len(fixed), 3, 2), np.nan)
    links[:, 0], links[:, 1] = position_m[fixed], truth_m[fixed]
    figure.add_scatter(
        **_xy(links.reshape(-1, 2)), name="error", mode="lines", hoverinfo="skip", opacity=0.7,
        line={"color": BAD, "width": 1},
    )  # fmt: skip
    figure.add_scatter(
        **_xy(position_m[fixed]), name="fix", mode="markers",
        customdata=fixed, text=[names[i] for i in fixed], hovertemplate="%{text}<extra></extra>",
        marker={
            "size": 9, "color": judged.error_m[fixed].tolist(), "colorscale": ERROR_SCALE, "cmin": 0,
            "cmax": correct_within_m, "line": {"width": 0.5, "color": "rgba(0,0,0,0.4)"},
            "colorbar": {"title": {"text": "error, m"}, "thickness": 10, "len": 0.6, "outlinewidth": 0},
        },
    )  # fmt: skip
    figure.add_scatter(
        **_xy(truth_m[lost]), name="no fix", mode="markers",
        customdata=lost, text=[names[i] for i in lost], hovertemplate="%{text}<extra></extra>",
        marker={"size": 8, "symbol": "x-thin", "line": {"width": 1.6, "color": SECOND}},
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "east, m"}},
        yaxis={"title": {"text": "north, m"}, "scaleanchor": "x", "scaleratio": 1},
        hovermode="closest",
        dragmode="pan",
        legend={"orientation": "h", "y": 1.06, "x": 0},
    )
    return figure


def error_cdf(runs: Sequence[tuple[str, Judged]], thresholds_m: Sequence[float]) -> go.Figure:
    """Share of all images with a fix at most so far from the truth; the curve ends at the availability."""
    figure = go.Figure()
    for (name, judged), colour in zip(runs, (FIRST, SECOND), strict=False):
        errors, shares = fixes.cumulative(judged.error_m[judged.fixed], len(judged))
        figure.add_scatter(
            x=np.maximum(errors, 0.01).tolist(), y=shares.tolist(), name=name, mode="lines",
            line={"shape": "hv", "color": colour, "width": 2},
            hovertemplate="%{y:.1%} of all images within %{x:.2f} m<extra></extra>",
        )  # fmt: skip
    for metres in thresholds_m:
        figure.add_vline(x=metres, line={"width": 1, "dash": "dot", "color": QUIET})
    figure.update_layout(
        xaxis={"title": {"text": "error, m"}, "type": "log", "dtick": "D2"},
        yaxis={"title": {"text": "share of all images"}, "range": [0, 1.02], "tickformat": ".0%"},
        showlegend=len(runs) > 1,
    )
    return figure


def precision_availability(
    runs: Sequence[tuple[str, Judged]], correct_within_m: float, operating: bool = True
) -> go.Figure:
    """Precision against availability as the least confidence falls; a diamond where the run stood."""
    figure = go.Figure()
    lowest = 0.9
    for (name, judged), colour in zip(runs, (FIRST, SECOND), strict=False):
        curve = fixes.precision_availability(judged, correct_within_m)
        lowest = min(lowest, float(curve.precision.min(initial=1.0)) - 0.05)
        figure.add_scatter(
            x=curve.availability.tolist(), y=curve.precision.tolist(), name=name, mode="lines+markers",
            customdata=curve.threshold.tolist(),
            line={"color": colour, "width": 2}, marker={"size": 4},
            hovertemplate="least confidence %{customdata:.3f}: %{x:.1%} available, %{y:.1%} right<extra></extra>",
        )  # fmt: skip
        if operating and judged.fixed.any():
            right = judged.error_m[judged.fixed] <= correct_within_m
            figure.add_scatter(
                x=[float(judged.fixed.mean())], y=[float(right.mean())], name="as published", mode="markers",
                marker={"symbol": "diamond", "size": 12, "color": colour, "line": {"width": 1, "color": "white"}},
                hovertemplate="as published: %{x:.1%} available, %{y:.1%} right<extra></extra>", showlegend=False,
            )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "availability"}, "range": [0, 1.02], "tickformat": ".0%"},
        yaxis={
            "title": {"text": f"precision within {correct_within_m:g} m"},
            "range": [max(0.0, lowest), 1.02],
            "tickformat": ".0%",
        },
        showlegend=len(runs) > 1,
    )
    return figure


def ellipse_calibration(nees_all: FloatArray, nees_right: FloatArray) -> go.Figure:
    """Claimed probability of the error ellipse against the share of truths inside it."""
    claimed = np.linspace(0.01, 0.99, 99)
    bounds = np.array([fixes.ellipse_bound(p) for p in claimed])
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as claimed", hoverinfo="skip",
        line={"dash": "dot", "color": QUIET, "width": 1.5},
    )  # fmt: skip
    for name, values, colour in (("all fixes", nees_all, SECOND), ("right fixes", nees_right, FIRST)):
        if not len(values):
            continue
        inside = (values[None, :] <= bounds[:, None]).mean(axis=1)
        figure.add_scatter(
            x=claimed.tolist(), y=inside.tolist(), name=name, mode="lines", line={"color": colour, "width": 2},
            hovertemplate=f"{name}: %{{y:.1%}} inside the %{{x:.0%}} ellipse<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "claimed probability"}, "range": [0, 1], "tickformat": ".0%"},
        yaxis={"title": {"text": "truths inside the ellipse"}, "range": [0, 1.02], "tickformat": ".0%"},
        legend={"x": 0.02, "y": 0.98},
    )
    return figure


def stanford(error_m: FloatArray, radius_m: FloatArray, names: Sequence[str], alert_limit_m: float) -> go.Figure:
    """Error against the claimed 95 % radius, logarithmic; left above the diagonal the claim holds."""
    low, high = 0.05, max(200.0, float(np.max(error_m, initial=1)) * 1.5, float(np.max(radius_m, initial=1)) * 1.5)
    figure = go.Figure()
    figure.add_shape(
        type="rect", x0=alert_limit_m, x1=high, y0=low, y1=alert_limit_m, layer="below", line={"width": 0},
        fillcolor=BAD, opacity=0.14,
    )  # fmt: skip
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", hoverinfo="skip",
        line={"dash": "dot", "color": QUIET, "width": 1.5},
    )  # fmt: skip
    figure.add_hline(y=alert_limit_m, line={"width": 1, "dash": "dash", "color": QUIET})
    misled = (error_m > radius_m) & (error_m > alert_limit_m) & (radius_m <= alert_limit_m)
    colours = np.where(misled, BAD, np.where(error_m > radius_m, DOUBTFUL, GOOD))
    figure.add_scatter(
        x=np.clip(error_m, low, None).tolist(), y=radius_m.tolist(), mode="markers", text=list(names),
        marker={"size": 7, "color": colours.tolist(), "opacity": 0.8},
        hovertemplate="%{text}<br>error %{x:.2f} m, claimed %{y:.2f} m<extra></extra>",
    )  # fmt: skip
    ends = [float(np.log10(low)), float(np.log10(high))]
    figure.update_layout(
        xaxis={"title": {"text": "error, m"}, "type": "log", "range": ends, "dtick": 1},
        yaxis={"title": {"text": "claimed 95 % radius, m"}, "type": "log", "range": ends, "dtick": 1},
        showlegend=False,
    )
    return figure


def latency(percentiles: dict[str, dict[float, float]]) -> go.Figure:
    """Bars of the median per stage with the 95th and 99th percentile beside."""
    stages = list(percentiles)[::-1]
    figure = go.Figure()
    medians = [percentiles[stage][50] for stage in stages]
    figure.add_bar(
        y=stages, x=medians, orientation="h", name="median", marker={"color": FIRST}, width=0.45,
        hovertemplate="%{y}: median %{x:.1f} ms<extra></extra>",
    )  # fmt: skip
    for percentile, symbol in ((95, "line-ns"), (99, "diamond-tall")):
        figure.add_scatter(
            y=stages, x=[percentiles[stage][percentile] for stage in stages], name=f"p{percentile}",
            mode="markers",
            marker={"symbol": symbol, "size": 13 if percentile == 95 else 8, "color": SECOND,
                    "line": {"width": 2.5 if percentile == 95 else 0, "color": SECOND}},
            hovertemplate=f"%{{y}}: p{percentile} %{{x:.1f}} ms<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "ms per image"}, "rangemode": "tozero"},
        yaxis={"type": "category"},
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    return figure


def error_over_time(
    seconds: FloatArray, judged: Judged, names: Sequence[str], correct_within_m: float
) -> go.Figure:
    """Error of each fix along the drive, and ticks at the foot where there is none."""
    fixed, errors = judged.fixed, judged.error_m
    figure = go.Figure()
    figure.add_scatter(
        x=seconds[fixed].tolist(), y=np.maximum(errors[fixed], 0.01).tolist(), mode="markers", name="fix",
        text=[name for name, keep in zip(names, fixed, strict=True) if keep],
        marker={"size": 6, "color": errors[fixed].tolist(), "colorscale": ERROR_SCALE, "cmin": 0,
                "cmax": correct_within_m},
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=seconds[~fixed].tolist(), y=[0.012] * int((~fixed).sum()), mode="markers", name="no fix",
        text=[name for name, keep in zip(names, fixed, strict=True) if not keep],
        marker={"symbol": "line-ns", "size": 12, "line": {"width": 1.5, "color": SECOND}},
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
    figure.add_hline(y=correct_within_m, line={"width": 1, "dash": "dash", "color": QUIET})
    figure.update_layout(
        xaxis={"title": {"text": "seconds into the drive"}},
        yaxis={"title": {"text": "error, m"}, "type": "log", "dtick": 1},
        showlegend=False,
    )
    return figure


def _xy(points: FloatArray) -> dict[str, list[float | None]]:
    """Coordinates as lists to the centimetre; NaN is a gap."""
    return {
        axis: [None if np.isnan(value) else round(float(value), 2) for value in points[:, column]]
        for column, axis in enumerate("xy")
    }
