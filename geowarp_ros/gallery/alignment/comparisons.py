"""``alignment/pairs.bin``: pairs of photographs compared so far, so that none is compared twice.

It is a cache: the first line, JSON, names the segments that its rows count; a record follows for each pair, with a
checksum. What a killed run left in halves, or what is of segments that are gone or changed, is forgotten.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from geowarp_ros.errors import GalleryError
from geowarp_ros.files import write_whole
from geowarp_ros.gallery.alignment.pairs import Pair
from geowarp_ros.gallery.manifest import ALIGNMENT, Segment
from geowarp_ros.gallery.photographs import CAMERA_NUMBERS, CAMERAS, DESCRIPTORS, POINTS

PAIRS = "pairs.bin"
VERSION = 1
"""Version of the comparison: results of another are forgotten."""

SAME_FOCAL = 0.02
"""Relative difference of focal lengths up to which a comparison stays what it is."""
NOTHING: Mapping[tuple[int, int], float] = MappingProxyType({})

_HEAD = struct.Struct("<II14dI")
"""First, second, rotation, direction, parallax, share, number of matches."""


class ComparedPairs(MutableMapping[tuple[int, int], Pair]):
    """Pairs by their stored rows; each that is set is appended to the file at once.

    Args:
        folder: Folder of the gallery, locked.
        segments: Segments in the manifest's order.
        focal_px: Estimated focal lengths by size: pairs compared with others are forgotten.
    """

    def __init__(
        self, folder: Path, segments: Sequence[Segment], focal_px: Mapping[tuple[int, int], float] = NOTHING
    ) -> None:
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._path = folder / ALIGNMENT / PAIRS
        self._path.parent.mkdir(exist_ok=True)
        here: dict[str, Any] = {"version": VERSION, "segments": [_identity(segment) for segment in segments]}
        here["focal_px"] = {"×".join(map(str, size)): focal for size, focal in sorted(focal_px.items())}
        head = json.dumps(here).encode() + b"\n"
        before, whole = self._read(here)
        if before != here or not whole:
            records = b"".join(_packed(pair) for pair in self._pairs.values())
            write_whole(self._path, head + records, GalleryError)

    def __getitem__(self, rows: tuple[int, int]) -> Pair:
        """Return a pair."""
        return self._pairs[rows]

    def __setitem__(self, rows: tuple[int, int], pair: Pair) -> None:
        """Add a pair."""
        self._pairs[rows] = pair
        with self._path.open("ab") as file:
            file.write(_packed(pair))

    def __delitem__(self, rows: tuple[int, int]) -> None:
        """Forget a pair, until the file is read again."""
        del self._pairs[rows]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over the rows of the pairs."""
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def _read(self, here: dict[str, Any]) -> tuple[Any, bool]:
        """Take over what the file has of these segments; returns its first line, and whether all was read."""
        try:
            line, content = self._path.read_bytes().split(b"\n", 1)
            before = json.loads(line)
            if before["version"] != VERSION:
                return before, False
            focal, used = here["focal_px"], before.get("focal_px", {})
            if focal.keys() != used.keys() or any(abs(used[k] / focal[k] - 1) > SAME_FOCAL for k in focal):
                return before, False
            here["focal_px"] = used
            moved = _moved(before["segments"], here["segments"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # none there, or it is no such line
            return None, False
        at = 0
        while (record := _unpacked(content, at)) is not None:
            pair, at = record
            first, second = (moved.get(row, -1) for row in (pair.first, pair.second))
            if -1 < first < second:
                self._pairs[first, second] = replace(pair, first=first, second=second)
        return before, at == len(content)


def _identity(segment: Segment) -> list[Any]:
    names = (POINTS, DESCRIPTORS, CAMERAS, CAMERA_NUMBERS)
    sums = [segment.files[name].blake2b if name in segment.files else "" for name in names]
    return [segment.name, segment.images, *sums]


def _moved(before: list[list[Any]], here: list[list[Any]]) -> dict[int, int]:
    """Return the row now of each row then, of the segments that are the same."""
    starts, row = {}, 0
    for segment in here:
        starts[json.dumps(segment)] = row
        row += segment[1]
    moved: dict[int, int] = {}
    row = 0
    for segment in before:
        start = starts.get(json.dumps(segment))
        if start is not None:
            moved |= {row + k: start + k for k in range(segment[1])}
        row += segment[1]
    return moved


def _packed(pair: Pair) -> bytes:
    numbers = (*pair.rotation.ravel(), *pair.direction, pair.parallax_rad, pair.share)
    head = _HEAD.pack(pair.first, pair.second, *numbers, len(pair))
    body = head + np.ascontiguousarray(pair.matches, "<i4").tobytes()
    return body + struct.pack("<I", zlib.crc32(body))


def _unpacked(content: bytes, at: int) -> tuple[Pair, int] | None:
    """Return the record that begins there, and where it ends; None where it is not whole."""
    if at + _HEAD.size > len(content):
        return None
    first, second, *numbers, count = _HEAD.unpack_from(content, at)
    end = at + _HEAD.size + 8 * count
    if end + 4 > len(content) or zlib.crc32(content[at:end]) != struct.unpack_from("<I", content, end)[0]:
        return None
    matches = np.frombuffer(content, "<i4", 2 * count, at + _HEAD.size).reshape(-1, 2).astype(np.int32)
    rotation, direction = np.array(numbers[:9]).reshape(3, 3), np.array(numbers[9:12])
    return Pair(first, second, rotation, direction, numbers[12], matches, numbers[13]), end + 4
