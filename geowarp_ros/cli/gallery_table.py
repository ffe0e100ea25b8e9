"""The places of a gallery as a table for QGIS and for people: one row a photograph, what is unknown is null."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from geowarp_ros.errors import ConfigError, GalleryError, did_you_mean
from geowarp_ros.files import write_whole

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery

TEXTS = ("name", "split", "time", "filename", "camera")
NUMBERS = ("latitude", "longitude", "altitude", "heading")
ALIGNED = ("aligned_latitude", "aligned_longitude", "aligned_altitude", "aligned_heading", "aligned_std_m")
KEYS = ("name", *NUMBERS, *TEXTS[1:], *ALIGNED)
"""Keys of a row. WGS84 degrees, altitude in m above the ellipsoid, heading clockwise from north; ``time`` is UTC,
``filename`` the image's file, ``camera`` where its calibration is from. ``aligned_``: the photograph's own pose
(:mod:`geowarp_ros.gallery.alignment`) and the horizontal standard deviation of its position (m)."""

Table: TypeAlias = Iterable[dict[str, Any]]


def place_rows(gallery: Gallery) -> Iterator[dict[str, Any]]:
    """Yield a row of :data:`KEYS` for each photograph; None is unknown."""
    aligned = _aligned(gallery)
    for segment, first in zip(gallery.segments, gallery.stored.starts.tolist(), strict=False):
        removed = set(segment.removed.tolist())
        for number, row in enumerate(segment.table):
            if number in removed:
                continue
            place, stored = row.place, first + number
            camera = None if segment.cameras is None else segment.cameras[number]
            if camera is None and gallery.alignment is not None:
                camera = gallery.alignment.estimated_camera(stored)
            values = {
                "name": place.name,
                "latitude": place.latitude_deg,
                "longitude": place.longitude_deg,
                "altitude": place.altitude_m,
                "heading": place.heading_deg,
                "split": row.split or None,
                "time": _time(place.stamp_ns) if place.stamp_ns else None,
                "filename": str((segment.folder / row.image).resolve()),
                "camera": camera and (camera.source or "unknown"),
                **aligned.get(stored, dict.fromkeys(ALIGNED)),
            }
            unknown = [key for key, value in values.items() if isinstance(value, float) and math.isnan(value)]
            yield values | dict.fromkeys(unknown)


def _time(stamp_ns: int) -> str:
    return datetime.fromtimestamp(stamp_ns / 1e9, timezone.utc).isoformat(timespec="milliseconds")


def _aligned(gallery: Gallery) -> dict[int, dict[str, float]]:
    """Return the values of :data:`ALIGNED` of each tied photograph, by stored row."""
    alignment = gallery.alignment
    if alignment is None:
        return {}
    import numpy as np

    from geowarp_ros.attitude import BODY_FROM_OPTICAL, heading
    from geowarp_ros.geodesy import LocalFrame

    latitude, longitude, altitude = LocalFrame(*alignment.datum).to_geodetic(alignment.position_m)
    known = np.isfinite(gallery.geodetic[:, 2]).any()  # otherwise heights are of an unknown datum
    found = {}
    for row in np.flatnonzero(alignment.tied).tolist():
        looks = heading(alignment.rotation[row] @ BODY_FROM_OPTICAL.T)
        height = round(float(altitude[row]), 3) if known else math.nan
        values = round(float(latitude[row]), 9), round(float(longitude[row]), 9), height, round(looks, 3)
        found[row] = dict(zip(ALIGNED, (*values, round(float(alignment.position_std_m[row]), 3)), strict=True))
    return found


def export(gallery: Gallery, path: Path) -> int:
    """Write the places of a gallery as the file's ending says; returns their number.

    Raises:
        ConfigError: Another ending than .csv, .geojson and .parquet.
        GalleryError: The file cannot be written.
    """
    form = FORMS.get(path.suffix.lower())
    if form is None:
        near = did_you_mean(path.suffix, FORMS)
        raise ConfigError(f"{path}: ends in {path.suffix!r}{near}, expected one of {', '.join(FORMS)}")
    rows = list(place_rows(gallery))
    write_whole(path, form(rows, path), GalleryError)
    return len(rows)


def _csv(rows: Table, path: Path) -> bytes:
    """Return a CSV that 'geowarp gallery build' reads: a filename is relative to the CSV where it lies below."""
    folder, text = path.resolve().parent, io.StringIO(newline="")
    writer = csv.DictWriter(text, KEYS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        file = Path(row["filename"])
        writer.writerow(row | {"filename": file.relative_to(folder) if file.is_relative_to(folder) else file})
    return text.getvalue().encode()


def _geojson(rows: Table, path: Path) -> bytes:
    """Return points (RFC 7946) whose properties are the rows."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Point",
                "coordinates": [row[key] for key in ("longitude", "latitude", "altitude") if row[key] is not None],
            },
            "properties": row,
        }
        for row in rows
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=0).encode() + b"\n"


def _parquet(rows: Table, path: Path) -> bytes:
    """Return a table with the points as WKB and the metadata of GeoParquet 1.1 (https://geoparquet.org)."""
    import pyarrow
    import pyarrow.parquet

    rows = list(rows)
    kinds = {key: pyarrow.string() if key in TEXTS else pyarrow.float64() for key in KEYS}
    columns = {key: pyarrow.array([row[key] for row in rows], kind) for key, kind in kinds.items()}
    points = [struct.pack("<BIdd", 1, 1, row["longitude"], row["latitude"]) for row in rows]
    columns["geometry"] = pyarrow.array(points, pyarrow.binary())
    geometry = {"encoding": "WKB", "geometry_types": ["Point"]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    whole = pyarrow.BufferOutputStream()
    table = pyarrow.table(columns).replace_schema_metadata({"geo": json.dumps(geo)})
    pyarrow.parquet.write_table(table, whole)
    return bytes(whole.getvalue())


FORMS = {".csv": _csv, ".geojson": _geojson, ".parquet": _parquet}
"""Ending of a file -> what writes it."""
