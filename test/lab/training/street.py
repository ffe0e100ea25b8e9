"""A street too small for the procedural world: painted walls, seen in passing, in changing light."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Image

HEIGHT, WIDTH = 64, 96
SPACING_M = 40.0
SHOTS_APART_M = 2.0


def wall(place: int) -> Image:
    """A wall of rectangles, larger than a photograph; the same for the same place."""
    rng = np.random.default_rng([17, place])
    canvas = np.full((HEIGHT + 32, WIDTH + 48, 3), rng.integers(60, 180, 3), np.uint8)
    for _ in range(14):
        corner = rng.integers(0, canvas.shape[1::-1], 2)
        size = rng.integers(8, 40, 2)
        cv2.rectangle(canvas, corner.tolist(), (corner + size).tolist(), rng.integers(0, 255, 3).tolist(), -1)
    return canvas


def stripes(place: int) -> Image:
    """A wall of stripes in two colours, told by their direction and width: a network learns them in few steps."""
    rng = np.random.default_rng([17, place])
    ys, xs = np.mgrid[: HEIGHT + 32, : WIDTH + 48]
    angle, period_px = rng.uniform(0, np.pi), rng.uniform(6, 24)
    across = (xs * np.cos(angle) + ys * np.sin(angle)) % period_px < period_px / 2
    light, dark = rng.integers(30, 220, (2, 3))
    return np.asarray(np.where(across[:, :, None], light, dark), np.uint8)


def shot(place: int, number: int, wall: Callable[[int], Image] = wall) -> Image:
    """A crop of the wall under a light of its own."""
    rng = np.random.default_rng([place, number])
    top, left = rng.integers(0, 32), rng.integers(0, 48)
    crop = wall(place)[top : top + HEIGHT, left : left + WIDTH].astype(float)
    lit = crop * rng.uniform(0.3, 1.2, 3) + rng.normal(0, 12, crop.shape) + rng.uniform(0, 30)
    return np.clip(lit, 0, 255).astype(np.uint8)


def write_street(
    folder: Path,
    places: int = 12,
    shots: int = 4,
    first: int = 0,
    split: str = "train",
    first_shot: int = 0,
    wall: Callable[[int], Image] = wall,
) -> Path:
    """Write the shots and their positions.csv; the last shot of each place is a query."""
    frame = LocalFrame(50.0, 8.0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    fresh = not (folder / "positions.csv").exists()
    with (folder / "positions.csv").open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["filename", "latitude", "longitude", "split"])
        for place in range(first, first + places):
            for number in range(first_shot, first_shot + shots):
                name = f"images/{place:03d}_{number}.png"
                cv2.imwrite(str(folder / name), shot(place, number, wall)[:, :, ::-1])
                east = place * SPACING_M + (number - first_shot) * SHOTS_APART_M
                latitude, longitude, _ = frame.to_geodetic([east, 0.0, 0.0])
                kind = "queries" if number == first_shot + shots - 1 else "gallery"
                writer.writerow([name, f"{float(latitude):.9f}", f"{float(longitude):.9f}", f"{split}/{kind}"])
    return folder


def write_lane(data: Path) -> Path:
    """Write a data folder with one ground, ``street``: six places to train on, four others to validate on."""
    write_street(data / "street", places=6, shots=3)
    write_street(data / "street", places=4, shots=3, first=50, split="val")
    return data


@contextmanager
def killed_at(save: int) -> Iterator[None]:
    """Kill the training within where its so many-th checkpoint begins to be written."""
    saves = [0]

    def die(_: object) -> None:
        saves[0] += 1
        if saves[0] == save:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geowarp_ros.lab.training.session.average_buffers", die)
        with pytest.raises(KeyboardInterrupt):
            yield
