"""What a map shows, as JSON-ready columns: of the report, and of the pages of :mod:`geowarp_ros.view`.

Convention:
    ``x`` and ``y`` are metres east and north on a :class:`Ground`; headings are degrees clockwise from true north;
    ``t`` is seconds from the first image. Null is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from geowarp_ros.evaluation.drive import NS
from geowarp_ros.types import FloatArray

ASSETS = Path(__file__).parent / "assets"
STYLES, SCRIPTS = ("report.css", "viewer.css"), ("map.js", "viewer.js")
"""Files of the map and what stands beside it, in the order in which they are loaded."""

EARTH_M = 6378137.0
"""Radius of the sphere of web maps (EPSG:3857)."""

Columns = dict[str, list[Any]]
Row = Mapping[str, str]
"""A row of ``images.csv``."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The plane of web maps (EPSG:3857), scaled and moved to be in metres about an origin.

    A sphere's: lengths north are up to 0.7 % off, which no map shows; figures are never taken from it.
    """

    latitude_deg: float
    longitude_deg: float

    def __call__(self, latitude_deg: ArrayLike, longitude_deg: ArrayLike) -> FloatArray:
        """Return (N, 2) metres east and north; the shorter way round the earth."""
        latitude, longitude = np.asarray(latitude_deg, float), np.asarray(longitude_deg, float)
        scale = EARTH_M * math.cos(math.radians(self.latitude_deg))
        east = np.radians((longitude - self.longitude_deg + 180.0) % 360.0 - 180.0)
        north = np.arcsinh(np.tan(np.radians(latitude))) - math.asinh(math.tan(math.radians(self.latitude_deg)))
        return np.asarray(scale * np.stack([east, north], axis=-1))


def column(values: ArrayLike, digits: int = 2) -> list[float | None]:
    """Return numbers, rounded; not finite is null."""
    return [round(value, digits) if math.isfinite(value) else None for value in np.asarray(values, float).tolist()]


def positions(where_m: FloatArray, prefix: str = "") -> Columns:
    """Return positions (N, 2) as the columns x and y."""
    return {f"{prefix}x": column(where_m[:, 0]), f"{prefix}y": column(where_m[:, 1])}


def scene(
    kind: str,
    title: str,
    ground: Ground,
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
    **parts: Any,
) -> dict[str, Any]:
    """Return a scene.

    Args:
        kind: gallery, drive or live.
        title: One line.
        ground: Where the positions are.
        facts: What stands below the title.
        notes: Remarks.
        parts: ``places``, ``points`` and ``drive`` are columns; others are the kind's own.
    """
    datum = [ground.latitude_deg, ground.longitude_deg]
    return {"kind": kind, "title": title, "facts": list(facts), "notes": list(notes), "datum": datum, **parts}


_NUMBERS = {
    "confidence": ("confidence", 4),
    "error": ("error_m", 3),
    "radius": ("claimed_radius_m", 2),
    "ee": ("variance_east", 4),
    "en": ("covariance_east_north", 4),
    "nn": ("variance_north", 4),
    "heading": ("heading", 2),
    "heading_std": ("heading_std", 2),
    "true_heading": ("true_heading", 2),
    "heading_error": ("heading_error_deg", 2),
    "latency": ("latency_ms", 1),
    "distance": ("distance", 4),
    "score": ("score", 4),
}
"""Column -> that of images.csv, and the digits that are shown."""

_TEXTS = {"name": "image", "status": "status", "reason": "reason", "candidate": "candidate", "method": "method"}


def drive_columns(rows: Sequence[Row], ground: Ground, place_rows: Mapping[str, int] | None = None) -> Columns:
    """Return the images of a drive as columns.

    Args:
        rows: Rows of ``images.csv`` (:data:`geowarp_ros.evaluation.exports.COLUMNS`) in the order of their stamps.
        ground: Where they are drawn.
        place_rows: Name of a place -> its row in the scene's places.
    """
    stamps = [int(row["stamp_ns"]) for row in rows]
    found: Columns = {"t": [round((stamp - stamps[0]) / NS, 3) for stamp in stamps]}
    found |= {name: [row.get(key, "") for row in rows] for name, key in _TEXTS.items()}
    found["title"] = [title_of(row["image"], stamp, stamps[0]) for row, stamp in zip(rows, stamps, strict=True)]
    found |= {name: column(_numbers(rows, key), digits) for name, (key, digits) in _NUMBERS.items()}
    for prefix, of in (("", ""), ("t", "true_")):
        where = ground(_numbers(rows, f"{of}latitude"), _numbers(rows, f"{of}longitude"))
        found |= positions(where.reshape(-1, 2), prefix)
    found["place"] = [(place_rows or {}).get(name) for name in found["candidate"]]
    for name in ("query_quad", "candidate_quad"):
        found[name] = [quad_of(row.get(name, "")) for row in rows]
    return found


def title_of(name: str, stamp_ns: int, first_ns: int) -> str:
    """Return what an image is called: seconds from the first where its name is a stamp, else its file's."""
    return f"{(stamp_ns - first_ns) / NS:.1f} s" if name.endswith(str(stamp_ns)) else name.rpartition("/")[2]


def quad_text(quad: FloatArray | None) -> str:
    """Return a quad (4, 2), -1..1, as a cell of images.csv."""
    return "" if quad is None else " ".join(f"{value:.4f}" for value in np.asarray(quad, float).ravel())


def quad_of(text: str) -> list[float] | None:
    """Return the 8 numbers of such a cell; None if it holds something else."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return None
    return numbers if len(numbers) == 8 and all(map(math.isfinite, numbers)) else None


def _numbers(rows: Sequence[Row], key: str) -> list[float]:
    return [float(row.get(key) or "nan") for row in rows]
