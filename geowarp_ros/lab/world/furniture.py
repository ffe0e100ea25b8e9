"""Street furniture, trees, people (billboards) and cars (folded from textured quads)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from geowarp_ros.lab.world.buildings import UP, plain
from geowarp_ros.lab.world.camera import Vector
from geowarp_ros.lab.world.canvas import Canvas, Pixels
from geowarp_ros.lab.world.materials import Colour, shift
from geowarp_ros.lab.world.randomness import generator, pick
from geowarp_ros.lab.world.surfaces import Scene, Texture

CAR_COLOURS: tuple[Colour, ...] = (
    (196, 36, 40), (32, 66, 120), (236, 236, 232), (44, 46, 50), (150, 154, 158), (222, 172, 44), (40, 100, 84),
    (140, 182, 204),
)  # fmt: skip
GLASS: Colour = (62, 76, 88)
# side elevations, front to the right: (x, z) from rear bumper over the roof to front bumper
CAR_PROFILES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.0, 0.35), (0.0, 0.95), (0.25, 1.0), (0.75, 1.45), (2.2, 1.45), (2.95, 0.98), (3.9, 0.85), (4.0, 0.35)),
    ((0.0, 0.35), (0.0, 0.9), (0.75, 0.95), (1.3, 1.42), (2.6, 1.42), (3.25, 0.95), (4.35, 0.82), (4.45, 0.35)),
    ((0.0, 0.35), (0.0, 1.1), (0.05, 2.05), (0.1, 2.1), (3.7, 2.1), (4.4, 1.2), (4.9, 1.0), (5.0, 0.35)),
)
CAR_WIDTH_M = 1.75


def paint_tree(seed: int, texels: float) -> Pixels:
    """Return a tree (h, w, 4) of 5 m × 7 m: round, slender or conical."""
    rng = generator(seed, "tree")
    canvas = Canvas(5.0, 7.0, texels, None, behind=(58, 84, 44))
    canvas.polygon([(2.35, 0), (2.65, 0), (2.58, 3.2), (2.42, 3.2)], (84, 64, 48))
    hue = shift((86, 126, 56), rng.normal(0, 0.035), rng.uniform(0.7, 1.1), rng.uniform(0.85, 1.15))
    form = int(rng.integers(3))
    count = 520
    # shaded leaves first, lit leaves over them
    order = np.sort(rng.uniform(0, 1, count))
    for depth, height, across in zip(order, rng.uniform(0, 1, count), rng.uniform(-1, 1, count), strict=True):
        reach = (2.1 * np.sqrt(max(0.0, 1 - (2 * height - 1) ** 2)), 1.0, 1.9 * (1 - height))[form]
        x = 2.5 + across * max(0.15, reach * (0.8 + 0.2 * depth))
        light = 0.5 + 0.45 * depth + 0.25 * height - 0.1 * (x - 2.5) + rng.normal(0, 0.07)
        size = rng.uniform(0.1, 0.26) * (1.6 - 0.7 * depth)
        canvas.ellipse(x, 2.6 + 3.9 * height, size, size * 0.8, shift(hue, value=light))
    return canvas.rgba


def paint_lamp(seed: int, texels: float) -> Pixels:
    """Return a street lamp (h, w, 4) of 1.2 m × 5 m."""
    canvas = Canvas(1.2, 5.0, texels, None, behind=(50, 56, 54))
    iron: Colour = ((46, 56, 50), (70, 74, 78), (40, 40, 60))[seed % 3]
    canvas.rectangle(0.55, 0, 0.65, 4.2, iron)
    canvas.rectangle(0.48, 0, 0.72, 0.7, iron)
    if seed % 2:
        canvas.polygon([(0.42, 4.2), (0.78, 4.2), (0.88, 4.75), (0.32, 4.75)], (238, 228, 196))
        canvas.polygon([(0.28, 4.72), (0.92, 4.72), (0.6, 5.0)], iron)
    else:
        canvas.line([(0.6, 4.15), (0.6, 4.5), (0.15, 4.75)], iron, 0.07)
        canvas.ellipse(0.2, 4.68, 0.18, 0.09, (238, 228, 196))
    return canvas.rgba


def paint_bench(seed: int, texels: float) -> Pixels:
    """Return a bench, litter bin, letter box or planter (h, w, 4) of 1.6 m × 1.2 m."""
    canvas = Canvas(1.6, 1.2, texels, None, behind=(90, 66, 48))
    kind = seed % 4
    if kind == 0:
        for z in (0.45, 0.7, 0.85):
            canvas.rectangle(0.05, z, 1.55, z + 0.09, (128, 88, 56))
        for x in (0.15, 1.38):
            canvas.rectangle(x, 0, x + 0.08, 0.9, (52, 54, 56))
    elif kind == 1:
        canvas.rectangle(0.55, 0, 1.05, 0.95, (54, 84, 66))
        canvas.rectangle(0.5, 0.9, 1.1, 1.02, (38, 58, 48))
    elif kind == 2:
        canvas.rectangle(0.72, 0, 0.88, 0.6, (60, 60, 60))
        canvas.rectangle(0.5, 0.5, 1.1, 1.15, (222, 176, 40))
        canvas.rectangle(0.6, 0.95, 1.0, 1.02, (50, 50, 50))
    else:
        canvas.polygon([(0.4, 0.5), (1.2, 0.5), (1.1, 0), (0.5, 0)], (164, 96, 66))
        rng = generator(seed, "flowers")
        for _ in range(26):
            colour = pick(rng, ((210, 62, 78), (240, 196, 70), (226, 120, 170), (74, 120, 60)))
            canvas.ellipse(rng.uniform(0.4, 1.2), rng.uniform(0.5, 0.85), 0.08, 0.08, colour)
    return canvas.rgba


def paint_person(seed: int, texels: float) -> Pixels:
    """Return a standing or walking person (h, w, 4) of 0.9 m × 1.8 m."""
    rng = generator(seed, "person")
    canvas = Canvas(0.9, 1.8, texels, None, behind=(80, 70, 66))
    skin = pick(rng, ((236, 196, 164), (206, 156, 118), (146, 100, 72), (98, 66, 50)))
    hair = pick(rng, ((48, 36, 30), (112, 76, 44), (204, 168, 104), (150, 150, 150), (24, 22, 24)))
    coat = shift((180, 60, 60), rng.random(), rng.uniform(0.2, 1.2), rng.uniform(0.4, 1.2))
    legs = pick(rng, ((46, 58, 92), (52, 48, 46), (120, 108, 88), (30, 30, 34)))
    step = rng.uniform(0.02, 0.2)
    for side in (-1, 1):
        x = 0.45 + side * step
        canvas.polygon(
            [(0.45 + side * 0.02, 0.95), (0.45 + side * 0.15, 0.95), (x + 0.08, 0.06), (x - 0.06, 0.06)], legs
        )
        canvas.rectangle(x - 0.07, 0, x + 0.13, 0.07, (40, 32, 28))
    if rng.random() < 0.3:
        canvas.polygon([(0.32, 1.0), (0.58, 1.0), (0.7, 0.5), (0.2, 0.5)], coat)
    canvas.polygon([(0.27, 1.48), (0.63, 1.48), (0.6, 0.88), (0.3, 0.88)], coat)
    for side in (-1, 1):
        x = 0.45 + side * 0.2
        canvas.line([(x, 1.42), (x + side * 0.08, 0.95)], shift(coat, value=0.85), 0.1)
        canvas.ellipse(x + side * 0.08, 0.9, 0.045, 0.05, skin)
    canvas.ellipse(0.45, 1.63, 0.115, 0.15, hair)
    canvas.ellipse(0.45, 1.6, 0.09, 0.12, skin)
    canvas.ellipse(0.45, 1.7, 0.11, 0.08, hair, upper=True)
    if rng.random() < 0.3:
        canvas.rectangle(0.66, 0.62, 0.86, 0.88, shift(coat, 0.4))
    return canvas.rgba


def paint_car_side(profile: Sequence[tuple[float, float]], colour: Colour, texels: float) -> Pixels:
    """Return a car's side view (h, w, 4), front to the right."""
    length, height = profile[-1][0], max(z for _, z in profile)
    canvas = Canvas(length, height, texels, None, behind=shift(colour, value=0.7))
    canvas.polygon([*profile, (length, 0.25), (0, 0.25)], colour)
    belt = min(0.95, height - 0.45)
    roof = [(x, z) for x, z in profile if z > belt + 0.2]
    rear, front = roof[0][0], roof[-1][0]
    if height > 1.8:
        glazing = [(front - 1.0, 1.25), (front - 1.0, 1.9), (front + 0.0, 1.9), (front + 0.5, 1.25)]
    else:
        top = height - 0.1
        glazing = [(rear - 0.35, belt), (rear + 0.05, top), (front - 0.05, top), (front + 0.5, belt)]
    canvas.polygon(glazing, GLASS)
    middle = (rear + front) / 2
    canvas.rectangle(middle - 0.04, 0.4, middle + 0.04, height - 0.1, shift(colour, value=0.8))
    canvas.rectangle(0, 0.3, length, 0.42, shift(colour, value=0.6))
    for x in (0.75, length - 0.8):
        canvas.ellipse(x, 0.34, 0.4, 0.4, (24, 24, 26))
        canvas.ellipse(x, 0.32, 0.31, 0.31, (40, 40, 42))
        canvas.ellipse(x, 0.32, 0.17, 0.17, (168, 170, 172))
    canvas.rectangle(length - 0.16, 0.6, length - 0.02, 0.74, (250, 240, 200))
    canvas.rectangle(0.0, 0.62, 0.12, 0.8, (190, 30, 30))
    return canvas.rgba


def _paint_end(colour: Colour, texels: float, light: Colour) -> Pixels:
    canvas = Canvas(CAR_WIDTH_M, 0.6, texels, colour)
    canvas.rectangle(0, 0, CAR_WIDTH_M, 0.16, (52, 54, 58))
    canvas.rectangle(0.62, 0.2, 1.13, 0.32, (236, 234, 220))
    for x in (0.08, CAR_WIDTH_M - 0.42):
        canvas.rectangle(x, 0.34, x + 0.34, 0.5, light)
    return canvas.rgb


class CarModel:
    """Car body folded along its side profile."""

    def __init__(self, profile: Sequence[tuple[float, float]], colour: Colour, texels: float) -> None:
        self.profile = profile
        self.length_m, self.height_m = profile[-1][0], max(z for _, z in profile)
        self._side = Texture(lambda: paint_car_side(profile, colour, texels))
        body, glass = plain(colour), plain(GLASS)
        rear = Texture(partial(_paint_end, colour, texels, (190, 30, 34)))
        front = Texture(partial(_paint_end, colour, texels, (250, 244, 214)))
        self._sheets = []
        for (x0, z0), (x1, z1) in pairwise(profile):
            steep = abs(z1 - z0) > 0.25 * abs(x1 - x0)
            sheet = glass if steep and min(z0, z1) > 0.7 else body
            self._sheets.append(rear if x1 == 0 else front if x0 > self.length_m - 0.2 else sheet)

    def add(self, scene: Scene, shadows: Scene, shadow: Texture, middle: Vector, forward: Vector) -> None:
        """Add the car to ``scene``, centred on the ground at ``middle`` (3,), facing ``forward`` (3,)."""
        left = np.cross(UP, forward) * CAR_WIDTH_M
        rear = middle - forward * self.length_m / 2
        top = UP * self.height_m
        scene.add(rear - left / 2 + top, forward * self.length_m, -top, self._side)
        # the front points left when seen from the left: same texture, two-sided
        scene.add(rear + left / 2 + top, forward * self.length_m, -top, self._side, two_sided=True)
        for ((x0, z0), (x1, z1)), sheet in zip(pairwise(self.profile), self._sheets, strict=True):
            start = rear + forward * x1 + UP * z1
            end = rear + forward * x0 + UP * z0
            if z1 > z0:  # rising towards the front: visible from the rear
                scene.add(start + left / 2, -left, end - start, sheet, two_sided=True)
            else:
                scene.add(end - left / 2, left, start - end, sheet, two_sided=True)
        margin = forward * (self.length_m + 0.5)
        shadows.add(rear - 0.25 * forward + 0.6 * left + 0.01 * UP, margin, -1.2 * left, shadow, two_sided=True)


def paint_shadow() -> Pixels:
    """Return a soft shadow (64, 64, 4); alpha is the share of light removed."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    alpha = np.clip(1.15 - (np.abs(x) ** 4 + np.abs(y) ** 4), 0, 1) * 165
    return np.dstack([np.zeros((64, 64, 3)), alpha]).astype(np.uint8)


def billboard(scene: Scene, foot: Vector, right: Vector, size_m: tuple[float, float], texture: Texture) -> None:
    """Add an upright picture with its lower centre at ``foot``; ``right`` is the camera's right vector."""
    width, height = size_m
    scene.add(foot - right * width / 2 + UP * height, right * width, -UP * height, texture, two_sided=True)
