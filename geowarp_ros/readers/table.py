"""Geotagged images from a CSV: ``filename, latitude, longitude`` and, where known, ``altitude, heading, split``.

Values are separated by commas, semicolons or tabs, as the header is. One wrong position refuses the whole file,
because a gallery would keep it; an absent image is only skipped.
"""

from __future__ import annotations

import codecs
import csv
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from geowarp_ros.errors import SourceError, did_you_mean
from geowarp_ros.readers.camera_files import CameraFiles
from geowarp_ros.readers.exif_positions import EAST_WEST, NORTH_SOUTH, is_wgs84, signed
from geowarp_ros.readers.positions import ALTITUDES_M
from geowarp_ros.readers.source import Skipped, Source, SourceImage, image_file, not_read
from geowarp_ros.types import Place

_REQUIRED = ("filename", "latitude", "longitude")
_RANGES = {
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "altitude": ALTITUDES_M,
    "heading": (0, 360),
}
_SIGNS = {"latitude": NORTH_SOUTH, "longitude": EAST_WEST}
_ALIASES = {
    "filename": ("file", "file_name", "image", "image_name", "path", "name"),
    "latitude": ("lat", "latitude_deg"),
    "longitude": ("lon", "lng", "long", "longitude_deg"),
    "altitude": ("alt", "altitude_m"),
    "heading": ("heading_deg",),
    "latitude_ref": ("lat_ref", "latref", "latituderef", "gpslatituderef", "ns", "n/s", "lat_dir"),
    "longitude_ref": ("lon_ref", "lonref", "longituderef", "gpslongituderef", "ew", "e/w", "lon_dir"),
    "datum": ("crs", "srs", "epsg", "gpsmapdatum"),
}
"""Column -> other names that it may have where none has its own."""


def read_table(path: Path) -> Source:
    """Read the CSV ``path``; filenames are relative to its folder, other columns are ignored.

    Returns:
        The images whose files exist; others are skipped as ``absent``.

    Raises:
        SourceError: The file is no CSV in UTF-8, lacks a column or has no rows, a file is named twice, or a number
            is absent or outside its range; the message names file, row and value.
    """
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    row_of: dict[str, tuple[int, str]] = {}
    marks: set[str] = set()
    told: set[str] = set()
    untold: dict[str, str] = {}
    cameras = CameraFiles(path.parent)
    for number, row in _rows(path):
        where = f"{path}, row {number}"
        name = row["filename"]
        if not name or "\0" in name:
            said = repr(name) if name else "empty"
            raise SourceError(f"{where}: filename is {said}, expected an image's path relative to the CSV")
        if "\\" in name and not (path.parent / name).is_file():
            name = name.replace("\\", "/")  # as written on Windows
        same = unicodedata.normalize("NFC", os.path.realpath(path.parent / name))
        if same in row_of:
            first, spelling = row_of[same]
            there = f"{first} already{'' if spelling == name else f', as {spelling!r}'}"
            raise SourceError(f"{where}: filename {name!r} stands in row {there}, expected it once")
        row_of[same] = number, name
        latitude, longitude, altitude, heading = (_number(row, column, where) for column in _RANGES)
        for column, angle in (("latitude", latitude), ("longitude", longitude)):
            if row.get(f"{column}_ref"):
                told.add(column)
            elif angle > 0:
                untold.setdefault(column, f"{where}: {column} = {row[column]!r}")
        latitude = _signed(row, "latitude", latitude, where)
        longitude = _signed(row, "longitude", longitude, where)
        if (datum := row.get("datum")) and not (is_wgs84(datum) or datum == "4326"):
            raise SourceError(f"{where}: datum = {datum!r}, expected WGS-84 (EPSG:4326)")
        marks |= {mark for column in _RANGES for mark in ".," if mark in row.get(column, "")}
        if len(marks) > 1:
            raise SourceError(f"{where}: the file has decimal commas and decimal points, expected one of them")
        place = Place(name, latitude, longitude, altitude, heading)
        file = path.parent / name
        if reason := not_read(file) if file.is_file() else "absent":
            skipped.append(Skipped(name, reason))
        else:
            images.append(image_file(place, file, cameras, row.get("split", "")))
    for column in sorted(told & untold.keys()):
        raise SourceError(f"{untold[column]} and {column}_ref is empty, expected it in every row or in none")
    if not row_of:
        raise SourceError(f"{path}: has a header and no rows, expected one row per image")
    return Source(tuple(images), tuple(skipped), f"CSV {path}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number of each row and its values by column, stripped."""
    try:
        with path.open("rb") as file:
            wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as spreadsheets write "Unicode"
        with path.open(encoding="utf-16" if wide else "utf-8-sig", newline="") as file:
            line, above = file.readline(), 0
            while line.isspace() or line.lower().startswith("sep="):  # the latter tells spreadsheets the delimiter
                line, above = file.readline(), above + 1
            delimiter = _delimiter(line)
            reader = csv.reader(chain([line], file), strict=True, delimiter=delimiter, skipinitialspace=True)
            header = _header(path, next(reader, []))
            for values in reader:
                if not any(value.strip() for value in values):
                    continue  # an empty last line is no row
                number = above + reader.line_num
                if len(values) < len(header) or any(value.strip() for value in values[len(header) :]):
                    commas = delimiter == "," and len(values) > len(header)
                    hint = "; decimal commas need values separated by ';'" if commas else ""
                    raise SourceError(
                        f"{path}, row {number}: has {len(values)} values, expected {len(header)}{hint}"
                    )
                yield number, dict(zip(header, (value.strip() for value in values), strict=False))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeError, csv.Error) as error:
        raise SourceError(f"{path}: is no CSV in UTF-8: {error}") from None


def _delimiter(line: str) -> str:
    """Return what separates the columns of a header: that by which most are known."""

    def known(delimiter: str) -> int:
        return sum(
            _column(name) in (*_ALIASES, "split")
            for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        )

    return max((",", ";", "\t"), key=known)


def _column(name: str) -> str:
    """Return the column that a name means, in lower case; a name that means none as it is."""
    name = name.strip().lower()
    return next((column for column, others in _ALIASES.items() if name in others), name)


def _header(path: Path, written: Sequence[str]) -> list[str]:
    """Return the columns; beside ``filename`` another that could mean it, such as ``name``, is something else."""
    names = [name.strip() for name in written]
    plain = [name.lower() for name in names]
    header = [name if "filename" in plain and _column(name) == "filename" else _column(name) for name in plain]
    for name in _REQUIRED:
        if name not in header:
            raise SourceError(
                f"{path}: no column {name!r}{did_you_mean(name, names)}; the header is"
                f" {', '.join(names) or 'empty'}, expected {', '.join(_REQUIRED)}"
                " and, if known, altitude, heading, split"
            )
    for name in (*_ALIASES, "split"):
        if header.count(name) > 1:
            raise SourceError(f"{path}: column {name!r} stands there {header.count(name)} times, expected once")
    return header


def _signed(row: dict[str, str], column: str, angle: float, where: str) -> float:
    """Return an angle with the sign of the column that tells its hemisphere, if there is one."""
    reference = row.get(f"{column}_ref", "")
    found = signed(angle, reference.upper(), _SIGNS[column]) if reference else angle
    if found is None:
        raise SourceError(
            f"{where}: {column} = {row[column]!r} and {column}_ref = {reference!r} do not tell the hemisphere"
        )
    return found


def _number(row: dict[str, str], column: str, where: str) -> float:
    """Read a number; altitude and heading may be absent, empty or ``nan``, and are NaN then."""
    text, (low, high) = row.get(column, ""), _RANGES[column]
    if column not in _REQUIRED and text.lower() in ("", "nan"):
        return math.nan
    try:
        value = math.nan if "_" in text or ("," in text and "." in text) else float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # false for NaN too
        raise SourceError(f"{where}: {column} = {text!r}, expected a number from {low} to {high}")
    return value
