"""Surfaces of a quarter: ground, houses, gaps, skyline, street furniture and traffic."""

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
from geowarp_ros.lab.world.randomness import generator, pick
from geowarp_ros.lab.world.shadows import Row, rows_of
from geowarp_ros.lab.world.surfaces import Scene, Texture
from geowarp_ros.lab.world.town import Gap, Quarter, Street

ASPHALT: Colour = (98, 98, 102)
MARKING: Colour = (226, 224, 214)
PERSON_M = (0.9, 1.8)
CAR_SPACE_M = 5.6
"""Minimum distance between the centres of two cars in a lane."""


@dataclass
class Upright:
    """Billboard: a picture that always faces the camera."""

    foot: Vector
    size_m: tuple[float, float]
    texture: Texture


@dataclass
class Scenery:
    """A quarter ready for rendering."""

    quarter: Quarter
    rows: tuple[Row, ...] = ()
    solid: Scene = field(default_factory=Scene)
    shadows: Scene = field(default_factory=Scene)
    uprights: list[Upright] = field(default_factory=list)


class Props:
    """Textures shared by the whole town."""

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
    """Return the quarter's surfaces; textures are painted on first use."""
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
    """Add carriageway, kerbs and pavements between the corners as one surface."""
    start, length = street.width_m / 2, street.length_m - street.width_m
    apron = 0.6  # pavement continues to set-back façades
    breadth = street.width_m + 2 * apron
    pavement = street.pavement_m + apron

    def paint() -> Pixels:
        rng = generator(quarter.seed, "ground", street.name)
        canvas = Canvas(length, breadth, texels, ASPHALT)
        grey = shift(ASPHALT, value=rng.uniform(0.85, 1.2))
        canvas.cover(materials.asphalt, rng, grey)
        for _ in range(int(length / 14)):
            x, z = rng.uniform(0, length), rng.uniform(3, breadth - 3)
            canvas.shade(x, z, x + rng.uniform(1, 5), z + rng.uniform(0.5, 1.6), rng.uniform(0.75, 0.92))
        stone = pick(rng, ((172, 166, 156), (156, 150, 148), (178, 160, 142)))
        for z in (0.0, breadth - pavement):
            canvas.cover(materials.slabs, rng, stone, canvas.window(0, z, length, z + pavement))
        for z in (pavement, breadth - pavement):
            canvas.rectangle(0, z - 0.12, length, z + 0.06, (198, 194, 186))
        middle = breadth / 2
        for x in np.arange(1.0, length, 6.0):
            canvas.rectangle(x, middle - 0.07, x + 3.0, middle + 0.07, MARKING)
        if rng.random() < 0.75:
            crossing = rng.uniform(6, length - 10)
            for z in np.arange(pavement + 0.4, breadth - pavement - 0.4, 1.0):
                canvas.rectangle(crossing, z, crossing + 3.0, z + 0.5, MARKING)
        for _ in range(5):
            x, z = rng.uniform(0, length), rng.uniform(3.5, breadth - 3.5)
            canvas.ellipse(x, z, 0.33, 0.33, (58, 56, 56))
        return canvas.rgb

    along = np.append(street.direction, 0.0) * length
    across = np.append(street.left, 0.0) * breadth
    scene.add(street.ground(start, breadth / 2), along, -across, Texture(paint))


def _add_wide_ground(scene: Scene, quarter: Quarter) -> None:
    """Add asphalt at the corners and, below it, grass up to the skyline."""
    rng = generator(quarter.seed, "wide")
    asphalt = Texture(
        lambda: materials.asphalt(generator(quarter.seed, "a"), 400, 400, 12, shift(ASPHALT, value=1.05))
    )
    for street in quarter.streets:
        _add_square(scene, np.append(street.start, -0.02), 34.0, asphalt)
    green = shift((124, 136, 92), rng.normal(0, 0.02))
    grass = Texture(lambda: materials.grass(generator(quarter.seed, "g"), 600, 600, 1.5, green))
    _add_square(scene, np.append(quarter.centre, -0.05), 440.0, grass)


def _add_square(scene: Scene, centre: Vector, side: float, texture: Texture) -> None:
    """Add a horizontal square, visible from above."""
    corner = centre + np.array([-side / 2, side / 2, 0.0])
    scene.add(corner, np.array([side, 0.0, 0.0]), np.array([0.0, -side, 0.0]), texture)


def _add_gap(scenery: Scenery, gap: Gap, props: Props, texels: float) -> None:
    """Add a gap's barrier, the yard house behind it and possibly a tree."""
    rng = generator(gap.seed, "gap")
    tone = shift((196, 176, 150), rng.normal(0, 0.05), value=rng.uniform(0.7, 1.1))
    height = rng.uniform(5, 9)

    def paint_yard() -> Pixels:
        draw = generator(gap.seed, "yard")
        canvas = Canvas(14.0, height, texels, tone)
        canvas.cover(materials.plaster, draw, tone)
        for x in np.arange(0.8, 13, draw.uniform(1.8, 3.0)):
            for z in np.arange(1.0, height - 1.6, 2.9):
                canvas.rectangle(x - 0.08, z - 0.08, x + 0.98, z + 1.38, MARKING)
                canvas.rectangle(x, z, x + 0.9, z + 1.3, (74, 86, 98))
        return canvas.rgba

    middle = gap.corner + gap.right * gap.width_m / 2
    yard = middle - gap.out * 17.0 - gap.right * 7.0 + UP * height
    scenery.solid.add(yard, gap.right * 14.0, -UP * height, Texture(paint_yard))
    if rng.random() < 0.7:
        foot = middle - gap.out * rng.uniform(3.5, 9)
        size = rng.uniform(0.8, 1.25)
        scenery.uprights.append(Upright(foot, (5 * size, 7 * size), pick(rng, props.trees)))
    if gap.kind == "open":
        return
    rise = {"fence": 1.1, "wall": 2.2, "hedge": 1.5}[gap.kind]

    def paint_barrier() -> Pixels:
        draw = generator(gap.seed, "barrier")
        canvas = Canvas(gap.width_m, rise, 2 * texels, None if gap.kind == "fence" else tone, behind=(60, 60, 58))
        if gap.kind == "wall":
            canvas.cover(materials.brick, draw, (150, 92, 70))
            canvas.rectangle(0, rise - 0.12, gap.width_m, rise, (186, 180, 168))
        elif gap.kind == "hedge":
            canvas.cover(materials.grass, draw, (70, 108, 54))
        else:
            for x in np.arange(0, gap.width_m, 0.18):
                canvas.rectangle(x, 0, x + 0.05, rise, (44, 50, 48))
            for z in (0.15, rise - 0.12):
                canvas.rectangle(0, z, gap.width_m, z + 0.06, (44, 50, 48))
        return canvas.rgba

    scenery.solid.add(
        gap.corner - 0.3 * gap.out + UP * rise, gap.right * gap.width_m, -UP * rise, Texture(paint_barrier)
    )


def _add_skyline(scene: Scene, quarter: Quarter) -> None:
    """Add eight backdrops of hazy roofs, trees and towers around the quarter."""

    def paint(index: int) -> Pixels:
        rng = generator(quarter.seed, "skyline", index)
        canvas = Canvas(150.0, 40.0, 2.0, None, behind=(150, 164, 160))
        for _ in range(26):
            x = rng.uniform(0, 150)
            if rng.random() < 0.6:
                width, height = rng.uniform(7, 18), rng.uniform(7, 15)
                wall = shift((186, 172, 156), rng.normal(0, 0.05), value=rng.uniform(0.85, 1.1))
                canvas.rectangle(x, 0, x + width, height, wall)
                roof = [(x - 0.5, height), (x + width + 0.5, height), (x + width / 2, height + width * 0.35)]
                canvas.polygon(roof, shift((150, 104, 88), rng.normal(0, 0.03)))
            else:
                size = rng.uniform(4, 8)
                canvas.ellipse(x, size, size, size, shift((116, 138, 100), value=rng.uniform(0.85, 1.1)))
        if rng.random() < 0.35:
            x = rng.uniform(20, 130)
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
    rng = generator(quarter.seed, "furniture", street.name)
    kerb = street.width_m / 2 - street.pavement_m + 0.5
    lamp, usual_tree = pick(rng, props.lamps), pick(rng, props.trees)
    for side in (-1.0, 1.0):
        x = street.margin_m + rng.uniform(0, 12)
        while x < street.length_m - street.margin_m:
            foot = street.ground(x, side * kerb)
            scenery.uprights.append(Upright(foot, (1.2, 5.0), lamp))
            x += rng.uniform(18, 26)
        x = street.margin_m + rng.uniform(2, 8)
        while street.trees_m and x < street.length_m - street.margin_m:
            if rng.random() < 0.75:
                size = rng.uniform(0.6, 0.85)
                tree = usual_tree if rng.random() < 0.7 else pick(rng, props.trees)
                foot = street.ground(x, side * kerb)
                scenery.uprights.append(Upright(foot, (5 * size, 7 * size), tree))
                _add_square(scenery.shadows, foot + 0.01 * UP, 3.2, props.shadow)
            x += street.trees_m * rng.uniform(0.8, 1.2)
        for _ in range(int(rng.integers(2, 6))):
            x = rng.uniform(street.margin_m, street.length_m - street.margin_m)
            foot = street.ground(x, side * (street.width_m / 2 - 0.6))
            scenery.uprights.append(Upright(foot, (1.6, 1.2), pick(rng, props.things)))


def occluders(scenery: Scenery, props: Props, camera: Camera, density: float, traffic: int) -> tuple[Scene, Scene]:
    """Return the cars and people in view as (solids, shadows), determined by the seed ``traffic``."""
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
            middle = street.ground(4 + draw[0] * (length - 8), lateral)
            if any(np.linalg.norm(middle - other) < CAR_SPACE_M for other in standing):
                continue
            standing.append(middle)
            if 4.2 < np.linalg.norm(middle[:2] - here) < 75:
                model = props.cars[int(draw[4] * len(props.cars))]
                model.add(solids, shadows, props.shadow, middle, -side * forward)
        for draw in people:
            side = 1.0 if draw[1] < 0.5 else -1.0
            lateral = side * (street.width_m / 2 - 0.6 - draw[2] * (street.pavement_m - 0.8))
            foot = street.ground(draw[0] * length, lateral)
            if 2.5 < np.linalg.norm(foot[:2] - here) < 60:
                scale = 0.9 + 0.18 * draw[3]
                texture = props.people[int(draw[4] * len(props.people))]
                furniture.billboard(solids, foot, right, (PERSON_M[0] * scale, PERSON_M[1] * scale), texture)
                _add_square(shadows, foot + 0.01 * UP, 0.8, props.shadow)
    return solids, shadows
