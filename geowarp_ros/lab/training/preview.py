"""Plot of generated training pairs, as in Figure 4 of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import Tensor

from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.quadruplets import generate_quadruplets
from geowarp_ros.types import FloatArray

_X, _Y, _Z = "#1f77b4", "#ff7f0e", "#d62728"
"""Colours of t_x, t_y and t_z."""
TITLES = (
    "photograph $I$:  $t_x$, $t_y$, overlap $t_z$",
    "$I_a$ with $t_a$",
    "$I_b$ with $t_b$",
    "$I_a$ warped by $t_a$",
    "$I_b$ warped by $t_b$",
)


def draw_quadruplets(photographs: Tensor, k: float, seed: int = 0) -> Figure:
    """Draw one row per image: image with t_x, t_y, t_z; I_a with t_a; I_b with t_b; I_a and I_b warped.

    Args:
        photographs: (B, 3, H, W) uint8.
        k: Warping coefficient.
        seed: Random seed; the caller's random state is preserved.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = generate_quadruplets(photographs.float() / 255, k)
    count, _, height, width = photographs.shape
    cell = 2.6
    figure = Figure(figsize=(5 * cell, count * cell * height / width + 0.35), layout="constrained")
    axes = figure.subplots(count, 5, squeeze=False)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=9)
    for row, (photograph, axis) in enumerate(zip(photographs.float() / 255, axes, strict=True)):
        _show(axis[0], photograph)
        _outline(axis[0], photograph, made.trapezoid_x[row], _X, "$t_x$", 0)
        _outline(axis[0], photograph, made.trapezoid_y[row], _Y, "$t_y$", 1)
        _outline(axis[0], photograph, made.trapezoid_z[row], _Z, "$t_z$", 2, filled=True)
        for number, (view, quads, frame) in enumerate(
            ((made.first, made.quad_a, _X), (made.second, made.quad_b, _Y)), start=1
        ):
            crop, quad = made.views[view[row]], quads[row]
            _show(axis[number], crop, frame)
            _outline(axis[number], crop, quad, _Z, filled=True)
            _show(axis[number + 2], warp(crop[None], quad[None])[0], _Z)
    return figure


def _show(axis: Any, image: Tensor, frame: str | None = None) -> None:
    axis.imshow(image.cpu().clamp(0, 1).permute(1, 2, 0).numpy())
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=frame is not None, color=frame, linewidth=2.5)


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
    """Convert a normalised quad (4, 2) to pixels; (0, 0) is the centre of the top-left pixel."""
    pixels: FloatArray = (quad + 1) / 2 * np.array([width, height]) - 0.5
    return pixels
