"""Town plan: quarters of a block and four streets, with plots, houses and gaps along the streets.

Convention:
    Corners of a quarter run counter-clockwise; street ``i`` leads from corner ``i`` to ``i + 1`` with the block on
    its left. ``along_m`` is measured along the centre line, ``lateral_m`` to the left of it (REP 103). A quarter
    belongs to one split, so no house is seen in two splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from geowarp_ros.lab.world.architecture import Design, Taste, random_design, random_taste, twin
from geowarp_ros.lab.world.buildings import Building
from geowarp_ros.lab.world.camera import Vector
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.randomness import draw_seed, generator, pick

Part: TypeAlias = Literal["test", "val", "train"]
Barrier: TypeAlias = Literal["fence", "wall", "hedge", "open"]
BARRIERS: tuple[Barrier, ...] = ("fence", "wall", "hedge", "open")
SIDES = 4


@dataclass(frozen=True)
class Street:
    """A straight street.

    Attributes:
        name: Unique name: ``test-00``, ``train-12`` …
        part: Split of its images.
        start: (2,) east and north of the first corner (m).
        end: (2,) east and north of the last corner (m).
        width_m: Façade to façade.
        pavement_m: Width of each pavement.
        trees_m: Mean tree spacing; 0: no trees.
    """

    name: str
    part: Part
    start: Vector
    end: Vector
    width_m: float
    pavement_m: float
    trees_m: float

    @cached_property
    def length_m(self) -> float:
        """Distance between its corners (m)."""
        return float(np.linalg.norm(self.end - self.start))

    @cached_property
    def direction(self) -> Vector:
        """(2,) unit vector along the street."""
        return np.asarray((self.end - self.start) / self.length_m)

    @cached_property
    def left(self) -> Vector:
        """(2,) unit vector to the left."""
        return np.array([-self.direction[1], self.direction[0]])

    @property
    def heading_deg(self) -> float:
        """Compass heading (deg)."""
        return math.degrees(math.atan2(self.direction[0], self.direction[1])) % 360

    @property
    def margin_m(self) -> float:
        """Distance from the corners within which no images are taken (m)."""
        return self.width_m / 2 + 1.0

    def point(self, along_m: float, lateral_m: float = 0.0) -> Vector:
        """Return the east and north coordinates (2,) of a street position."""
        return np.asarray(self.start + along_m * self.direction + lateral_m * self.left)

    def meet(self, other: Street, lateral_m: float, other_m: float) -> Vector:
        """Return the point (2,) where lines at these lateral offsets of both streets cross."""
        levels = np.array([lateral_m + self.left @ self.start, other_m + other.left @ other.start])
        return np.asarray(np.linalg.solve(np.stack([self.left, other.left]), levels))

    def ground(self, along_m: float, lateral_m: float) -> Vector:
        """Return the ENU ground point (3,) of a street position."""
        return np.append(self.point(along_m, lateral_m), 0.0)


@dataclass(frozen=True)
class Gap:
    """An opening between two houses.

    Attributes:
        corner: (3,) left end on the building line, seen from the street.
        right: (3,) unit vector along the line.
        out: (3,) unit vector towards the street.
        width_m: Width.
        kind: Barrier across the gap.
        seed: Seed of its appearance.
    """

    corner: Vector
    right: Vector
    out: Vector
    width_m: float
    kind: Barrier
    seed: int


@dataclass(frozen=True)
class Quarter:
    """A block, its four streets (the first ``photographed`` have images) and the houses on both sides."""

    index: int
    part: Part
    seed: int
    streets: tuple[Street, ...]
    photographed: int
    buildings: tuple[Building, ...]
    gaps: tuple[Gap, ...]

    @property
    def centre(self) -> Vector:
        """(2,) mean of the corners."""
        return np.asarray(np.mean([street.start for street in self.streets], axis=0))


def lay_out(config: WorldConfig) -> tuple[Quarter, ...]:
    """Plan the town; test quarters come first, so additional training streets leave them unchanged."""
    quarters: list[Quarter] = []
    counts: dict[Part, int] = {"test": config.streets, "val": config.val_streets, "train": config.train_streets}
    for part, count in counts.items():
        for number in range(-(-count // SIDES)):
            photographed = min(SIDES, count - number * SIDES)
            quarters.append(_quarter(config, part, len(quarters), number, photographed))
    return tuple(quarters)


def _spiral(index: int) -> tuple[int, int]:
    """Return the lattice cell of a quarter, spiralling outwards from (0, 0)."""
    if index == 0:
        return 0, 0
    ring = math.ceil((math.sqrt(index + 1) - 1) / 2)
    step = index - (2 * ring - 1) ** 2
    side, offset = divmod(step, 2 * ring)
    offset -= ring - 1
    return ((ring, offset), (-offset, ring), (-ring, -offset), (offset, -ring))[side]


def _quarter(config: WorldConfig, part: Part, index: int, number: int, photographed: int) -> Quarter:
    rng = generator(config.seed, "quarter", part, number)
    pitch = 1.25 * config.street_length_m + 75.0
    centre = (np.array(_spiral(index)) + rng.uniform(-0.06, 0.06, 2)) * pitch
    half = config.street_length_m / 2 * rng.uniform(0.88, 1.12, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    corners = corners * (1 + rng.uniform(-0.07, 0.07, (4, 2)))
    turn = rng.uniform(-0.35, 0.35)
    corners = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + centre
    streets = tuple(
        Street(
            name=f"{part}-{number * SIDES + i:02d}" if i < photographed else f"{part}-{number}-side-{i}",
            part=part,
            start=corners[i],
            end=corners[(i + 1) % SIDES],
            width_m=rng.uniform(12.0, 17.0),
            pavement_m=rng.uniform(2.2, 3.2),
            trees_m=float(rng.choice([0.0, 0.0, 9.0, 15.0])),
        )
        for i in range(SIDES)
    )
    taste = random_taste(rng)
    designs: list[Design] = []
    plots: list[Building | Gap] = []
    for inside, side in ((True, 1.0), (False, -1.0)):
        line = [
            streets[i - 1].meet(streets[i], side * streets[i - 1].width_m / 2, side * streets[i].width_m / 2)
            for i in range(SIDES)
        ]
        for i, street in enumerate(streets):
            ends = (line[i], line[(i + 1) % SIDES])
            left, right = ends if inside else ends[::-1]
            plots += _row(rng, taste, left, right, -side * street.left, inside, designs)
    buildings = tuple(plot for plot in plots if isinstance(plot, Building))
    gaps = tuple(plot for plot in plots if isinstance(plot, Gap))
    return Quarter(index, part, draw_seed(rng), streets, photographed, buildings, gaps)


def _row(
    rng: np.random.Generator,
    taste: Taste,
    left: Vector,
    right: Vector,
    out: Vector,
    inside: bool,
    designs: list[Design],
) -> Iterator[Building | Gap]:
    """Yield houses and gaps along a building line, from left to right seen from the street.

    ``designs`` are those of the quarter so far, which the row's houses extend.
    """
    length = float(np.linalg.norm(right - left))
    along = np.append((right - left) / length, 0.0)
    outwards = np.append(out, 0.0)
    x, after_gap = 0.0, True  # no gap at a corner
    while x < length - 1e-6:
        rest = length - x
        width = rest if rest < 11.0 else rng.uniform(5.0, min(13.0, rest - 5.0))
        corner = np.append(left, 0.0) + x * along
        if not after_gap and rest > 16.0 and rng.random() < 0.16:
            width = rng.uniform(2.5, 6.0)
            yield Gap(corner, along, outwards, width, pick(rng, BARRIERS), draw_seed(rng))
            after_gap = True
        else:
            design = _choose_design(rng, taste, width, designs)
            designs.append(design)
            yield Building(design, corner, along, outwards, inside and x == 0.0, inside and rest == width)
            width, after_gap = design.width_m, False
        x += width


def _choose_design(rng: np.random.Generator, taste: Taste, width: float, designs: list[Design]) -> Design:
    """Draw a new design, or now and then a near-copy of a house of similar width."""
    similar = [d for d in designs if 0 < abs(d.width_m - width) < 1.0]
    fresh = random_design(rng, taste, width)
    if similar and rng.random() < 0.12:
        return replace(twin(rng, pick(rng, similar)), width_m=width)
    return fresh
