"""Ground-floor textures (doors, shop fronts, arcades, garages) and the windows of all storeys."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from geowarp_ros.lab.world.architecture import WINDOW_SIZES, Design, WindowForm
from geowarp_ros.lab.world.canvas import Canvas, Pixels
from geowarp_ros.lab.world.materials import shift
from geowarp_ros.lab.world.randomness import pick

TYPEFACES = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
)


def paint_ground_floor(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """Draw the ground floor of the design's type."""
    painter = {"home": _home, "shop": _shop, "cafe": _shop, "arcade": _arcade, "garage": _garage}[design.ground]
    painter(canvas, design, rng)


def _door(canvas: Canvas, design: Design, x: float, width: float = 1.1, height: float = 2.25) -> None:
    x0, x1 = x - width / 2, x + width / 2
    canvas.rectangle(x0 - 0.16, 0, x1 + 0.16, height + 0.5, design.trim)
    canvas.rectangle(x0, height, x1, height + 0.35, (96, 112, 122))
    canvas.rectangle(x0, 0.12, x1, height - 0.05, design.accent)
    for row in range(3):
        for left in (x0 + 0.12, x + 0.05):
            z = 0.3 + row * 0.63
            canvas.shade(left, z, left + width / 2 - 0.17, z + 0.48, 0.75)
    canvas.rectangle(x1 - 0.14, 1.05, x1 - 0.07, 1.15, (222, 190, 96))
    canvas.rectangle(x0 - 0.25, 0, x1 + 0.25, 0.12, (170, 166, 158))


def _home(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    form: WindowForm = design.window if design.window not in ("french", "arched") else "casement"
    sprite = paint_window(design, form, canvas.texels)
    width, height = (design.window_scale * side for side in WINDOW_SIZES[form])
    height = min(height, design.ground_m - 1.4)
    for bay in range(design.bays):
        x = design.bay_centre_m(bay)
        if bay == design.door_bay:
            _door(canvas, design, x)
            continue
        canvas.rectangle(x - width / 2 - 0.1, 0.85, x + width / 2 + 0.1, 0.98 + height, design.trim)
        canvas.paste(x - width / 2, 0.95, sprite[: max(2, round(height * canvas.texels))])
        behind_glass(canvas, x - width / 2 + 0.1, 1.05, x + width / 2 - 0.1, 0.6 + height, rng)


def _shop(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    width, top = design.width_m, design.ground_m - 0.2
    canvas.rectangle(0.25, 0, width - 0.25, top, design.accent)
    canvas.shade(0.25, top - 0.75, width - 0.25, top - 0.68, 0.6)
    door_left = design.door_bay % 2 == 0
    pane0, pane1 = (1.7, width - 0.5) if door_left else (0.5, width - 1.7)
    count = max(1, round((pane1 - pane0) / 1.8))
    edges = np.linspace(pane0, pane1, count + 1)
    for left, right in pairwise(edges):
        canvas.rectangle(left + 0.05, 0.5, right - 0.05, top - 0.85, (74, 84, 92))
        _shop_window(canvas, left + 0.05, 0.5, right - 0.05, top - 0.85, rng)
    x = 0.95 if door_left else width - 0.95
    canvas.rectangle(x - 0.5, 0.05, x + 0.5, 2.3, design.second_accent)
    canvas.rectangle(x - 0.38, 0.5, x + 0.38, 2.15, (86, 100, 110))
    sign = design.second_accent if design.second_accent != design.accent else (240, 236, 226)
    face = TYPEFACES[design.typeface]
    canvas.text(design.sign, width / 2, top - 0.34, 0.75 * width, 0.42, sign, face)


def _shop_window(canvas: Canvas, x0: float, z0: float, x1: float, z1: float, rng: np.random.Generator) -> None:
    """Draw shelves of goods under a reflection of the sky."""
    base = shift((150, 140, 120), rng.random(), rng.uniform(0.4, 1.4), rng.uniform(0.5, 1.0))
    canvas.rectangle(x0, z0, x1, z1, base)
    for shelf in np.arange(z0 + 0.05, z1 - 0.3, rng.uniform(0.45, 0.8)):
        x = x0 + 0.05
        while x < x1 - 0.15:
            size = rng.uniform(0.1, 0.35)
            tone = shift((190, 110, 80), rng.random(), rng.uniform(0.3, 1.2), rng.uniform(0.5, 1.3))
            canvas.rectangle(x, shelf, min(x + size, x1 - 0.04), shelf + rng.uniform(0.12, 0.38), tone)
            x += size + 0.06
    view = canvas.window(x0, z0, x1, z1)[..., :3]
    ramp = np.linspace(0.55, 0.1, max(1, view.shape[0]))[:, None, None]
    view[:] = (view * (1 - ramp) + np.array([168, 190, 208]) * ramp).astype(np.uint8)


def _arcade(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    count = max(1, round(design.width_m / 2.6))
    step = design.width_m / count
    half = step / 2 - 0.35
    spring = design.ground_m - 0.45 - half
    for index in range(count):
        x = (index + 0.5) * step
        canvas.ellipse(x, spring, half + 0.14, half + 0.14, design.trim, upper=True)
        canvas.rectangle(x - half, 0, x + half, spring, (62, 58, 56))
        canvas.ellipse(x, spring, half, half, (62, 58, 56), upper=True)
        if index == min(count - 1, design.door_bay):
            _door(canvas, design, x, 1.0, 2.0)
        else:
            canvas.rectangle(x - half + 0.2, 0.6, x + half - 0.2, spring, (98, 108, 112))
            _shop_window(canvas, x - half + 0.25, 0.6, x + half - 0.25, max(spring, 1.2), rng)


def _garage(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    gate = min(3.0, design.width_m - 2.4)
    left = design.door_bay % 2 == 0
    x0 = 0.5 if left else design.width_m - 0.5 - gate
    canvas.rectangle(x0 - 0.15, 0, x0 + gate + 0.15, 2.75, design.trim)
    canvas.rectangle(x0, 0, x0 + gate, 2.6, design.second_accent)
    for z in np.arange(0.25, 2.5, 0.28):
        canvas.shade(x0, z, x0 + gate, z + 0.05, 0.68)
    _door(canvas, design, design.width_m - 1.2 if left else 1.2)
    if design.width_m - gate > 4.5:
        middle = x0 + gate + 1.3 if left else x0 - 1.3
        canvas.paste(middle - 0.6, 1.0, paint_window(design, "square", canvas.texels))
    canvas.text(str(1 + design.seed % 98), x0 + gate / 2, 2.95, 0.6, 0.3, design.accent, TYPEFACES[1])


def paint_window(design: Design, form: WindowForm, texels: float) -> Pixels:
    """Return a window with frame (h, w, 4), transparent outside an arch."""
    width, height = (design.window_scale * side for side in WINDOW_SIZES[form])
    canvas = Canvas(width, height, texels, None, behind=design.frame)
    arch = {"arched": width / 2, "round_top": width / 4}.get(form, 0.0)
    border = 0.09
    for inset, colour in ((0.0, design.frame), (border, (58, 72, 86))):
        left, right, low, high = inset, width - inset, inset, height - arch
        canvas.rectangle(left, low, right, high if arch else high - inset, colour)
        if arch:
            canvas.ellipse(width / 2, high, (right - left) / 2, arch - inset, colour, upper=True)
    glass = (canvas.rgba[..., 3] > 0) & (canvas.rgba[..., 2] == 86)
    rows = np.linspace(1.35, 0.75, canvas.size[0])[:, None]
    sky = np.clip(np.array([92, 112, 130]) * rows[..., None], 0, 255).astype(np.uint8)
    canvas.rgba[..., :3][glass] = np.broadcast_to(sky, (*canvas.size, 3))[glass]
    columns, bars = (max(2, design.panes[0]), 1) if form in ("wide", "french") else design.panes
    for i in range(1, columns):
        x = width * i / columns
        canvas.rectangle(x - 0.03, border, x + 0.03, height - arch, design.frame)
    for i in range(1, bars):
        z = (height - arch / 2) * i / bars
        canvas.rectangle(border, z - 0.025, width - border, z + 0.025, design.frame)
    canvas.shade(border, height - border - 0.12, width - border, height - border, 0.6)  # shadow of the reveal
    return canvas.rgba


def behind_glass(canvas: Canvas, x0: float, z0: float, x1: float, z1: float, rng: np.random.Generator) -> None:
    """Draw curtains, a blind, flowers, a lamp or nothing."""
    kind = rng.random()
    middle = (x0 + x1) / 2
    if kind < 0.3:
        for left, right in ((x0, x0 + 0.22 * (x1 - x0)), (x1 - 0.22 * (x1 - x0), x1)):
            view = canvas.window(left, z0, right, z1)[..., :3]
            view[:] = (0.45 * view + 0.55 * np.array([226, 220, 206])).astype(np.uint8)
    elif kind < 0.45:
        low = z1 - rng.uniform(0.3, 0.8) * (z1 - z0)
        view = canvas.window(x0, low, x1, z1)[..., :3]
        view[:] = (0.3 * view + 0.7 * np.array([214, 206, 188])).astype(np.uint8)
    elif kind < 0.55:
        canvas.rectangle(x0, z0 - 0.12, x1, z0 + 0.08, (104, 66, 44))
        for x in np.arange(x0 + 0.06, x1, 0.16):
            colour = pick(rng, ((64, 110, 52), (206, 62, 70), (238, 190, 60), (84, 130, 66)))
            canvas.ellipse(x, z0 + 0.14, 0.09, 0.12, colour)
    elif kind < 0.62:
        canvas.ellipse(middle, z0 + 0.7 * (z1 - z0), 0.14, 0.12, (252, 222, 150))
