"""The places of a segment: a table for people and, beside it, positions and line starts that are only mapped.

``places.csv`` holds everything. ``places.npy`` repeats what a search needs of every row – where its line begins
and where it was taken – so that a gallery of a million places opens at once and few lines are ever parsed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.types import Place

COLUMNS = (
    "name", "latitude", "longitude", "altitude", "heading", "stamp_ns", "split",
    "image", "image_size", "image_blake2b",
)  # fmt: skip

POSITIONS = np.dtype([("offset", "<i8"), ("latitude", "<f8"), ("longitude", "<f8"), ("altitude", "<f8")])
"""A row of ``places.npy``: first byte of its line in ``places.csv``, degrees, degrees, metres or NaN."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a segment.

    Attributes:
        place: Its name and position.
        split: Of its source; may be empty.
        image: Its file, relative to the segment, or absolute where it is referenced.
        image_size: Bytes.
        image_blake2b: Checksum.
    """

    place: Place
    split: str
    image: str
    image_size: int
    image_blake2b: str

    def to_text(self) -> list[str]:
        """Return the values of :data:`COLUMNS`; NaN is empty, floats keep every digit."""
        p = self.place
        numbers = (p.latitude_deg, p.longitude_deg, p.altitude_m, p.heading_deg)
        texts = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
        return [p.name, *texts, str(p.stamp_ns), self.split, self.image, str(self.image_size), self.image_blake2b]

    @classmethod
    def from_text(cls, values: Sequence[str]) -> Row:
        """Read what :meth:`to_text` wrote; ValueError where it is something else."""
        name, latitude, longitude, altitude, heading, stamp_ns, split, image, size, digest = values
        place = Place(
            name,
            float(latitude),
            float(longitude),
            float(altitude or "nan"),
            float(heading or "nan"),
            int(stamp_ns),
        )
        return cls(place, split, image, int(size), digest)


def table_of(rows: Sequence[Row]) -> tuple[bytes, NDArray[np.void]]:
    """Return the content of ``places.csv`` and of ``places.npy``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    lines = [text.getvalue().encode()]
    positions = np.empty(len(rows), POSITIONS)
    offset = len(lines[0])
    for number, row in enumerate(rows):
        text.seek(0)
        text.truncate()
        writer.writerow(row.to_text())
        lines.append(text.getvalue().encode())
        place = row.place
        positions[number] = (offset, place.latitude_deg, place.longitude_deg, place.altitude_m)
        offset += len(lines[-1])
    return b"".join(lines), positions


class PlaceTable(Sequence[Row]):
    """The rows of ``places.csv``; each is parsed when it is asked for.

    Args:
        path: The table.
        positions: (N,) of :data:`POSITIONS`, may be a memory map; None reads them from the table.

    Raises:
        GalleryError: The table is no table of ours, or without ``positions`` cannot be read; also when a row is
            asked for that cannot be read.
    """

    def __init__(self, path: Path, positions: NDArray[np.void] | None = None) -> None:
        self.path = path
        self._bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        header = (",".join(COLUMNS) + "\n").encode()
        if bytes(self._bytes[: len(header)]) != header:
            raise GalleryError(f"{path}: cannot be read as places: its first line is not {', '.join(COLUMNS)}")
        self.positions = self._scan() if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Parse one row, or several."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        start = int(self.positions["offset"][index])
        following = range(len(self))[index] + 1
        end = int(self.positions["offset"][following]) if following < len(self) else len(self._bytes)
        (row,) = self._parse(io.StringIO(self._decode(start, end), newline=""))
        return row

    def __iter__(self) -> Iterator[Row]:
        """Parse all rows, faster than one by one."""
        with self.path.open(encoding="utf-8", newline="") as file:
            file.readline()
            yield from self._parse(file)

    def _parse(self, file: Iterator[str] | io.TextIOBase) -> Iterator[Row]:
        try:
            for values in csv.reader(file, strict=True):
                yield Row.from_text(values)
        except (OSError, ValueError, csv.Error) as error:
            raise GalleryError(f"{self.path}: cannot be read as places: {error}") from None

    def _decode(self, start: int, end: int) -> str:
        try:
            return bytes(self._bytes[start:end]).decode()
        except UnicodeDecodeError as error:
            raise GalleryError(f"{self.path}: cannot be read as places: {error}") from None

    def _scan(self) -> NDArray[np.void]:
        table, positions = table_of(list(iter(self)))
        if len(table) != len(self._bytes):
            raise GalleryError(f"{self.path}: cannot be read as places: its lines are not as they were written")
        return positions
