"""Paints the elevation of a house from its design."""

from __future__ import annotations

import cv2
import numpy as np

from geowarp_ros.world.architecture import WINDOW_SIZES, Design, WindowForm
from geowarp_ros.world.canvas import Canvas, Pixels
from geowarp_ros.world.materials import WALLS, Colour, noise, plaster, shift
from geowarp_ros.world.randomness import generator

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


def paint_front(design: Design, texels: float) -> Pixels:
    """Return the front wall, (h, w, 4) RGBA; its lower edge is the ground, a gable's outside is transparent."""
    rng = generator(design.seed, "front")
    canvas = Canvas(design.width_m, design.eaves_m + design.gable_m, texels, design.colour)
    canvas.rgba[..., :3] = WALLS[design.material](rng, *canvas.size, texels, design.colour)
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
    _ground_floor(canvas, design, rng)
    _weather(canvas, design, rng)
    _crown(canvas, design)
    return canvas.rgba


def paint_side(design: Design, texels: float) -> Pixels:
    """Return a side wall (h, w, 3): the same material, nearly bare."""
    rng = generator(design.seed, "side")
    canvas = Canvas(design.depth_m, design.eaves_m, texels, design.colour)
    colour = shift(design.colour, value=0.92)
    canvas.rgba[..., :3] = WALLS[design.material](rng, *canvas.size, texels, colour)
    for storey in range(design.storeys):
        if rng.random() < 0.5:
            x, z = float(rng.uniform(1.5, design.depth_m - 2.5)), design.floor_m(storey) + 0.9
            canvas.rectangle(x - 0.08, z - 0.08, x + 0.98, z + 1.38, design.frame)
            canvas.rectangle(x, z, x + 0.9, z + 1.3, (70, 84, 96))
    canvas.rectangle(0, 0, design.depth_m, 0.5, shift(colour, value=0.7))
    return np.ascontiguousarray(canvas.rgba[..., :3])


def paint_window(design: Design, form: WindowForm, texels: float) -> Pixels:
    """Return one window with its frame (h, w, 4); arched forms are transparent outside the arch."""
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
    canvas.shade(border, height - border - 0.12, width - border, height - border, 0.6)  # the reveal's shadow
    return canvas.rgba


def _hang_window(
    canvas: Canvas,
    design: Design,
    form: WindowForm,
    sprite: Pixels,
    storey: int,
    bay: int,
    rng: np.random.Generator,
) -> None:
    """Set a window into its bay with curtains, sill, surround, shutters."""
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
    _behind_glass(canvas, x0 + 0.1, z0 + 0.1, x1 - 0.1, z1 - 0.35, rng)
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


def _behind_glass(canvas: Canvas, x0: float, z0: float, x1: float, z1: float, rng: np.random.Generator) -> None:
    """Curtains, blinds, flowers, a lamp: what tells one window from the next."""
    kind = rng.random()
    middle = (x0 + x1) / 2
    if kind < 0.3:
        for left, right in ((x0, x0 + 0.22 * (x1 - x0)), (x1 - 0.22 * (x1 - x0), x1)):
            view = canvas.window(left, z0, right, z1)[..., :3]
            view[:] = (0.45 * view + 0.55 * np.array([226, 220, 206])).astype(np.uint8)
    elif kind < 0.45:
        low = z1 - float(rng.uniform(0.3, 0.8)) * (z1 - z0)
        view = canvas.window(x0, low, x1, z1)[..., :3]
        view[:] = (0.3 * view + 0.7 * np.array([214, 206, 188])).astype(np.uint8)
    elif kind < 0.55:
        canvas.rectangle(x0, z0 - 0.12, x1, z0 + 0.08, (104, 66, 44))
        for x in np.arange(x0 + 0.06, x1, 0.16):
            colour = ((64, 110, 52), (206, 62, 70), (238, 190, 60), (84, 130, 66))[int(rng.integers(4))]
            canvas.ellipse(float(x), z0 + 0.14, 0.09, 0.12, colour)
    elif kind < 0.62:
        canvas.ellipse(middle, z0 + 0.7 * (z1 - z0), 0.14, 0.12, (252, 222, 150))


def _relief(canvas: Canvas, design: Design) -> None:
    """Base, string courses, corner stones, pilasters, the ground floor's own colour."""
    width, ground = design.width_m, design.ground_m
    if design.ground_colour != design.colour:
        rng = generator(design.seed, "ground")
        view = canvas.window(0, 0, width, ground)
        view[..., :3] = plaster(rng, *view.shape[:2], canvas.texels, design.ground_colour)
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
    """Half-timbering: posts, rails and braces."""
    beam: Colour = (72, 50, 38)
    top = design.eaves_m + design.gable_m
    for z in [design.floor_m(s) for s in range(design.storeys + 1)] + [
        design.floor_m(s) + 1.0 for s in range(design.storeys)
    ]:
        canvas.rectangle(0, z - 0.09, design.width_m, z + 0.09, beam)
    edges = np.linspace(0.1, design.width_m - 0.1, design.bays + 1)
    for x in edges:
        canvas.rectangle(x - 0.1, design.ground_m, x + 0.1, top, beam)
    for storey in range(design.storeys):
        z = design.floor_m(storey)
        for left, right in zip(edges[:-1], edges[1:], strict=True):
            if rng.random() < 0.5:
                low, high = (z, z + 1.0) if rng.random() < 0.5 else (z + 1.0, z)
                canvas.line([(float(left), low), (float(right), high)], beam, 0.14)


def _mural(canvas: Canvas, design: Design) -> None:
    """A large painting of circles and bands on the upper wall."""
    rng = generator(design.mural, "mural")
    for _ in range(9):
        x, z = float(rng.uniform(0, design.width_m)), float(rng.uniform(design.ground_m, design.eaves_m))
        colour = shift((200, 90, 70), float(rng.random()), value=float(rng.uniform(0.7, 1.2)))
        radius = float(rng.uniform(0.5, 2.0))
        if rng.random() < 0.6:
            canvas.ellipse(x, z, radius, radius, colour)
        else:
            canvas.line([(x - 2 * radius, z - radius), (x + 2 * radius, z + radius)], colour, 0.5)


def _ground_floor(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """Door and whatever the ground floor is."""
    painter = {"home": _home, "shop": _shop, "cafe": _shop, "arcade": _arcade, "garage": _garage}[design.ground]
    painter(canvas, design, rng)


def _door(canvas: Canvas, design: Design, x: float, width: float = 1.1, height: float = 2.25) -> None:
    """A panelled door with a fanlight, its axis at ``x``."""
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
        _behind_glass(canvas, x - width / 2 + 0.1, 1.05, x + width / 2 - 0.1, 0.6 + height, rng)


def _shop(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """A shop front: panes, stall riser, fascia with the name."""
    width, top = design.width_m, design.ground_m - 0.2
    canvas.rectangle(0.25, 0, width - 0.25, top, design.accent)
    canvas.shade(0.25, top - 0.75, width - 0.25, top - 0.68, 0.6)
    door_left = design.door_bay % 2 == 0
    pane0, pane1 = (1.7, width - 0.5) if door_left else (0.5, width - 1.7)
    count = max(1, round((pane1 - pane0) / 1.8))
    edges = np.linspace(pane0, pane1, count + 1)
    for left, right in zip(edges[:-1], edges[1:], strict=True):
        canvas.rectangle(left + 0.05, 0.5, right - 0.05, top - 0.85, (74, 84, 92))
        _shop_window(canvas, left + 0.05, 0.5, right - 0.05, top - 0.85, rng)
    x = 0.95 if door_left else width - 0.95
    canvas.rectangle(x - 0.5, 0.05, x + 0.5, 2.3, design.second_accent)
    canvas.rectangle(x - 0.38, 0.5, x + 0.38, 2.15, (86, 100, 110))
    sign = design.second_accent if design.second_accent != design.accent else (240, 236, 226)
    face = TYPEFACES[design.typeface]
    canvas.text(design.sign, width / 2, top - 0.34, 0.75 * width, 0.42, sign, face)


def _shop_window(canvas: Canvas, x0: float, z0: float, x1: float, z1: float, rng: np.random.Generator) -> None:
    """Goods behind glass: rows of coloured things under a reflection of the sky."""
    base = shift((150, 140, 120), float(rng.random()), float(rng.uniform(0.4, 1.4)), float(rng.uniform(0.5, 1.0)))
    canvas.rectangle(x0, z0, x1, z1, base)
    for shelf in np.arange(z0 + 0.05, z1 - 0.3, float(rng.uniform(0.45, 0.8))):
        x = x0 + 0.05
        while x < x1 - 0.15:
            size = float(rng.uniform(0.1, 0.35))
            tone = shift(
                (190, 110, 80), float(rng.random()), float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.5, 1.3))
            )
            canvas.rectangle(x, shelf, min(x + size, x1 - 0.04), shelf + float(rng.uniform(0.12, 0.38)), tone)
            x += size + 0.06
    view = canvas.window(x0, z0, x1, z1)[..., :3]
    ramp = np.linspace(0.55, 0.1, max(1, view.shape[0]))[:, None, None]
    view[:] = (view * (1 - ramp) + np.array([168, 190, 208]) * ramp).astype(np.uint8)


def _arcade(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """Round arches on piers, dark behind."""
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
    """A wide gate with slats, a door beside it."""
    gate = min(3.0, design.width_m - 2.4)
    left = design.door_bay % 2 == 0
    x0 = 0.5 if left else design.width_m - 0.5 - gate
    canvas.rectangle(x0 - 0.15, 0, x0 + gate + 0.15, 2.75, design.trim)
    canvas.rectangle(x0, 0, x0 + gate, 2.6, design.second_accent)
    for z in np.arange(0.25, 2.5, 0.28):
        canvas.shade(x0, float(z), x0 + gate, float(z) + 0.05, 0.68)
    _door(canvas, design, design.width_m - 1.2 if left else 1.2)
    if design.width_m - gate > 4.5:
        middle = x0 + gate + 1.3 if left else x0 - 1.3
        canvas.paste(middle - 0.6, 1.0, paint_window(design, "square", canvas.texels))
    canvas.text(str(1 + design.seed % 98), x0 + gate / 2, 2.95, 0.6, 0.3, design.accent, TYPEFACES[1])


def _weather(canvas: Canvas, design: Design, rng: np.random.Generator) -> None:
    """Stains from the top and the base, and ivy."""
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
    """The cornice and, for gables, the outline against the sky."""
    width, eaves, rise = design.width_m, design.eaves_m, design.gable_m
    if design.cornice_m and not rise:
        canvas.rectangle(0, eaves - design.cornice_m, width, eaves, design.trim)
        canvas.shade(0, eaves - design.cornice_m, width, eaves - 0.65 * design.cornice_m, 0.78)
        for x in np.arange(0.15, width, 0.5):
            canvas.shade(float(x), eaves - design.cornice_m, float(x) + 0.2, eaves - 0.5 * design.cornice_m, 0.7)
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
    """Return the (x, z) corners of a gable's left half, from the eaves to the ridge."""
    half, eaves, rise = design.width_m / 2, design.eaves_m, design.gable_m
    if design.roof == "gable":
        return [(0.0, eaves), (half, eaves + rise)]
    steps = 5
    points = [(0.0, eaves)]
    for index in range(steps):
        z = eaves + rise * (index + 1) / steps
        points += [(half * index / steps, z), (half * (index + 1) / steps, z)]
    return points
