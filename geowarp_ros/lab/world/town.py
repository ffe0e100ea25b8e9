"""The plan: quarters, each a block with four streets around it, the plots along them, and the houses on those.

Convention:
    A quarter's corners run counter-clockwise; street ``i`` leads from corner ``i`` to ``i + 1``, so the block lies
    on its left. ``along_m`` is measured on the centre line, ``lateral_m`` to the left of it (REP 103).
    Photographs are taken of quarters of one split only: no house is seen in two splits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from geowarp_ros.lab.world.architecture import Design, Taste, random_design, random_taste, twin
from geowarp_ros.lab.world.buildings import UP, Building
from geowarp_ros.lab.world.camera import Vector
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.randomness import generator

Part: TypeAlias = Literal["test", "val", "train"]
Barrier: TypeAlias = Literal["fence", "wall", "hedge", "open"]
BARRIERS: tuple[Barrier, ...] = ("fence", "wall", "hedge", "open")
SIDES = 4


@dataclass(frozen=True)
class Street:
    """One straight street.

    Attributes:
        name: Unique in the town; ``test-00``, ``train-12`` …
        part: What its photographs are for.
        quarter: Index of its quarter.
        start: (2,) east, north of its first corner.
        end: (2,) of its last corner.
        width_m: From façade to façade.
        pavement_m: Width of either pavement.
        trees_m: Mean distance of its trees; 0 has none.
    """

    name: str
    part: Part
    quarter: int
    start: Vector
    end: Vector
    width_m: float
    pavement_m: float
    trees_m: float

    @cached_property
    def length_m(self) -> float:
        """From corner to corner."""
        return float(np.linalg.norm(self.end - self.start))

    @cached_property
    def direction(self) -> Vector:
        """(2,) unit vector along the street."""
        return np.asarray((self.end - self.start) / self.length_m)

    @cached_property
    def left(self) -> Vector:
        """(2,) unit vector to the left of it."""
        return np.array([-self.direction[1], self.direction[0]])

    @property
    def heading_deg(self) -> float:
        """Compass heading of its direction."""
        return math.degrees(math.atan2(self.direction[0], self.direction[1])) % 360

    @property
    def margin_m(self) -> float:
        """How far from either corner photographs begin: where both façades have begun."""
        return self.width_m / 2 + 1.0

    def point(self, along_m: float, lateral_m: float = 0.0) -> Vector:
        """Return east, north (2,) of a point of the street."""
        return np.asarray(self.start + along_m * self.direction + lateral_m * self.left)


@dataclass(frozen=True)
class Gap:
    """An opening between two houses.

    Attributes:
        corner: (3,) its left end on the building line, as seen from the street.
        right: (3,) unit vector along the line.
        out: (3,) unit vector towards the street.
        width_m: Its width.
        kind: What closes it.
        seed: Of its looks.
    """

    corner: Vector
    right: Vector
    out: Vector
    width_m: float
    kind: Barrier
    seed: int


@dataclass(frozen=True)
class Quarter:
    """A block, the streets around it and the houses on both their sides."""

    index: int
    part: Part
    seed: int
    streets: tuple[Street, ...]
    photographed: int
    buildings: tuple[Building, ...]
    gaps: tuple[Gap, ...]
    taste: Taste

    @property
    def centre(self) -> Vector:
        """(2,) mean of its corners."""
        return np.asarray(np.mean([street.start for street in self.streets], axis=0))


def lay_out(config: WorldConfig) -> tuple[Quarter, ...]:
    """Plan the whole town; the test quarters come first, so more training streets change none of them."""
    quarters: list[Quarter] = []
    pitch = 1.25 * config.street_length_m + 75.0
    counts: dict[Part, int] = {"test": config.streets, "val": config.val_streets, "train": config.train_streets}
    for part, count in counts.items():
        for number in range(-(-count // SIDES)):
            photographed = min(SIDES, count - number * SIDES)
            rng = generator(config.seed, "quarter", part, number)
            cell = _spiral(len(quarters))
            centre = (np.array(cell) + rng.uniform(-0.06, 0.06, 2)) * pitch
            quarters.append(_quarter(config, part, len(quarters), number, photographed, centre, rng))
    return tuple(quarters)


def _spiral(index: int) -> tuple[int, int]:
    """Return the lattice cell of a quarter: 0 is the middle, then ring after ring."""
    if index == 0:
        return 0, 0
    ring = math.ceil((math.sqrt(index + 1) - 1) / 2)
    step = index - (2 * ring - 1) ** 2
    side, offset = divmod(step, 2 * ring)
    offset -= ring - 1
    return ((ring, offset), (-offset, ring), (-ring, -offset), (offset, -ring))[side]


def _quarter(
    config: WorldConfig,
    part: Part,
    index: int,
    number: int,
    photographed: int,
    centre: Vector,
    rng: np.random.Generator,
) -> Quarter:
    half = config.street_length_m / 2 * rng.uniform(0.88, 1.12, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    corners = corners * (1 + rng.uniform(-0.07, 0.07, (4, 2)))
    turn = float(rng.uniform(-0.35, 0.35))
    corners = corners @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) + centre
    streets = tuple(
        Street(
            name=f"{part}-{number * SIDES + i:02d}" if i < photographed else f"{part}-{number}-side-{i}",
            part=part,
            quarter=index,
            start=corners[i],
            end=corners[(i + 1) % SIDES],
            width_m=float(rng.uniform(12.0, 17.0)),
            pavement_m=float(rng.uniform(2.2, 3.2)),
            trees_m=float(rng.choice([0.0, 0.0, 9.0, 15.0])),
        )
        for i in range(SIDES)
    )
    taste = random_taste(rng)
    buildings: list[Building] = []
    gaps: list[Gap] = []
    for inside in (True, False):
        line = _offset(streets, inside)
        for i in range(SIDES):
            ends = (line[i], line[(i + 1) % SIDES])
            left, right = ends if inside else ends[::-1]
            out = -streets[i].left if inside else streets[i].left
            _row(rng, taste, left, right, out, inside, buildings, gaps)
    return Quarter(
        index=index,
        part=part,
        seed=int(rng.integers(2**31)),
        streets=streets,
        photographed=photographed,
        buildings=tuple(buildings),
        gaps=tuple(gaps),
        taste=taste,
    )


def _offset(streets: tuple[Street, ...], inside: bool) -> Vector:
    """Return the corners (4, 2) of the building line inside or outside the streets."""
    sign = 1.0 if inside else -1.0
    corners = []
    for i in range(SIDES):
        before, after = streets[i - 1], streets[i]
        system = np.stack([before.left, after.left])
        reach = [
            sign * before.width_m / 2 + before.left @ before.start,
            sign * after.width_m / 2 + after.left @ after.start,
        ]
        corners.append(np.linalg.solve(system, np.array(reach)))
    return np.array(corners)


def _row(
    rng: np.random.Generator,
    taste: Taste,
    left: Vector,
    right: Vector,
    out: Vector,
    inside: bool,
    buildings: list[Building],
    gaps: list[Gap],
) -> None:
    """Fill a building line with plots from its left to its right end, as seen from the street."""
    length = float(np.linalg.norm(right - left))
    along = np.append((right - left) / length, 0.0)
    outwards = np.append(out, 0.0)
    x, designs = 0.0, [b.design for b in buildings]
    after_gap = True  # no gap at a corner
    while x < length - 1e-6:
        rest = length - x
        width = rest if rest < 11.0 else float(rng.uniform(5.0, min(13.0, rest - 5.0)))
        corner = np.append(left, 0.0) + x * along
        if not after_gap and rest > 16.0 and rng.random() < 0.16:
            width = float(rng.uniform(2.5, 6.0))
            kind = BARRIERS[int(rng.integers(len(BARRIERS)))]
            gaps.append(Gap(corner, along, outwards, width, kind, int(rng.integers(2**31))))
            after_gap = True
        else:
            design = _choose_design(rng, taste, width, designs)
            designs.append(design)
            ends = (inside and x == 0.0, inside and rest == width)
            buildings.append(Building(design, corner, along, outwards, *ends))
            width, after_gap = design.width_m, False
        x += width


def _choose_design(rng: np.random.Generator, taste: Taste, width: float, designs: list[Design]) -> Design:
    similar = [d for d in designs if abs(d.width_m - width) < 1.0 and abs(d.width_m - width) > 0]
    fresh = random_design(rng, taste, width)
    if similar and rng.random() < 0.12:
        model = twin(rng, similar[int(rng.integers(len(similar)))])
        return Design(**{**vars(model), "width_m": width})
    return fresh


def ground_point(street: Street, along_m: float, lateral_m: float, up_m: float = 0.0) -> Vector:
    """Return the ENU point (3,) at a place of a street."""
    return np.append(street.point(along_m, lateral_m), 0.0) + up_m * UP
