"""A finished run of ``geowarp evaluate bag`` as a scene: its images over time, and the pictures of its drive."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import words
from geowarp_ros.evaluation.drive import DriveImage
from geowarp_ros.evaluation.scene import Ground, Row, drive_columns, quad_of, scene
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.pictures import warp_to_frame
from geowarp_ros.types import Image
from geowarp_ros.view.galleries import photograph, place_columns
from geowarp_ros.view.shown import NoPictureError, Still

ReadImages = Callable[[], Sequence[DriveImage]]
"""Opens the drive, when its first picture is asked for."""


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]:
    """Return results.json, run.json and the rows of images.csv that have a stamp.

    Raises:
        SourceError: A file is absent, damaged or of another version.
    """
    try:
        figures = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["stamp_ns"]]
        words.summary_rows(figures)
        drive_columns(rows[:1], Ground(0.0, 0.0))
    except OSError as error:
        raise SourceError(f"{folder}: is no finished run of 'geowarp evaluate bag': {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder}: results are damaged or of another version: {error!r}") from None
    if not rows:
        raise SourceError(f"{folder}: has no answered image to show")
    return figures, settings, rows


def show_run(
    folder: Path,
    images: ReadImages | None = None,
    gallery: Gallery | None = None,
    notes: Sequence[str] = (),
) -> Still:
    """Return a run as what a page shows.

    Args:
        folder: What ``geowarp evaluate bag --output`` wrote.
        images: Opens the drive; None: it is not at hand, and there are no pictures of queries.
        gallery: The gallery that was searched; None: it is not at hand, either.
        notes: What there is to say of that.

    Raises:
        SourceError: It is no finished run.
    """
    figures, _, rows = read_run(folder)
    ground = _ground_of(rows)
    row_of = {place.name: row for row, place in enumerate(gallery.places)} if gallery else {}
    shown = scene(
        "drive",
        str(figures.get("title") or folder.resolve().name),
        ground,
        _facts(figures),
        notes,
        places=place_columns(gallery, ground, named=False) | {"name": list(row_of)} if gallery else None,
        drive=drive_columns(rows, ground, row_of),
        correct_within_m=figures["correct_within_m"],
        no_images=" ".join(notes),
    )
    pictures: dict[str, Callable[[int], Image]] = {}
    if gallery is not None:
        pictures["place"] = lambda row: photograph(gallery, row)
    if images is not None:
        query = _queries(rows, images)
        pictures["query"] = query
        pictures["query-warped"] = lambda row: _warped(query(row), rows, row, "query_quad")
        if gallery is not None:
            of = shown["drive"]["place"]
            pictures["candidate-warped"] = lambda row: _warped(
                photograph(gallery, _known(of, row)), rows, row, "candidate_quad"
            )
    return Still(shown, pictures)


def _queries(rows: Sequence[Row], images: ReadImages) -> Callable[[int], Image]:
    opening = Lock()  # a page asks for several at once, and a bag takes its time

    @cache
    def opened() -> Mapping[str, DriveImage]:
        return {image.name: image for image in images()}

    def read(row: int) -> Image:
        name = rows[row]["image"] if 0 <= row < len(rows) else ""
        with opening:
            drive = opened()
        if name not in drive:
            raise NoPictureError(f"image {row} {name}: the drive has none of that name")
        return drive[name].read()

    return read


def _warped(image: Image, rows: Sequence[Row], row: int, key: str) -> Image:
    quad = quad_of(rows[row].get(key) or "")
    if quad is None:
        raise NoPictureError(f"image {row}: was not warped")
    return warp_to_frame(image, np.array(quad).reshape(4, 2))


def _known(values: Sequence[Any], row: int) -> int:
    if not 0 <= row < len(values) or values[row] is None:
        raise NoPictureError(f"image {row}: has no candidate in this gallery")
    return int(values[row])


def _ground_of(rows: Sequence[Row]) -> Ground:
    """Return the ground about the first known position."""
    for row in rows:
        for prefix in ("true_", ""):
            if row[f"{prefix}latitude"]:
                return Ground(float(row[f"{prefix}latitude"]), float(row[f"{prefix}longitude"]))
    return Ground(0.0, 0.0)


def _facts(figures: Mapping[str, Any]) -> list[str]:
    false = figures["false_fix_rate"]
    return [
        f"{words.percent(figures['availability'])} available",
        f"{false['count']} of {false['of']} fixes beyond {figures['correct_within_m']:g} m",
        f"median error {words.metres(figures['error_m']['0.5'])}",
        *filter(None, [words.conclusion(figures)]),
    ]
