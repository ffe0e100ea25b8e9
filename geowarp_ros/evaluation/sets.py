"""Data sets for evaluation: a gallery to search, queries of known position, and places to leave out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers import Source, SourceImage, read_source
from geowarp_ros.types import FloatArray, Place


@dataclass(frozen=True, slots=True)
class Sets:
    """A gallery and its queries.

    Attributes:
        gallery: The images that are searched.
        queries: The images that are localised.
        description: One line for people.
    """

    gallery: Source
    queries: tuple[SourceImage, ...]
    description: str


def read_sets(
    directory: Path,
    *,
    gallery_split: str | None = None,
    query_split: str | None = None,
    every: int = 0,
    reading: Mapping[str, Any] | None = None,
) -> Sets:
    """Read the gallery and the queries of a data set.

    Args:
        directory: Anything :func:`geowarp_ros.readers.read_source` reads.
        gallery_split: None: ``test/gallery`` where there is a test split, else ``gallery``.
        query_split: None: ``test/queries`` where there is a test split, else ``query``.
        every: Instead of splits, every N-th image is a query and the others are the gallery; 1: each image is a
            query of all images, of which :class:`Neighbours` must leave out at least itself; 0: by splits.
        reading: Further arguments of :func:`read_source`.

    Raises:
        CameraError: A calibration file that is none.
        SourceError: No such split, no images in one, or images in both.
    """
    read = partial(read_source, directory, **(reading or {}))
    if every:
        return _every_nth(read(), every, directory)
    if gallery_split is None or query_split is None:
        inside = read().splits
        tree = any(name.startswith("test/") for name in inside)
        gallery_split = gallery_split or ("test/gallery" if tree else "gallery")
        query_split = query_split or ("test/queries" if tree else "query")
    gallery, queries = read(split=gallery_split), read(split=query_split).images
    if both := {image.place.name for image in gallery.images} & {image.place.name for image in queries}:
        raise SourceError(
            f"{directory}: {min(both)} is in both {gallery_split!r} and {query_split!r} ({len(both)} images are)"
        )
    return Sets(gallery, queries, f"{gallery_split} of {directory.name} searched for {query_split}")


def spread(queries: Sequence[SourceImage], limit: int) -> tuple[SourceImage, ...]:
    """Return at most ``limit`` of the queries, evenly spread over all of them; 0 returns all."""
    if not limit or limit >= len(queries):
        return tuple(queries)
    return tuple(queries[int(row)] for row in np.linspace(0, len(queries) - 1, limit))


class Distances:
    """Horizontal distances of gallery places from one place; altitudes do not count."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._frame = LocalFrame(places[0].latitude_deg, places[0].longitude_deg)
        self._positions_m = self._of(places)

    def __call__(self, place: Place) -> FloatArray:
        """Return the distances (N,), m, straight through the Earth: 10 km come out 1 mm short."""
        return np.asarray(np.linalg.norm(self._positions_m - self._of([place]), axis=1))

    def _of(self, places: Sequence[Place]) -> FloatArray:
        return self._frame.to_enu([p.latitude_deg for p in places], [p.longitude_deg for p in places])


def check_reachable(sets: Sets, thresholds_m: Sequence[float], apart: int = 0) -> dict[float, int]:
    """Count the queries without a gallery image within each threshold: they can only be missed.

    Args:
        sets: Gallery and queries.
        thresholds_m: Distances that count as near (m).
        apart: Images around the query that are left out, see :class:`Neighbours`.

    Raises:
        SourceError: No query has an image within the largest threshold.
    """
    places = [image.place for image in sets.gallery.images]
    distances, left_out = Distances(places), Neighbours(places, apart)
    nearest_m = np.zeros(len(sets.queries))
    for row, query in enumerate(sets.queries):
        distance_m = distances(query.place)
        distance_m[list(left_out(query.place))] = np.inf
        nearest_m[row] = distance_m.min()
    largest = max(thresholds_m)
    if nearest_m.min() > largest:
        raise SourceError(
            f"{sets.description}: none of {len(nearest_m)} queries has a gallery image within {largest:g} m; the "
            f"nearest pair is {nearest_m.min():.1f} m apart; do the positions agree, are the thresholds too "
            f"small, is too much left out (--exclude-neighbours {apart})?"
        )
    return {threshold: int((nearest_m > threshold).sum()) for threshold in thresholds_m}


class Neighbours:
    """Rows of a gallery that were taken within a number of images of a query, on the same pass.

    The last number in a file's name is its place in a sequence; the rest of the path names the sequence.
    """

    def __init__(self, places: Sequence[Place], apart: int) -> None:
        self._apart = apart
        self._taken: dict[str, list[tuple[int, int]]] = {}  # (row, number) by sequence
        for row, place in enumerate(places if apart else ()):
            sequence, number = sequence_and_number(place.name)
            self._taken.setdefault(sequence, []).append((row, number))

    def __call__(self, place: Place) -> frozenset[int]:
        """Return the rows within ``apart`` numbers of the place; none where ``apart`` is 0.

        Raises:
            SourceError: The place's name has no number.
        """
        if not self._apart:
            return frozenset()
        sequence, number = sequence_and_number(place.name)
        return frozenset(row for row, other in self._taken.get(sequence, ()) if abs(other - number) <= self._apart)


def sequence_and_number(name: str) -> tuple[str, int]:
    """Split ``images/IMG_0446.jpg`` into its sequence ``images/IMG_`` and its number 446.

    Raises:
        SourceError: No digits in the file's name.
    """
    stem, dot, suffix = name.rpartition(".")
    stem = stem if dot else suffix
    found = re.search(r"(\d+)\D*$", stem.rpartition("/")[2])
    if not found:
        raise SourceError(f"{name}: has no number in its name by which to tell how far apart images were taken")
    return stem[: -len(found.group(0))], int(found.group(1))


def _every_nth(found: Source, every: int, directory: Path) -> Sets:
    count = len(found.images)
    if not 1 <= every <= count:
        raise SourceError(f"{directory}: every = {every} of its {count} images, expected 1 to {count}")
    if every == 1:
        return Sets(found, found.images, f"{directory.name}, each image a query of all others")
    kept = tuple(image for row, image in enumerate(found.images) if row % every != every - 1)
    gallery = replace(found, images=kept)
    return Sets(gallery, found.images[every - 1 :: every], f"{directory.name}, one image in {every} a query")
