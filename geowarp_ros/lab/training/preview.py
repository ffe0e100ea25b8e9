"""A picture of generated training pairs, as Figure 4 of the paper shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.quadruplets import Quadruplets, generate_quadruplets
from geowarp_ros.types import FloatArray

_X, _Y, _Z = "#1f77b4", "#ff7f0e", "#d62728"
"""Colours of t_x, t_y and their overlap."""


def draw_quadruplets(photographs: Tensor, k: float, seed: int = 0) -> Figure:
    """Draw one row per photograph: the photograph with t_x, t_y, t_z; I_a with t_a; I_b with t_b; both warped.

    The last two columns are the crops after the warp by their true quads: what a perfect regression would make.

    Args:
        photographs: (B, 3, H, W) uint8.
        k: Warping coefficient.
        seed: Decides the trapezoids; the caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = generate_quadruplets(photographs.float() / 255, k)
    count, _, height, width = photographs.shape
    cell = 2.6
    figure = Figure(figsize=(5 * cell, count * cell * height / width + 0.35), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, 5, squeeze=False)
    for column, title in enumerate(
        (
            "photograph $I$:  $t_x$, $t_y$, overlap $t_z$",
            "$I_a$ with $t_a$",
            "$I_b$ with $t_b$",
            "$I_a$ warped by $t_a$",
            "$I_b$ warped by $t_b$",
        )
    ):
        axes[0, column].set_title(title, fontsize=9)
    for row in range(count):
        _draw_row(axes[row], photographs[row].float() / 255, made, row)
    return figure


def save_preview(photographs: Tensor, path: Path, k: float, seed: int = 0) -> None:
    """Write :func:`draw_quadruplets` to an image file, 150 dpi."""
    draw_quadruplets(photographs, k, seed).savefig(path, dpi=150)


def _draw_row(axes: Any, photograph: Tensor, made: Quadruplets, row: int) -> None:
    crop_a, crop_b = made.views[made.first[row]], made.views[made.second[row]]
    quad_a, quad_b = made.quad_a[row], made.quad_b[row]
    _show(axes[0], photograph)
    _outline(axes[0], photograph, made.trapezoid_x[row], _X, "$t_x$", 0)
    _outline(axes[0], photograph, made.trapezoid_y[row], _Y, "$t_y$", 1)
    _outline(axes[0], photograph, made.trapezoid_z[row], _Z, "$t_z$", 2, filled=True)
    for axis, crop, quad, frame in ((axes[1], crop_a, quad_a, _X), (axes[2], crop_b, quad_b, _Y)):
        _show(axis, crop, frame)
        _outline(axis, crop, quad, _Z, filled=True)
    for axis, crop, quad in ((axes[3], crop_a, quad_a), (axes[4], crop_b, quad_b)):
        _show(axis, warp(crop[None], quad[None])[0], _Z)


def _show(axis: Any, image: Tensor, frame: str | None = None) -> None:
    axis.imshow(image.cpu().clamp(0, 1).permute(1, 2, 0).numpy())
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(frame is not None)
        side.set_color(frame)
        side.set_linewidth(2.5)


def _outline(
    axis: Any, image: Tensor, quad: Tensor, colour: str, name: str = "", corner: int = 0, *, filled: bool = False
) -> None:
    points = to_pixels(quad.cpu().numpy(), image.shape[-2], image.shape[-1])
    axis.add_patch(Polygon(points, closed=True, fill=False, edgecolor="white", linewidth=3.0, clip_on=False))
    axis.add_patch(Polygon(points, closed=True, fill=False, edgecolor=colour, linewidth=1.8, clip_on=False))
    if filled:
        axis.add_patch(Polygon(points, closed=True, facecolor=colour, alpha=0.18, linewidth=0))
    if name:
        inward = points.mean(axis=0) - points[corner]
        x, y = points[corner] + 14 * inward / np.linalg.norm(inward) * image.shape[-1] / 320
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        axis.text(x, y, name, color=colour, fontsize=9, ha="center", va="center", bbox=box)


def to_pixels(quad: FloatArray, height: int, width: int) -> FloatArray:
    """Return a quad (4, 2) in the coordinates of ``imshow``: (0, 0) is the centre of the first pixel."""
    pixels: FloatArray = (quad + 1) / 2 * np.array([width, height]) - 0.5
    return pixels
