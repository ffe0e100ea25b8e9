"""Geotagged images from a CSV: ``filename, latitude, longitude`` and, where known, ``altitude, heading, split``.

One wrong position refuses the whole file, because a gallery would keep it; an absent image is only skipped.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from geowarp_ros.errors import SourceError, did_you_mean
from geowarp_ros.readers.camera_files import CameraFiles
from geowarp_ros.readers.source import Skipped, Source, SourceImage, image_file, not_read
from geowarp_ros.types import Place

_REQUIRED = ("filename", "latitude", "longitude")
_RANGES = {
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "altitude": (-12_000, 100_000),
    "heading": (0, 360),
}


def read_table(path: Path) -> Source:
    """Read the CSV ``path``; filenames are relative to its folder, other columns are ignored.

    Returns:
        The images whose files exist; others are skipped as ``absent``.

    Raises:
        SourceError: The file is no CSV in UTF-8, lacks a column or has no rows, a filename is repeated, or a
            number is absent or outside its range; the message names file, row and value.
    """
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    row_of: dict[str, int] = {}
    cameras = CameraFiles(path.parent)
    for number, row in _rows(path):
        where = f"{path}, row {number}"
        name = row["filename"]
        if not name:
            raise SourceError(f"{where}: filename is empty, expected an image's path relative to the CSV")
        if name in row_of:
            raise SourceError(f"{where}: filename {name!r} stands in row {row_of[name]} already, expected it once")
        row_of[name] = number
        latitude, longitude, altitude, heading = (_number(row, column, where) for column in _RANGES)
        place = Place(name, latitude, longitude, altitude, heading)
        file = path.parent / name
        if reason := not_read(file) if file.is_file() else "absent":
            skipped.append(Skipped(name, reason))
        else:
            images.append(image_file(place, file, cameras, row.get("split", "")))
    if not row_of:
        raise SourceError(f"{path}: has a header and no rows, expected one row per image")
    return Source(tuple(images), tuple(skipped), f"CSV {path}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number of each row and its values by column, stripped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for values in reader:
                if not any(value.strip() for value in values):
                    continue  # an empty last line is no row
                if len(values) < len(header):
                    raise SourceError(
                        f"{path}, row {reader.line_num}: has {len(values)} values, expected {len(header)}"
                    )
                yield reader.line_num, dict(zip(header, (value.strip() for value in values), strict=False))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: is no CSV in UTF-8: {error}") from None


def _check_header(path: Path, header: list[str]) -> None:
    for name in _REQUIRED:
        if name not in header:
            raise SourceError(
                f"{path}: no column {name!r}{did_you_mean(name, header)}; the header is"
                f" {', '.join(header) or 'empty'}, expected {', '.join(_REQUIRED)}"
                " and, if known, altitude, heading, split"
            )
    for name in set(header):
        if name and header.count(name) > 1:
            raise SourceError(f"{path}: column {name!r} stands there {header.count(name)} times, expected once")


def _number(row: dict[str, str], column: str, where: str) -> float:
    """Read a number; altitude and heading may be absent, empty or ``nan``, and are NaN then."""
    text, (low, high) = row.get(column, ""), _RANGES[column]
    if column not in _REQUIRED and text.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:  # false for NaN too
        raise SourceError(f"{where}: {column} = {text!r}, expected a number from {low} to {high}")
    return value
