"""Building designs and the neighbourhood styles they are drawn from.

Houses of a quarter share a style (wall colours, materials, window forms, roofs). Some are near-copies of another
house that differ only in details: perceptual aliasing, as in real streets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from geowarp_ros.lab.world.materials import WALLS, Colour, shift
from geowarp_ros.lab.world.randomness import draw_seed, pick

T = TypeVar("T")
WindowForm: TypeAlias = Literal["sash", "casement", "arched", "wide", "french", "round_top", "tall", "square"]
GroundFloor: TypeAlias = Literal["home", "shop", "cafe", "arcade", "garage"]
RoofForm: TypeAlias = Literal["flat", "eaves", "gable", "stepped", "mansard"]

WALL_COLOURS: tuple[Colour, ...] = (
    (233, 216, 180), (218, 176, 102), (196, 112, 82), (158, 78, 60), (222, 172, 160), (166, 184, 148),
    (164, 190, 208), (236, 233, 224), (176, 170, 158), (226, 196, 96), (178, 212, 196), (100, 106, 116),
    (128, 64, 58), (204, 140, 96), (122, 140, 170), (246, 226, 206), (140, 150, 120), (88, 74, 66),
    (214, 206, 190), (190, 94, 104),
)  # fmt: skip
ACCENTS: tuple[Colour, ...] = (
    (30, 76, 58), (140, 30, 34), (28, 52, 96), (216, 164, 44), (66, 44, 32), (34, 38, 42), (20, 112, 122),
    (196, 88, 40), (96, 54, 104), (232, 226, 214), (88, 120, 64), (182, 52, 92),
)  # fmt: skip
ROOF_COLOURS: tuple[Colour, ...] = (
    (160, 78, 54), (134, 62, 48), (84, 84, 92), (110, 72, 56), (66, 70, 78), (98, 112, 108),
)  # fmt: skip
SHOP_NAMES = (
    "BAKERY", "BOOKS", "FLORA", "CAFE ROMA", "OPTIK", "HOTEL", "PHARMACY", "Bistro", "Tailor", "CYCLES",
    "MUSIC", "Antiques", "TEA & CO", "CINEMA", "Fish Bar", "GALLERY", "HAIR", "Toys", "WINES", "RADIO",
    "Noodles", "BANK", "POST", "Cheese", "SHOES", "Pasta", "GRILL 21", "LAMPS", "DENTIST", "Bike Lab", "TAVERN",
    "Kiosk", "ATELIER", "Gelato", "TOOLS", "Librairie",
)  # fmt: skip
WINDOW_SIZES: dict[WindowForm, tuple[float, float]] = {
    "sash": (1.05, 1.75),
    "casement": (1.3, 1.5),
    "arched": (1.15, 2.0),
    "wide": (2.1, 1.45),
    "french": (1.1, 2.25),
    "round_top": (1.25, 1.8),
    "tall": (0.8, 2.1),
    "square": (1.2, 1.2),
}
"""Width and height (m)."""


@dataclass(frozen=True)
class Taste:
    """Style shared by the houses of a quarter; ``storeys`` is (min, max)."""

    colours: tuple[Colour, ...]
    materials: tuple[str, ...]
    windows: tuple[WindowForm, ...]
    roofs: tuple[RoofForm, ...]
    roof_colours: tuple[Colour, ...]
    storeys: tuple[int, int]
    timber: bool


@dataclass(frozen=True)
class Design:
    """Complete description of a house's appearance (lengths in m); ``seed`` drives texture noise only."""

    seed: int
    width_m: float
    depth_m: float
    storeys: int
    storey_m: float
    ground_m: float
    bays: int
    material: str
    colour: Colour
    ground_colour: Colour
    trim: Colour
    frame: Colour
    accent: Colour
    second_accent: Colour
    window: WindowForm
    top_window: WindowForm
    window_scale: float
    panes: tuple[int, int]
    shutters: bool
    surround: Literal["none", "frame", "lintel", "pediment", "brick_arch"]
    ground: GroundFloor
    door_bay: int
    sign: str
    typeface: int
    awning: Literal["none", "plain", "striped"]
    balconies: tuple[tuple[int, int], ...]
    balcony_solid: bool
    string_courses: bool
    quoins: bool
    pilasters: bool
    timber: bool
    cornice_m: float
    roof: RoofForm
    roof_colour: Colour
    dormers: int
    chimney: float
    stains: float
    ivy: float
    mural: int
    blind: tuple[tuple[int, int], ...]
    setback_m: float

    @property
    def eaves_m(self) -> float:
        """Height of the eaves (m)."""
        return self.ground_m + self.storeys * self.storey_m

    @property
    def gable_m(self) -> float:
        """Height of the gable above the eaves (m); 0 for other roofs."""
        return min(0.5 * self.width_m, 4.2) if self.roof in ("gable", "stepped") else 0.0

    def bay_centre_m(self, bay: int) -> float:
        """Return the distance of a bay's axis from the left edge (m)."""
        margin = 0.6 if self.width_m > 6 else 0.35
        return margin + (bay + 0.5) * (self.width_m - 2 * margin) / self.bays

    def floor_m(self, storey: int) -> float:
        """Return the floor height of an upper storey (m); storey 0 is directly above the ground floor."""
        return self.ground_m + storey * self.storey_m


def random_taste(rng: np.random.Generator) -> Taste:
    """Draw the style of a quarter."""

    def some(options: tuple[T, ...], count: int) -> tuple[T, ...]:
        return tuple(options[i] for i in rng.permutation(len(options))[:count])

    low = int(rng.integers(1, 3))
    return Taste(
        colours=tuple(shift(c, rng.normal(0, 0.01), rng.uniform(0.8, 1.15)) for c in some(WALL_COLOURS, 9)),
        materials=("plaster", *some(tuple(WALLS), 4)),
        windows=some(tuple(WINDOW_SIZES), 5),
        roofs=some(("flat", "eaves", "gable", "stepped", "mansard"), 4),
        roof_colours=some(ROOF_COLOURS, 3),
        storeys=(low, low + 2),
        timber=bool(rng.random() < 0.35),
    )


def random_design(rng: np.random.Generator, taste: Taste, width_m: float) -> Design:
    """Draw a house of the given width."""

    def chance(probability: float) -> bool:
        return rng.random() < probability

    storeys = int(rng.integers(taste.storeys[0], taste.storeys[1] + 1))
    window: WindowForm = pick(rng, taste.windows)
    scale = rng.uniform(0.85, 1.1)
    spacing = WINDOW_SIZES[window][0] * scale + rng.uniform(0.7, 1.5)
    bays = int(np.clip((width_m - 0.7) / spacing, 1, 7))
    material = pick(rng, taste.materials)
    colour = shift(pick(rng, taste.colours), rng.normal(0, 0.012), rng.uniform(0.8, 1.2), rng.uniform(0.85, 1.08))
    if material == "brick" and chance(0.7):
        colour = pick(rng, ((158, 78, 60), (128, 64, 58), (176, 104, 76), (196, 150, 104), (112, 70, 58)))
    light_trim = pick(rng, ((240, 236, 226), (222, 214, 196), (250, 248, 242)))
    ground: GroundFloor = pick(rng, ("home", "home", "shop", "shop", "cafe", "arcade", "garage"))
    cells = [(s, b) for s in range(storeys) for b in range(bays)]
    without = window in ("arched", "round_top", "square") or not chance(0.4)
    balconies = () if without else _balconies(rng, storeys, bays)
    roof: RoofForm = pick(rng, taste.roofs)
    if roof in ("gable", "stepped") and width_m > 11:
        roof = "eaves"
    return Design(
        seed=draw_seed(rng),
        width_m=width_m,
        depth_m=rng.uniform(8.5, 11.0),
        storeys=storeys,
        storey_m=rng.uniform(2.8, 3.5),
        ground_m=rng.uniform(3.1, 4.2),
        bays=bays,
        material=material,
        colour=colour,
        ground_colour=pick(
            rng, (colour, colour, shift(colour, value=0.75), (190, 184, 172), pick(rng, taste.colours))
        ),
        trim=pick(
            rng, (light_trim, light_trim, shift(colour, value=0.72), shift(colour, saturation=0.6, value=1.2))
        ),
        frame=pick(rng, ((244, 242, 236), (244, 242, 236), (60, 46, 36), (40, 46, 50), pick(rng, ACCENTS))),
        accent=pick(rng, ACCENTS),
        second_accent=pick(rng, ((240, 236, 226), pick(rng, ACCENTS))),
        window=window,
        top_window=window if chance(0.65) else pick(rng, taste.windows),
        window_scale=scale,
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
        shutters=chance(0.28) and window not in ("wide", "tall"),
        surround=pick(rng, ("none", "frame", "frame", "lintel", "pediment", "brick_arch")),
        ground=ground,
        door_bay=int(rng.integers(bays)),
        sign=pick(rng, SHOP_NAMES),
        typeface=int(rng.integers(8)),
        awning=pick(rng, ("none", "plain", "striped", "striped")) if ground in ("shop", "cafe") else "none",
        balconies=balconies,
        balcony_solid=chance(0.3),
        string_courses=chance(0.5),
        quoins=chance(0.25),
        pilasters=chance(0.15),
        timber=taste.timber and material == "plaster" and chance(0.5),
        cornice_m=float(rng.choice([0.0, 0.25, 0.4, 0.6])),
        roof=roof,
        roof_colour=shift(pick(rng, taste.roof_colours), value=rng.uniform(0.85, 1.15)),
        dormers=int(rng.integers(1, 4)) if roof == "mansard" or (roof == "eaves" and chance(0.4)) else 0,
        chimney=rng.uniform(0.1, 0.9) if chance(0.6) else 0.0,
        stains=rng.uniform(0, 1) ** 2,
        ivy=rng.uniform(0.3, 1.0) if chance(0.09) else 0.0,
        mural=int(rng.integers(1, 1000)) if chance(0.05) else 0,
        blind=tuple(cell for cell in cells if rng.random() < 0.05),
        setback_m=float(rng.choice([0.0, 0.0, 0.12, 0.25, 0.4])),
    )


def twin(rng: np.random.Generator, design: Design) -> Design:
    """Return a near-copy with a different door, sign, accent colour and stains."""
    return replace(
        design,
        seed=draw_seed(rng),
        accent=pick(rng, ACCENTS),
        sign=pick(rng, SHOP_NAMES),
        door_bay=int(rng.integers(design.bays)),
        colour=shift(design.colour, rng.normal(0, 0.01), value=rng.uniform(0.93, 1.06)),
        stains=rng.uniform(0, 1) ** 2,
    )


def _balconies(rng: np.random.Generator, storeys: int, bays: int) -> tuple[tuple[int, int], ...]:
    """Choose (storey, bay) positions in a regular pattern."""
    pattern = int(rng.integers(4))
    middle = bays // 2
    if pattern == 0:
        return tuple((s, middle) for s in range(storeys))
    if pattern == 1:
        return tuple((0, b) for b in range(bays))
    if pattern == 2:
        return tuple((s, b) for s in range(storeys) for b in (0, bays - 1))
    return tuple((s, b) for s in range(storeys) for b in range(bays) if (s + b) % 2 == 0)
