"""Geometry of a house: walls, roof, balconies, awning and signs as textured parallelograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geowarp_ros.lab.world.architecture import WINDOW_SIZES, Design
from geowarp_ros.lab.world.camera import Vector
from geowarp_ros.lab.world.canvas import Canvas, Pixels
from geowarp_ros.lab.world.facades import paint_front, paint_side
from geowarp_ros.lab.world.materials import Colour, roof_tiles, shift
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.lab.world.street_level import TYPEFACES, paint_window
from geowarp_ros.lab.world.surfaces import Scene, Texture

UP = np.array([0.0, 0.0, 1.0])
DETAIL_REACH_M = 55.0
"""Maximum drawing distance of small details."""


@dataclass(frozen=True)
class Building:
    """A house on its plot.

    Attributes:
        design: Appearance and dimensions.
        corner: (3,) ENU of the plot's front left ground corner, seen from the street (m).
        right: (3,) unit vector along the front, to the viewer's right.
        out: (3,) unit vector from the front towards the street.
        end_left: Omit the left side wall (hidden by the house around the corner).
        end_right: Omit the right side wall.
    """

    design: Design
    corner: Vector
    right: Vector
    out: Vector
    end_left: bool = False
    end_right: bool = False

    def at(self, x: float, depth: float, z: float) -> Vector:
        """Return the ENU point ``x`` along the façade, ``depth`` behind it, ``z`` above the ground (m)."""
        return np.asarray(self.corner + x * self.right - (depth + self.design.setback_m) * self.out + z * UP)

    @property
    def front(self) -> tuple[Vector, Vector, Vector]:
        """Front wall up to the eaves: top left corner, horizontal and downward edge vectors."""
        eaves = self.design.eaves_m
        return self.at(0, 0, eaves), self.right * self.design.width_m, -UP * eaves


def plain(colour: Colour) -> Texture:
    """Return a single-colour texture."""
    return Texture(lambda: np.full((4, 4, 3), colour, np.uint8))


def add_building(scene: Scene, building: Building, texels: float) -> None:
    """Add a house's surfaces to the scene."""
    design = building.design
    height = design.eaves_m + design.gable_m
    scene.add(
        building.at(0, 0, height),
        building.right * design.width_m,
        -UP * height,
        Texture(lambda: paint_front(design, texels)),
    )
    _add_ends(scene, building, design.eaves_m, design.eaves_m, Texture(lambda: paint_side(design, texels / 2)))
    _add_roof(scene, building, texels / 2)
    _add_balconies(scene, building, texels)
    if design.awning != "none":
        _add_awning(scene, building, texels)
    if design.ground in ("shop", "cafe") and design.seed % 3 == 0:
        _add_blade_sign(scene, building, texels)


def _add_ends(scene: Scene, building: Building, top: float, height: float, texture: Texture) -> None:
    """Add the left and right side walls, from ``top`` down by ``height`` (m), unless hidden by a neighbour."""
    back, down = building.out * building.design.depth_m, -UP * height
    if not building.end_left:
        scene.add(building.at(0, building.design.depth_m, top), back, down, texture)
    if not building.end_right:
        scene.add(building.at(building.design.width_m, 0, top), -back, down, texture)


def _add_roof(scene: Scene, building: Building, texels: float) -> None:
    design = building.design
    width, depth, eaves = design.width_m, design.depth_m, design.eaves_m
    rng = generator(design.seed, "roof")

    def tiles(across: float, along: float) -> Texture:
        size = (max(2, round(along * texels)), max(2, round(across * texels)))
        return Texture(lambda: roof_tiles(generator(design.seed, "tiles"), *size, texels, design.roof_colour))

    if design.roof == "eaves":
        run, rise = depth / 2, depth / 2 * rng.uniform(0.7, 1.0)
        over = 0.45 / run
        ridge = building.at(0, run, eaves + rise)
        slope = building.at(0, 0, eaves) - ridge
        roof = tiles(width, float(np.linalg.norm(slope)))
        scene.add(ridge, building.right * width, slope * (1 + over), roof, two_sided=True)
        _add_profile(scene, building, [(0.0, 0.0), (depth / 2, rise), (depth, 0.0)], rise, design.colour, texels)
        _add_dormers(scene, building, texels, back=0.9, z=eaves + 0.5 * rise * 0.35)
        _add_chimney(scene, building, run * 0.8, eaves + 0.55 * rise, rise * 0.45 + 1.3)
    elif design.roof == "mansard":
        rise, run = 2.7, 1.0
        top = building.at(0, run, eaves + rise)
        slope = building.at(0, -0.15, eaves) - top
        scene.add(top, building.right * width, slope, tiles(width, rise), two_sided=True)
        outline = [(0.0, 0.0), (run, rise), (depth - run, rise), (depth, 0.0)]
        _add_profile(scene, building, outline, rise, design.roof_colour, texels)
        _add_dormers(scene, building, texels, back=0.1, z=eaves + 0.35)
        _add_chimney(scene, building, 2.0, eaves + rise, 1.4)
    elif design.roof in ("gable", "stepped"):
        ridge = building.at(width / 2, 0.1, eaves + design.gable_m)
        roof = tiles(depth, width / 2)
        for edge in (0.0, width):
            slope = building.at(edge, 0.1, eaves) - ridge
            scene.add(ridge, -building.out * depth, slope, roof, two_sided=True)
        _add_chimney(scene, building, depth * 0.5, eaves + 0.6 * design.gable_m, 0.4 * design.gable_m + 1.2)
    else:
        parapet = plain(shift(design.trim, value=0.9))
        _add_box(scene, building, (0.0, width), (-0.12, 0.3), (eaves - 0.05, eaves + 0.28), parapet)
        _add_chimney(scene, building, 2.5, eaves, 1.8)


def _add_profile(
    scene: Scene,
    building: Building,
    outline: list[tuple[float, float]],
    rise: float,
    colour: Colour,
    texels: float,
) -> None:
    """Close a roof's ends with its cross-section; ``outline`` is (behind the front, above the eaves) in m."""
    design = building.design

    def paint() -> Pixels:
        canvas = Canvas(design.depth_m, rise, texels, None, behind=colour)
        canvas.polygon([(design.depth_m - x, z) for x, z in outline], shift(colour, value=0.9))
        return canvas.rgba

    _add_ends(scene, building, design.eaves_m + rise, rise, Texture(paint))


def _add_box(
    scene: Scene,
    building: Building,
    x: tuple[float, float],
    depth: tuple[float, float],
    z: tuple[float, float],
    texture: Texture,
    *,
    reach_m: float = 400.0,
    front: Texture | None = None,
    soffit: bool = False,
) -> None:
    """Add the front and sides of a box, and its underside with ``soffit``; the back is never visible."""
    down, across = UP * (z[0] - z[1]), building.right * (x[1] - x[0])
    inwards = building.out * (depth[0] - depth[1])
    scene.add(building.at(x[0], depth[0], z[1]), across, down, front or texture, reach_m=reach_m)
    scene.add(building.at(x[0], depth[1], z[1]), -inwards, down, texture, reach_m=reach_m)
    scene.add(building.at(x[1], depth[0], z[1]), inwards, down, texture, reach_m=reach_m)
    if soffit:
        scene.add(building.at(x[0], depth[0], z[0]), across, inwards, texture, two_sided=True, reach_m=reach_m)


def _add_chimney(scene: Scene, building: Building, depth: float, z: float, height: float) -> None:
    design = building.design
    if design.chimney:
        x = design.chimney * design.width_m
        texture = plain(shift(design.roof_colour, saturation=0.9, value=0.8))
        _add_box(scene, building, (x - 0.4, x + 0.4), (depth - 0.3, depth + 0.4), (z, z + height), texture)


def _add_dormers(scene: Scene, building: Building, texels: float, back: float, z: float) -> None:
    design = building.design

    def paint() -> Pixels:
        canvas = Canvas(1.5, 2.1, texels, None, behind=design.trim)
        canvas.rectangle(0.1, 0, 1.4, 1.55, design.trim)
        canvas.polygon([(0, 1.5), (1.5, 1.5), (0.75, 2.1)], design.trim)
        canvas.line([(0, 1.5), (0.75, 2.06), (1.5, 1.5)], shift(design.roof_colour, value=0.7), 0.12)
        width, height = (design.window_scale * side for side in WINDOW_SIZES["square"])
        canvas.paste(0.75 - width / 2, 0.2, paint_window(design, "square", texels)[: round(height * texels)])
        return canvas.rgba

    front, side = Texture(paint), plain(shift(design.roof_colour, value=0.85))
    for index in range(design.dormers):
        x = (index + 0.5) * design.width_m / design.dormers
        _add_box(scene, building, (x - 0.75, x + 0.75), (back, back + 2.2), (z, z + 2.1), side, front=front)


def _add_balconies(scene: Scene, building: Building, texels: float) -> None:
    design = building.design
    if not design.balconies:
        return
    slab = plain(shift(design.trim, value=0.85))
    width = WINDOW_SIZES[design.window][0] * design.window_scale + 0.7

    def paint() -> Pixels:
        canvas = Canvas(width, 1.0, texels, design.accent if design.balcony_solid else None, behind=(40, 42, 44))
        if not design.balcony_solid:
            for x in np.linspace(0.03, width - 0.03, max(3, round(width / 0.16))):
                canvas.rectangle(x - 0.025, 0, x + 0.025, 1.0, (40, 42, 44))
            canvas.rectangle(0, 0.92, width, 1.0, (40, 42, 44))
            canvas.rectangle(0, 0.05, width, 0.11, (40, 42, 44))
        return canvas.rgba

    rail = Texture(paint)
    for storey, bay in design.balconies:
        x, z = design.bay_centre_m(bay), design.floor_m(storey)
        span = (x - width / 2, x + width / 2)
        _add_box(scene, building, span, (-0.9, 0), (z - 0.14, z + 0.02), slab, reach_m=DETAIL_REACH_M, soffit=True)
        sheets = [(building.at(span[0], -0.9, z + 1), building.right * width)]
        sheets += [(building.at(edge, 0, z + 1), building.out * 0.9) for edge in span]
        for corner, along in sheets:
            scene.add(corner, along, -UP, rail, two_sided=True, reach_m=DETAIL_REACH_M)


def _add_awning(scene: Scene, building: Building, texels: float) -> None:
    design = building.design
    width, top, reach = design.width_m - 0.8, design.ground_m - 0.95, 1.3

    def paint() -> Pixels:
        canvas = Canvas(width, 1.6, texels, design.accent)
        if design.awning == "striped":
            for index, x in enumerate(np.arange(0, width, 0.35)):
                if index % 2:
                    canvas.rectangle(x, 0, x + 0.35, 1.6, design.second_accent)
        canvas.shade(0, 0, width, 0.28, 0.82)
        return canvas.rgb

    cloth = Texture(paint)
    across = building.right * width
    scene.add(
        building.at(0.4, 0, top), across, building.out * reach - UP * 0.65, cloth, two_sided=True, reach_m=90
    )
    scene.add(building.at(0.4, -reach, top - 0.65), across, -UP * 0.25, cloth, two_sided=True, reach_m=90)


def _add_blade_sign(scene: Scene, building: Building, texels: float) -> None:
    design = building.design

    def paint() -> Pixels:
        canvas = Canvas(1.0, 0.7, texels, design.accent)
        canvas.text(design.sign, 0.5, 0.35, 0.85, 0.35, (244, 238, 224), TYPEFACES[design.typeface])
        return canvas.rgb

    sign, x, z = Texture(paint), 0.5, design.ground_m + 0.9
    scene.add(building.at(x, -0.15, z), building.out * 1.0, -UP * 0.7, sign, reach_m=90)
    scene.add(building.at(x, -1.15, z), -building.out * 1.0, -UP * 0.7, sign, reach_m=90)
