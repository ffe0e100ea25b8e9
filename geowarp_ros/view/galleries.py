"""A gallery as a scene: places with headings, tags and own positions, the structure, what was left out."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.attitude import BODY_FROM_OPTICAL, heading
from geowarp_ros.evaluation.scene import Columns, Ground, column, positions, scene
from geowarp_ros.files import quoted
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import FloatArray, Image
from geowarp_ros.view.shown import NoPictureError, Still

MOST_POINTS = 200_000
"""Maximum number of the structure's points that are sent; of more, every N-th."""

MOST_LEFT_OUT = 20_000


def show_gallery(gallery: Gallery) -> Still:
    """Return a gallery as what a page shows."""
    ground = ground_of(gallery)
    shown = scene(
        "gallery",
        gallery.path.resolve().name,
        ground,
        facts(gallery),
        _notes(gallery),
        places=place_columns(gallery, ground, named=True),
        points=_points(gallery, ground),
        left_out=left_out(gallery.path),
    )
    return Still(shown, {"place": lambda row: photograph(gallery, row)})


def ground_of(gallery: Gallery) -> Ground:
    """Return the ground about a gallery's middle."""
    return Ground(gallery.frame.datum_latitude_deg, gallery.frame.datum_longitude_deg)


def place_columns(gallery: Gallery, ground: Ground, *, named: bool) -> Columns:
    """Return the places as columns: with ``named`` all that is known of each, else only where they are."""
    latitude, longitude, altitude = gallery.geodetic.T
    found = positions(ground(latitude, longitude).reshape(-1, 2))
    if not named:
        return found
    places = list(gallery.places)
    found["name"] = [place.name for place in places]
    found["heading"] = column([place.heading_deg for place in places])
    found["altitude"] = column(altitude)
    found["time"] = [place.stamp_ns // 1_000_000 if place.stamp_ns else None for place in places]
    if any(gallery.splits):
        found["split"] = list(gallery.splits)
    return found | _own(gallery, ground, {place.name: row for row, place in enumerate(places)})


def _own(gallery: Gallery, ground: Ground, row_of: dict[str, int]) -> dict[str, Any]:
    """Return where the photographs were taken and looked, by their alignment; nothing without one."""
    alignment, stored = gallery.alignment, gallery.manifest.alignment
    if alignment is None or stored is None:
        return {}
    numbers = gallery.numbers.stored(np.arange(len(gallery)))
    tied = alignment.tied[numbers]
    where, headings, std = np.full((len(gallery), 2), math.nan), np.full(len(gallery), math.nan), tied * math.nan
    where[tied] = _geodetic(ground, alignment.datum, alignment.position_m[numbers[tied]])
    std[tied] = alignment.position_std_m[numbers[tied]]
    headings[tied] = [heading(turn @ BODY_FROM_OPTICAL.T) for turn in alignment.rotation[numbers[tied]]]
    return {
        **positions(where, "own_"),
        "own_heading": column(headings),
        "own_std": column(std),
        "suspicious": [row_of[tag.name] for tag in stored.summary.suspicious if tag.name in row_of],
    }


def _geodetic(ground: Ground, datum: tuple[float, float, float], enu_m: FloatArray) -> FloatArray:
    latitude, longitude, _ = LocalFrame(*datum).to_geodetic(enu_m)
    return ground(latitude, longitude)


def _points(gallery: Gallery, ground: Ground) -> Columns | None:
    alignment = gallery.alignment
    if alignment is None or not len(alignment.points_m):
        return None
    step = -(-len(alignment.points_m) // MOST_POINTS)
    where = _geodetic(ground, alignment.datum, alignment.points_m[::step])
    inside = np.abs(where).max(axis=1) < 1e5  # a point may be triangulated beyond every street
    return {**positions(where[inside]), "of": len(alignment.points_m)}  # type: ignore[dict-item]


def facts(gallery: Gallery) -> list[str]:
    """Return what stands below the title."""
    enu = gallery.positions_enu
    extent = np.ptp(enu[:, :2], axis=0) if len(enu) else np.zeros(2)
    found = [f"{len(gallery):,} places", f"{extent[0]:,.0f} m east-west, {extent[1]:,.0f} m north-south"]
    if (stored := gallery.manifest.alignment) is not None:
        found.append(f"{gallery.tied:,} aligned")
        if stored.summary.residual_m is not None:
            found[-1] += f", {stored.summary.residual_m:.2f} m from their tags in the median"
    return found


def _notes(gallery: Gallery) -> list[str]:
    stored = gallery.manifest.alignment
    if stored is not None:
        return list(stored.summary.lines)
    return [
        f"Not aligned: geowarp gallery align {quoted(gallery.path)}"
        " finds where its photographs were taken and looked."
    ]


def left_out(folder: Path) -> list[list[str]]:
    """Return name and reason of the photographs that ``gallery build`` and ``add`` left out; some of very many."""
    found: list[list[str]] = []
    for path in sorted(folder.glob("left_out*.csv")):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            found += [[row.get("name") or "", row.get("reason") or ""] for row in csv.DictReader(file)]
    return found[:MOST_LEFT_OUT]


def photograph(gallery: Gallery, row: int) -> Image:
    """Return the photograph of a place.

    Raises:
        NoPictureError: No such row, or the gallery, edited, names a copy outside of its own folder.
        GalleryError: The file is absent or broken.
    """
    if not 0 <= row < len(gallery):
        raise NoPictureError(f"place {row}: expected 0 to {len(gallery) - 1}")
    segment, number = gallery.places.locate(row)
    file = segment.folder / segment.table[number].image
    if segment.info.copied and not file.resolve().is_relative_to(segment.folder.resolve()):
        raise NoPictureError(f"{file}: lies outside of the gallery {gallery.path}")
    return gallery.image(row)
