"""The places of a segment: ``places.csv`` holds everything, ``places.npy`` positions and the offset of each line.

The latter is only mapped, so that a gallery of a million places opens at once and few lines are ever parsed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.types import Place

COLUMNS = (
    "name", "latitude", "longitude", "altitude", "heading", "stamp_ns", "split",
    "image", "image_size", "image_blake2b",
)  # fmt: skip

POSITIONS = np.dtype([("offset", "<i8"), ("latitude", "<f8"), ("longitude", "<f8"), ("altitude", "<f8")])
"""A row of ``places.npy``: byte offset of its line in ``places.csv``, degrees, degrees, metres or NaN."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a segment.

    Attributes:
        place: Name and position.
        split: Split in the source; may be empty.
        image: Image file, relative to the segment, or absolute where the source's is referenced.
        image_size: Size of the file in bytes.
        image_blake2b: Checksum of the file.
    """

    place: Place
    split: str
    image: str
    image_size: int
    image_blake2b: str

    def to_text(self) -> list[str]:
        """Return the values of :data:`COLUMNS`; NaN becomes empty, floats keep every digit."""
        p = self.place
        numbers = (p.latitude_deg, p.longitude_deg, p.altitude_m, p.heading_deg)
        texts = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
        return [p.name, *texts, str(p.stamp_ns), self.split, self.image, str(self.image_size), self.image_blake2b]

    @classmethod
    def from_text(cls, values: Sequence[str]) -> Row:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: It is something else.
        """
        name, latitude, longitude, altitude, heading, stamp_ns, split, image, size, digest = values
        degrees_and_m = (float(latitude), float(longitude), float(altitude or "nan"), float(heading or "nan"))
        place = Place(name, *degrees_and_m, int(stamp_ns))
        return cls(place, split, image, int(size), digest)


def table_of(rows: Sequence[Row]) -> tuple[bytes, NDArray[np.void]]:
    """Return the content of ``places.csv`` and ``places.npy``."""
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


class PlaceTable:
    """The rows of ``places.csv``, each parsed when it is asked for.

    Args:
        path: The table.
        positions: (N,) :data:`POSITIONS`, may be a memory map; None reads them from the table.

    Raises:
        GalleryError: The table's header differs, or a line cannot be read: at once without ``positions``, else
            when it is asked for.
    """

    def __init__(self, path: Path, positions: NDArray[np.void] | None = None) -> None:
        self.path = path
        self._bytes = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        header = (",".join(COLUMNS) + "\n").encode()
        if bytes(self._bytes[: len(header)]) != header:
            raise self._unreadable(f"its first line is not {', '.join(COLUMNS)}")
        self.positions = self._scan() if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Row:
        """Parse one row."""
        start = int(self.positions["offset"][index])
        following = range(len(self))[index] + 1
        end = int(self.positions["offset"][following]) if following < len(self) else len(self._bytes)
        try:
            line = bytes(self._bytes[start:end]).decode()
        except UnicodeDecodeError as error:
            raise self._unreadable(error) from None
        rows = list(self._parse(io.StringIO(line, newline="")))
        if len(rows) != 1:
            raise self._unreadable(f"line {index + 2} is not as it was written")
        return rows[0]

    def __iter__(self) -> Iterator[Row]:
        """Parse all rows, faster than one by one."""
        with self.path.open(encoding="utf-8", newline="") as file:
            file.readline()
            yield from self._parse(file)

    def _parse(self, lines: Iterable[str]) -> Iterator[Row]:
        try:
            for values in csv.reader(lines, strict=True):
                yield Row.from_text(values)
        except (OSError, ValueError, csv.Error) as error:
            raise self._unreadable(error) from None

    def _scan(self) -> NDArray[np.void]:
        table, positions = table_of(list(iter(self)))
        if len(table) != len(self._bytes):
            raise self._unreadable("its lines are not as they were written")
        return positions

    def _unreadable(self, reason: object) -> GalleryError:
        return GalleryError(f"{self.path}: cannot be read as places: {reason}")
