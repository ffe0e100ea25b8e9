"""Façade textures: front and side elevations of a house."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from geowarp_ros.lab.world.architecture import WINDOW_SIZES, Design, WindowForm
from geowarp_ros.lab.world.canvas import Canvas, Pixels
from geowarp_ros.lab.world.materials import WALLS, Colour, noise, plaster, shift
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.lab.world.street_level import behind_glass, paint_ground_floor, paint_window


def paint_front(design: Design, texels: float) -> Pixels:
    """Return the front wall (h, w, 4) RGBA, ground at the lower edge, transparent outside the gable."""
    rng = generator(design.seed, "front")
    canvas = Canvas(design.width_m, design.eaves_m + design.gable_m, texels, design.colour)
    canvas.cover(WALLS[design.material], rng, design.colour)
    _relief(canvas, design)
    if design.timber:
        _timber(canvas, design, rng)
    if design.mural:
        _mural(canvas, design)
    for storey in range(design.storeys):
        form = design.top_window if storey == design.storeys - 1 and design.storeys > 1 else design.window
        sprite = paint_window(design, form, texels)
        for bay in range(design.bays):
            if (storey, bay) not in design.blind:
                _hang_window(canvas, design, form, sprite, storey, bay, rng)
    paint_ground_floor(canvas, design, rng)
    _weather(canvas, design, rng)
    _crown(canvas, design)
    return canvas.rgba


def paint_side(design: Design, texels: float) -> Pixels:
    """Return a side wall (h, w, 3): same material, few openings."""
    rng = generator(design.seed, "side")
    canvas = Canvas(design.depth_m, design.eaves_m, texels, design.colour)
    colour = shift(design.colour, value=0.92)
    canvas.cover(WALLS[design.material], rng, colour)
    for storey in range(design.storeys):
        if rng.random() < 0.5:
            x, z = rng.uniform(1.5, design.depth_m - 2.5), design.floor_m(storey) + 0.9
            canvas.rectangle(x - 0.08, z - 0.08, x + 0.98, z + 1.38, design.frame)
            canvas.rectangle(x, z, x + 0.9, z + 1.3, (70, 84, 96))
    canvas.rectangle(0, 0, design.depth_m, 0.5, shift(colour, value=0.7))
    return canvas.rgb


def _hang_window(
    canvas: Canvas,
    design: Design,
    form: WindowForm,
    sprite: Pixels,
    storey: int,
    bay: int,
    rng: np.random.Generator,
) -> None:
    """Draw a window in its bay with surround, sill, interior and shutters."""
    width, height = (design.window_scale * side for side in WINDOW_SIZES[form])
    height = min(height, design.storey_m - 0.5)
    x0 = design.bay_centre_m(bay) - width / 2
    sill = 0.12 if form == "french" else max(0.35, (design.storey_m - height) * 0.45)
    z0 = design.floor_m(storey) + sill
    x1, z1 = x0 + width, z0 + height
    trim, shadow = design.trim, shift(design.colour, value=0.62)
    if design.surround == "frame":
        canvas.rectangle(x0 - 0.14, z0 - 0.05, x1 + 0.14, z1 + 0.14, trim)
    elif design.surround == "lintel":
        canvas.rectangle(x0 - 0.2, z1, x1 + 0.2, z1 + 0.24, trim)
    elif design.surround == "pediment":
        canvas.rectangle(x0 - 0.12, z0, x1 + 0.12, z1 + 0.1, trim)
        canvas.polygon([(x0 - 0.25, z1 + 0.1), (x1 + 0.25, z1 + 0.1), ((x0 + x1) / 2, z1 + 0.42)], trim)
    elif design.surround == "brick_arch":
        canvas.polygon(
            [(x0, z1 - 0.02), (x1, z1 - 0.02), (x1 + 0.14, z1 + 0.26), (x0 - 0.14, z1 + 0.26)], design.accent
        )
    canvas.paste(x0, z0, sprite[: max(2, round(height * canvas.texels))])
    behind_glass(canvas, x0 + 0.1, z0 + 0.1, x1 - 0.1, z1 - 0.35, rng)
    if form != "french":
        canvas.rectangle(x0 - 0.1, z0 - 0.1, x1 + 0.1, z0, trim)
        canvas.rectangle(x0 - 0.1, z0 - 0.16, x1 + 0.1, z0 - 0.1, shadow)
    if design.shutters:
        shut = rng.random() < 0.1
        leaf = width / 2 if shut else min(0.5, width / 2)
        for left in (x0, x0 + leaf) if shut else (x0 - leaf - 0.03, x1 + 0.03):
            canvas.rectangle(left, z0, left + leaf, z1, design.accent)
            for z in np.arange(z0 + 0.1, z1 - 0.05, 0.16):
                canvas.shade(left + 0.06, z, left + leaf - 0.06, z + 0.06, 0.7)


def _relief(canvas: Canvas, design: Design) -> None:
    """Draw ground-floor colour, plinth, string courses, quoins and pilasters."""
    width, ground = design.width_m, design.ground_m
    if design.ground_colour != design.colour:
        rng = generator(design.seed, "ground")
        canvas.cover(plaster, rng, design.ground_colour, canvas.window(0, 0, width, ground))
    canvas.rectangle(0, 0, width, 0.45, shift(design.ground_colour, saturation=0.7, value=0.6))
    if design.string_courses:
        for storey in range(design.storeys):
            z = design.floor_m(storey)
            canvas.rectangle(0, z - 0.12, width, z + 0.08, design.trim)
            canvas.shade(0, z - 0.2, width, z - 0.12, 0.7)
    stones = np.arange(0.45, design.eaves_m, 0.4)
    for index, z in enumerate(stones if design.quoins else ()):
        reach = 0.55 if index % 2 else 0.35
        for x0, x1 in ((0.0, reach), (width - reach, width)):
            canvas.rectangle(x0, z, x1, z + 0.36, design.trim)
    for bay in range(design.bays + 1) if design.pilasters else ():
        x = float(np.clip(0.3 + bay * (width - 0.6) / design.bays, 0.2, width - 0.2))
        canvas.rectangle(x - 0.18, ground, x + 0.18, design.eaves_m, design.trim)
        canvas.shade(x + 0.12, ground, x + 0.18, design.eaves_m, 0.75)


def _timber(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    beam: Colour = (72, 50, 38)
    top = design.eaves_m + design.gable_m
    floors = [design.floor_m(storey) for storey in range(design.storeys + 1)]
    for z in [*floors, *(floor + 1.0 for floor in floors[:-1])]:
        canvas.rectangle(0, z - 0.09, design.width_m, z + 0.09, beam)
    edges = np.linspace(0.1, design.width_m - 0.1, design.bays + 1)
    for x in edges:
        canvas.rectangle(x - 0.1, design.ground_m, x + 0.1, top, beam)
    for z in floors[:-1]:
        for left, right in pairwise(edges):
            if rng.random() < 0.5:
                low, high = (z, z + 1.0) if rng.random() < 0.5 else (z + 1.0, z)
                canvas.line([(left, low), (right, high)], beam, 0.14)


def _mural(canvas: Canvas, design: Design) -> None:
    rng = generator(design.mural, "mural")
    for _ in range(9):
        x, z = rng.uniform(0, design.width_m), rng.uniform(design.ground_m, design.eaves_m)
        colour = shift((200, 90, 70), rng.random(), value=rng.uniform(0.7, 1.2))
        radius = rng.uniform(0.5, 2.0)
        if rng.random() < 0.6:
            canvas.ellipse(x, z, radius, radius, colour)
        else:
            canvas.line([(x - 2 * radius, z - radius), (x + 2 * radius, z + radius)], colour, 0.5)


def _weather(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """Apply stains from top and base, and ivy."""
    height, width = canvas.size
    field = noise(rng, height, width, 3 * canvas.texels)
    fall = np.linspace(1, 0, height, dtype=np.float32)[:, None] ** 3
    factor = 1 - 0.16 * design.stains * np.clip(field + 0.8, 0, 2) * (fall + fall[::-1] + 0.25)
    canvas.rgba[..., :3] = (canvas.rgba[..., :3] * factor[..., None]).clip(0, 255).astype(np.uint8)
    if design.ivy:
        reach = np.linspace(1.1, -0.9, height, dtype=np.float32)[::-1][:, None]
        side = np.linspace(1, -1, width, dtype=np.float32)[None, :] * (1 if design.seed % 2 else -1)
        leaves = noise(rng, height, width, 1.2 * canvas.texels, 4) + reach * design.ivy + 0.7 * side > 0.75
        green = np.array([62, 98, 48]) * (1 + 0.3 * rng.normal(0, 1, (height, width, 1)))
        canvas.rgba[leaves, :3] = green.clip(0, 255).astype(np.uint8)[leaves]


def _crown(canvas: Canvas, design: Design) -> None:
    """Draw the cornice, or cut out the gable."""
    width, eaves, rise = design.width_m, design.eaves_m, design.gable_m
    if design.cornice_m and not rise:
        canvas.rectangle(0, eaves - design.cornice_m, width, eaves, design.trim)
        canvas.shade(0, eaves - design.cornice_m, width, eaves - 0.65 * design.cornice_m, 0.78)
        for x in np.arange(0.15, width, 0.5):
            canvas.shade(x, eaves - design.cornice_m, x + 0.2, eaves - 0.5 * design.cornice_m, 0.7)
        canvas.shade(0, eaves - design.cornice_m - 0.12, width, eaves - design.cornice_m, 0.7)
    if not rise:
        return
    if design.storeys and rise > 2.2:
        canvas.ellipse(width / 2, eaves + 0.32 * rise, 0.5, 0.5, design.trim)
        canvas.ellipse(width / 2, eaves + 0.32 * rise, 0.38, 0.38, (70, 84, 98))
    left = gable_outline(design)
    for mirrored in (False, True):
        outline = [(width - x if mirrored else x, z) for x, z in left]
        edge = width if mirrored else 0.0
        canvas.line(outline, design.trim, 0.3)
        canvas.polygon([*outline, (edge, eaves + rise + 1)], design.trim, alpha=0)


def gable_outline(design: Design) -> list[tuple[float, float]]:
    """Return the (x, z) outline of a gable's left half, from eaves to ridge."""
    half, eaves, rise = design.width_m / 2, design.eaves_m, design.gable_m
    if design.roof == "gable":
        return [(0.0, eaves), (half, eaves + rise)]
    steps = 5
    points = [(0.0, eaves)]
    for index in range(steps):
        z = eaves + rise * (index + 1) / steps
        points += [(half * index / steps, z), (half * (index + 1) / steps, z)]
    return points
