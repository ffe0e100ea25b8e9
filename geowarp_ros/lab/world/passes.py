"""Image poses: regular gallery passes and irregular query passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.randomness import draw_seed, generator
from geowarp_ros.lab.world.town import Street
from geowarp_ros.lab.world.weather import Conditions, random_conditions
from geowarp_ros.lab.world.world import World

VIEWS: dict[str, float] = {"forward": 0.0, "right": 90.0, "left": -90.0}
"""View directions, clockwise from the street's direction (deg)."""
ROOM_M = 3.0
"""Minimum distance of a camera from a façade."""
LANE_M = -1.8
"""Lateral position of the right-hand lane."""


@dataclass(frozen=True)
class Shot:
    """An image to render.

    Attributes:
        name: File path relative to the world's folder.
        split: ``gallery``, ``query``, ``train/gallery``, ``train/queries`` …
        street: Street of the camera.
        drive: Name of the pass.
        camera: Camera pose and intrinsics.
        conditions: Imaging conditions.
    """

    name: str
    split: str
    street: Street
    drive: str
    camera: Camera
    conditions: Conditions


def shots(world: World) -> Iterator[Shot]:
    """Yield all images of the world, street by street so that textures stay cached."""
    for street in world.streets:
        yield from gallery_pass(world, street)
        for number in range(world.config.query_passes):
            yield from query_pass(world, street, number)


def split_name(street: Street, kind: str) -> str:
    """Return the split of a street's ``gallery`` or ``query`` images."""
    if street.part == "test":
        return kind
    return f"{street.part}/{'queries' if kind == 'query' else kind}"


def gallery_pass(world: World, street: Street) -> Iterator[Shot]:
    """Yield a street's gallery: three views at regular spacing, in one weather."""
    config = world.config
    rng = generator(config.seed, "gallery", street.name)
    weather = random_conditions(rng, "overcast" if rng.random() < 0.4 else "clear", config.occluders)
    span = street.length_m - 2 * street.margin_m
    split = split_name(street, "gallery")
    for number in range(int(span / config.spacing_m) + 1):
        along = street.margin_m + number * config.spacing_m
        lateral = LANE_M + rng.normal(0, 0.15)
        for view, offset in VIEWS.items():
            camera = world.camera_at(
                street, along, lateral, 1.9, offset + rng.normal(0, 1.0), pitch_deg=2.0 + 4.0 * (offset != 0)
            )
            name = f"images/{split}/{street.name}_{number:03d}_{view}.jpg"
            yield Shot(name, split, street, "gallery", camera, _next_moment(weather, rng))


def query_pass(world: World, street: Street, number: int) -> Iterator[Shot]:
    """Yield one query pass of a street, in other weather and from other poses than the gallery.

    Lateral offset from the gallery 2..6 m, heading offset up to 40° for side views and 18° for forward views.
    """
    config = world.config
    rng = generator(config.seed, "query", street.name, number)
    weather = random_conditions(rng, occluders=config.occluders)
    split, drive = split_name(street, "query"), f"query-{number}"
    height = rng.uniform(1.3, 2.6)
    kerb = street.width_m / 2 - ROOM_M
    span = street.length_m - 2 * street.margin_m
    places = street.margin_m + span * np.sort(rng.uniform(0, 1, max(1, round(span / config.query_spacing_m))))
    for index, along in enumerate(places):
        for view, offset in VIEWS.items():
            shift = rng.uniform(2.0, 6.0) * (1 if rng.random() < 0.7 else -1)
            lateral = float(np.clip(LANE_M + shift, -kerb, kerb))
            turn = rng.uniform(-40, 40) if offset else rng.uniform(-18, 18)
            up, pitch, roll = height + rng.normal(0, 0.05), rng.uniform(-1, 7), rng.normal(0, 1.0)
            camera = world.camera_at(street, along, lateral, up, offset + turn, pitch, roll)
            name = f"images/{split}/{street.name}_{number}_{index:03d}_{view}.jpg"
            # training queries draw their own weather; a test pass has one
            day = weather if street.part == "test" else random_conditions(rng, occluders=config.occluders)
            yield Shot(name, split, street, drive, camera, _next_moment(day, rng))


def _next_moment(weather: Conditions, rng: np.random.Generator) -> Conditions:
    """Return the same weather with new traffic, noise and slightly different exposure."""
    traffic, frame = draw_seed(rng), draw_seed(rng)
    return replace(weather, traffic=traffic, frame=frame, gain=weather.gain * float(np.exp(rng.normal(0, 0.04))))
