"""Which photographs are taken: the gallery's regular drive and the queries' irregular ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.lab.world.town import Street
from geowarp_ros.lab.world.weather import Conditions, random_conditions
from geowarp_ros.lab.world.world import World

VIEWS: dict[str, float] = {"forward": 0.0, "right": 90.0, "left": -90.0}
"""The gallery's views: degrees clockwise from the street's direction."""
ROOM_M = 3.0
"""Least distance from a wall: nearer, an awning fills the picture."""
LANE_M = -1.8
"""Lateral position of whoever drives along the street: the right-hand lane."""


@dataclass(frozen=True)
class Shot:
    """One photograph to be taken.

    Attributes:
        name: Path of the file relative to the world's folder.
        split: ``gallery``, ``query``, ``train/gallery``, ``train/queries`` …
        street: Where.
        drive: Name of the pass.
        camera: From where.
        conditions: In which weather.
    """

    name: str
    split: str
    street: Street
    drive: str
    camera: Camera
    conditions: Conditions


def shots(world: World) -> Iterator[Shot]:
    """Yield all photographs of the world, street by street (a street's textures are painted once)."""
    for street in world.streets:
        yield from gallery_pass(world, street)
        for number in range(world.config.query_passes):
            yield from query_pass(world, street, number)


def split_name(street: Street, kind: str) -> str:
    """Return the split of a street's ``gallery`` or ``query`` photographs."""
    if street.part == "test":
        return kind
    return f"{street.part}/{'queries' if kind == 'query' else kind}"


def gallery_pass(world: World, street: Street) -> Iterator[Shot]:
    """Yield the gallery of a street: every few metres, forward and to both sides, one drive in one weather."""
    config = world.config
    rng = generator(config.seed, "gallery", street.name)
    weather = random_conditions(rng, "overcast" if rng.random() < 0.4 else "clear", config.occluders)
    span = street.length_m - 2 * street.margin_m
    split = split_name(street, "gallery")
    for number in range(int(span / config.spacing_m) + 1):
        along = street.margin_m + number * config.spacing_m
        lateral = LANE_M + float(rng.normal(0, 0.15))
        for view, offset in VIEWS.items():
            camera = world.camera_at(
                street,
                along,
                lateral,
                1.9,
                offset + float(rng.normal(0, 1.0)),
                pitch_deg=2.0 + 4.0 * (offset != 0),
            )
            name = f"images/{split}/{street.name}_{number:03d}_{view}.jpg"
            yield Shot(name, split, street, "gallery", camera, _next_moment(weather, rng))


def query_pass(world: World, street: Street, number: int) -> Iterator[Shot]:
    """Yield one query pass of a street: another day, lane, height and heading, seen at a slant.

    Where the gallery faces a wall, queries look at it up to 40 degrees aside, from 2 to 6 m nearer or farther.
    """
    config = world.config
    rng = generator(config.seed, "query", street.name, number)
    weather = random_conditions(rng, occluders=config.occluders)
    split, drive = split_name(street, "query"), f"query-{number}"
    height = float(rng.uniform(1.3, 2.6))
    kerb = street.width_m / 2 - ROOM_M
    span = street.length_m - 2 * street.margin_m
    places = street.margin_m + span * np.sort(rng.uniform(0, 1, max(1, round(span / config.query_spacing_m))))
    for index, along in enumerate(places):
        for view, offset in VIEWS.items():
            shift = float(rng.uniform(2.0, 6.0)) * (1 if rng.random() < 0.7 else -1)
            lateral = float(np.clip(LANE_M + shift, -kerb, kerb))
            turn = float(rng.uniform(-40, 40)) if offset else float(rng.uniform(-18, 18))
            camera = world.camera_at(
                street,
                float(along),
                lateral,
                height + float(rng.normal(0, 0.05)),
                offset + turn,
                pitch_deg=float(rng.uniform(-1, 7)),
                roll_deg=float(rng.normal(0, 1.0)),
            )
            name = f"images/{split}/{street.name}_{number}_{index:03d}_{view}.jpg"
            # training queries meet every weather; a test pass is one drive on one day
            day = weather if street.part == "test" else random_conditions(rng, occluders=config.occluders)
            yield Shot(name, split, street, drive, camera, _next_moment(day, rng))


def _next_moment(weather: Conditions, rng: np.random.Generator) -> Conditions:
    """Return the same day a little later: other people, other noise, a slightly other exposure."""
    return Conditions(
        **{
            **vars(weather),
            "traffic": int(rng.integers(2**31)),
            "frame": int(rng.integers(2**31)),
            "gain": weather.gain * float(np.exp(rng.normal(0, 0.04))),
        }
    )
