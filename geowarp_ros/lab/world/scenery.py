"""Turns a quarter's plan into surfaces: ground, houses, gaps, the far skyline, and what stands on the pavement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from geowarp_ros.lab.world import furniture, materials
from geowarp_ros.lab.world.buildings import UP, add_building
from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.canvas import Canvas, Pixels
from geowarp_ros.lab.world.materials import Colour, shift
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.lab.world.shadows import Row, rows_of
from geowarp_ros.lab.world.surfaces import Scene, Texture
from geowarp_ros.lab.world.town import Gap, Quarter, Street, ground_point

ASPHALT: Colour = (98, 98, 102)
MARKING: Colour = (226, 224, 214)
PERSON_M = (0.9, 1.8)
CAR_SPACE_M = 5.6
"""Least distance of the middles of two cars in a lane."""


@dataclass
class Upright:
    """A flat picture that always faces the camera."""

    foot: Vector
    size_m: tuple[float, float]
    texture: Texture


@dataclass
class Scenery:
    """A quarter ready for drawing."""

    quarter: Quarter
    rows: tuple[Row, ...] = ()
    solid: Scene = field(default_factory=Scene)
    shadows: Scene = field(default_factory=Scene)
    uprights: list[Upright] = field(default_factory=list)


class Props:
    """Textures that the whole town shares."""

    def __init__(self, seed: int, texels: float) -> None:
        def sprites(paint: Callable[[int, float], Pixels], count: int, fineness: float) -> list[Texture]:
            return [Texture(partial(paint, seed + 31 * number, fineness)) for number in range(count)]

        self.trees = sprites(furniture.paint_tree, 14, texels * 0.6)
        self.lamps = sprites(furniture.paint_lamp, 6, texels)
        self.things = sprites(furniture.paint_bench, 8, texels)
        self.people = sprites(furniture.paint_person, 40, texels)
        self.shadow = Texture(furniture.paint_shadow)
        self.cars = [
            furniture.CarModel(profile, colour, texels)
            for profile in furniture.CAR_PROFILES
            for colour in furniture.CAR_COLOURS
        ]


def build_scenery(quarter: Quarter, props: Props, texels: float) -> Scenery:
    """Return the quarter's surfaces; textures are painted when first seen."""
    scenery = Scenery(quarter, rows_of(quarter))
    for building in quarter.buildings:
        add_building(scenery.solid, building, texels)
    for gap in quarter.gaps:
        _add_gap(scenery, gap, props, texels / 2)
    for street in quarter.streets:
        _add_ground(scenery.solid, quarter, street, texels / 2)
        _add_furniture(scenery, quarter, street, props)
    _add_wide_ground(scenery.solid, quarter)
    _add_skyline(scenery.solid, quarter)
    return scenery


def _add_ground(scene: Scene, quarter: Quarter, street: Street, texels: float) -> None:
    """Lay carriageway, kerbs and pavements between the corners, in one sheet seen from above."""
    start, length = street.width_m / 2, street.length_m - street.width_m
    apron = 0.6  # the pavement goes on where houses stand back
    breadth = street.width_m + 2 * apron
    pavement = street.pavement_m + apron

    def paint() -> Pixels:
        rng = generator(quarter.seed, "ground", street.name)
        canvas = Canvas(length, breadth, texels, ASPHALT)
        grey = shift(ASPHALT, value=float(rng.uniform(0.85, 1.2)))
        canvas.rgba[..., :3] = materials.asphalt(rng, *canvas.size, texels, grey)
        for _ in range(int(length / 14)):
            x, z = float(rng.uniform(0, length)), float(rng.uniform(3, breadth - 3))
            canvas.shade(
                x,
                z,
                x + float(rng.uniform(1, 5)),
                z + float(rng.uniform(0.5, 1.6)),
                float(rng.uniform(0.75, 0.92)),
            )
        stone = ((172, 166, 156), (156, 150, 148), (178, 160, 142))[int(rng.integers(3))]
        for z in (0.0, breadth - pavement):
            view = canvas.window(0, z, length, z + pavement)
            view[..., :3] = materials.slabs(rng, view.shape[0], view.shape[1], texels, stone)
        for z in (pavement, breadth - pavement):
            canvas.rectangle(0, z - 0.12, length, z + 0.06, (198, 194, 186))
        middle = breadth / 2
        for x in np.arange(1.0, length, 6.0):
            canvas.rectangle(float(x), middle - 0.07, float(x) + 3.0, middle + 0.07, MARKING)
        if rng.random() < 0.75:
            crossing = float(rng.uniform(6, length - 10))
            for z in np.arange(pavement + 0.4, breadth - pavement - 0.4, 1.0):
                canvas.rectangle(crossing, float(z), crossing + 3.0, float(z) + 0.5, MARKING)
        for _ in range(5):
            x, z = float(rng.uniform(0, length)), float(rng.uniform(3.5, breadth - 3.5))
            canvas.ellipse(x, z, 0.33, 0.33, (58, 56, 56))
        return np.ascontiguousarray(canvas.rgba[..., :3])

    along = np.append(street.direction, 0.0) * length
    across = np.append(street.left, 0.0) * breadth
    scene.add(ground_point(street, start, breadth / 2), along, -across, Texture(paint))


def _add_wide_ground(scene: Scene, quarter: Quarter) -> None:
    """Lay asphalt under the corners and rough grass under everything, each a little lower."""
    rng = generator(quarter.seed, "wide")
    asphalt = Texture(
        lambda: materials.asphalt(generator(quarter.seed, "a"), 400, 400, 12, shift(ASPHALT, value=1.05))
    )
    for street in quarter.streets:
        corner = np.append(street.start, -0.02) + np.array([-17.0, 17.0, 0.0])
        scene.add(corner, np.array([34.0, 0, 0]), np.array([0, -34.0, 0]), asphalt)
    green = shift((124, 136, 92), float(rng.normal(0, 0.02)))
    grass = Texture(lambda: materials.grass(generator(quarter.seed, "g"), 600, 600, 1.5, green))
    corner = np.append(quarter.centre, -0.05) + np.array([-220.0, 220.0, 0.0])
    scene.add(corner, np.array([440.0, 0, 0]), np.array([0, -440.0, 0]), grass)


def _add_gap(scenery: Scenery, gap: Gap, props: Props, texels: float) -> None:
    """Close a gap with a fence, a wall or a hedge; a yard house and a tree stand behind."""
    rng = generator(gap.seed, "gap")
    tone = shift((196, 176, 150), float(rng.normal(0, 0.05)), value=float(rng.uniform(0.7, 1.1)))
    height = float(rng.uniform(5, 9))

    def paint_yard() -> Pixels:
        draw = generator(gap.seed, "yard")
        canvas = Canvas(14.0, height, texels, tone)
        canvas.rgba[..., :3] = materials.plaster(draw, *canvas.size, texels, tone)
        for x in np.arange(0.8, 13, float(draw.uniform(1.8, 3.0))):
            for z in np.arange(1.0, height - 1.6, 2.9):
                canvas.rectangle(float(x) - 0.08, float(z) - 0.08, float(x) + 0.98, float(z) + 1.38, MARKING)
                canvas.rectangle(float(x), float(z), float(x) + 0.9, float(z) + 1.3, (74, 86, 98))
        return canvas.rgba

    middle = gap.corner + gap.right * gap.width_m / 2
    yard = middle - gap.out * 17.0 - gap.right * 7.0 + UP * height
    scenery.solid.add(yard, gap.right * 14.0, -UP * height, Texture(paint_yard))
    if rng.random() < 0.7:
        foot = middle - gap.out * float(rng.uniform(3.5, 9))
        size = float(rng.uniform(0.8, 1.25))
        scenery.uprights.append(
            Upright(foot, (5 * size, 7 * size), props.trees[int(rng.integers(len(props.trees)))])
        )
    if gap.kind == "open":
        return
    rise = {"fence": 1.1, "wall": 2.2, "hedge": 1.5}[gap.kind]

    def paint_barrier() -> Pixels:
        draw = generator(gap.seed, "barrier")
        canvas = Canvas(gap.width_m, rise, 2 * texels, None if gap.kind == "fence" else tone, behind=(60, 60, 58))
        if gap.kind == "wall":
            canvas.rgba[..., :3] = materials.brick(draw, *canvas.size, 2 * texels, (150, 92, 70))
            canvas.rectangle(0, rise - 0.12, gap.width_m, rise, (186, 180, 168))
        elif gap.kind == "hedge":
            canvas.rgba[..., :3] = materials.grass(draw, *canvas.size, 2 * texels, (70, 108, 54))
        else:
            for x in np.arange(0, gap.width_m, 0.18):
                canvas.rectangle(float(x), 0, float(x) + 0.05, rise, (44, 50, 48))
            for z in (0.15, rise - 0.12):
                canvas.rectangle(0, z, gap.width_m, z + 0.06, (44, 50, 48))
        return canvas.rgba

    scenery.solid.add(
        gap.corner - 0.3 * gap.out + UP * rise, gap.right * gap.width_m, -UP * rise, Texture(paint_barrier)
    )


def _add_skyline(scene: Scene, quarter: Quarter) -> None:
    """Set eight screens of hazy roofs, trees and a tower around the quarter."""

    def paint(index: int) -> Pixels:
        rng = generator(quarter.seed, "skyline", index)
        canvas = Canvas(150.0, 40.0, 2.0, None, behind=(150, 164, 160))
        for _ in range(26):
            x = float(rng.uniform(0, 150))
            if rng.random() < 0.6:
                width, height = float(rng.uniform(7, 18)), float(rng.uniform(7, 15))
                wall = shift((186, 172, 156), float(rng.normal(0, 0.05)), value=float(rng.uniform(0.85, 1.1)))
                canvas.rectangle(x, 0, x + width, height, wall)
                roof = [(x - 0.5, height), (x + width + 0.5, height), (x + width / 2, height + width * 0.35)]
                canvas.polygon(roof, shift((150, 104, 88), float(rng.normal(0, 0.03))))
            else:
                size = float(rng.uniform(4, 8))
                canvas.ellipse(x, size, size, size, shift((116, 138, 100), value=float(rng.uniform(0.85, 1.1))))
        if rng.random() < 0.35:
            x = float(rng.uniform(20, 130))
            canvas.rectangle(x - 3, 0, x + 3, 24, (176, 166, 154))
            canvas.polygon([(x - 3.6, 24), (x + 3.6, 24), (x, 38)], (112, 120, 122))
        return canvas.rgba

    reach = 165.0
    for index in range(8):
        angle = index * np.pi / 4
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        left = np.cross(UP, out)
        corner = np.append(quarter.centre, 0.0) + out * reach + left * 75.0 + UP * 40.0
        scene.add(corner, -left * 150.0, -UP * 40.0, Texture(partial(paint, index)), two_sided=True)


def _add_furniture(scenery: Scenery, quarter: Quarter, street: Street, props: Props) -> None:
    """Stand lamps, trees and small things along both kerbs."""
    rng = generator(quarter.seed, "furniture", street.name)
    kerb = street.width_m / 2 - street.pavement_m + 0.5
    lamp = props.lamps[int(rng.integers(len(props.lamps)))]
    kind = int(rng.integers(len(props.trees)))
    for side in (-1.0, 1.0):
        x = street.margin_m + float(rng.uniform(0, 12))
        while x < street.length_m - street.margin_m:
            foot = ground_point(street, x, side * kerb)
            scenery.uprights.append(Upright(foot, (1.2, 5.0), lamp))
            x += float(rng.uniform(18, 26))
        x = street.margin_m + float(rng.uniform(2, 8))
        while street.trees_m and x < street.length_m - street.margin_m:
            if rng.random() < 0.75:
                size = float(rng.uniform(0.6, 0.85))
                tree = props.trees[kind if rng.random() < 0.7 else int(rng.integers(len(props.trees)))]
                foot = ground_point(street, x, side * kerb)
                scenery.uprights.append(Upright(foot, (5 * size, 7 * size), tree))
                corner = foot + np.array([-1.6, 1.6, 0.01])
                scenery.shadows.add(corner, np.array([3.2, 0, 0]), np.array([0, -3.2, 0]), props.shadow)
            x += street.trees_m * float(rng.uniform(0.8, 1.2))
        for _ in range(int(rng.integers(2, 6))):
            x = float(rng.uniform(street.margin_m, street.length_m - street.margin_m))
            foot = ground_point(street, x, side * (street.width_m / 2 - 0.6))
            thing = props.things[int(rng.integers(len(props.things)))]
            scenery.uprights.append(Upright(foot, (1.6, 1.2), thing))


def occluders(scenery: Scenery, props: Props, camera: Camera, density: float, traffic: int) -> tuple[Scene, Scene]:
    """Return who is in the streets: (solids, shadows). The same ``traffic`` gives the same cars and people."""
    solids, shadows = Scene(), Scene()
    here = camera.position[:2]
    right = camera.camera_from_world[0]
    for number, street in enumerate(scenery.quarter.streets):
        rng = generator(traffic, "traffic", number)
        length = street.length_m
        cars = rng.uniform(0, 1, (int(rng.poisson(density * length / 16)), 5))
        people = rng.uniform(0, 1, (int(rng.poisson(density * length / 7)), 5))
        forward = np.append(street.direction, 0.0)
        standing: list[Vector] = []
        for draw in cars:
            side = 1.0 if draw[1] < 0.5 else -1.0
            parked = draw[2] < 0.75
            lateral = side * (street.width_m / 2 - street.pavement_m - (1.05 if parked else 2.9))
            middle = ground_point(street, 4 + draw[0] * (length - 8), float(lateral))
            if any(np.linalg.norm(middle - other) < CAR_SPACE_M for other in standing):
                continue
            standing.append(middle)
            if 4.2 < np.linalg.norm(middle[:2] - here) < 75:
                model = props.cars[int(draw[4] * len(props.cars))]
                model.add(solids, shadows, props.shadow, middle, -side * forward)
        for draw in people:
            side = 1.0 if draw[1] < 0.5 else -1.0
            lateral = side * (street.width_m / 2 - 0.6 - draw[2] * (street.pavement_m - 0.8))
            foot = ground_point(street, float(draw[0] * length), float(lateral))
            if 2.5 < np.linalg.norm(foot[:2] - here) < 60:
                scale = 0.9 + 0.18 * draw[3]
                texture = props.people[int(draw[4] * len(props.people))]
                furniture.billboard(solids, foot, right, (PERSON_M[0] * scale, PERSON_M[1] * scale), texture)
                corner = foot + np.array([-0.4, 0.4, 0.01])
                shadows.add(corner, np.array([0.8, 0, 0]), np.array([0, -0.8, 0]), props.shadow)
    return solids, shadows
