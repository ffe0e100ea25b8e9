"""A drive to be judged: images in the order of their stamps and the true position of each, where it is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers import Source
from geowarp_ros.types import FloatArray, Image

NS = 1_000_000_000

StampArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Position:
    """WGS84 degrees and metres above the ellipsoid; the altitude is NaN where unknown."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float = math.nan


@dataclass(frozen=True, slots=True)
class DriveImage:
    """One image of the drive, not decoded yet.

    Attributes:
        name: Unique within the drive.
        stamp_ns: When it was taken; 0 where unknown.
        read: Decodes it; raises ImageError.
        truth: Where it was taken; None where the truth has a gap.
        frame_id: The camera's frame.
    """

    name: str
    stamp_ns: int
    read: Callable[[], Image]
    truth: Position | None = None
    frame_id: str = ""


@dataclass(frozen=True, slots=True)
class Drive:
    """Images with truth.

    Attributes:
        title: One line for people.
        images: In the order of their stamps.
        notes: What a reader of the figures should know, in words.
        timed: Whether the stamps are true; otherwise they only keep the order.
    """

    title: str
    images: tuple[DriveImage, ...]
    notes: tuple[str, ...] = ()
    timed: bool = True

    def thinned(self, every: int = 1, limit: int = 0) -> Drive:
        """Keep every N-th image, at most ``limit`` of them (0: all)."""
        images = self.images[::every]
        return replace(self, images=images[:limit] if limit else images)


@dataclass(frozen=True, slots=True)
class Track:
    """True positions over time.

    Attributes:
        stamps_ns: (N,) ascending, no stamp twice.
        latitude_deg: (N,).
        longitude_deg: (N,).
        altitude_m: (N,); NaN where unknown.
    """

    stamps_ns: StampArray
    latitude_deg: FloatArray
    longitude_deg: FloatArray
    altitude_m: FloatArray

    @classmethod
    def of(cls, rows: Sequence[tuple[int, float, float, float]]) -> Track:
        """Build a track from (stamp, latitude, longitude, altitude), any order; of equal stamps the last."""
        ordered = sorted({stamp_ns: rest for stamp_ns, *rest in rows}.items())
        values = np.array([rest for _, rest in ordered], np.float64).reshape(-1, 3)
        return cls(np.array([stamp for stamp, _ in ordered], np.int64), values[:, 0], values[:, 1], values[:, 2])

    def shifted(self, offset_s: float) -> Track:
        """Return the track as its clock would have read ``offset_s`` later."""
        return replace(self, stamps_ns=self.stamps_ns + round(offset_s * NS))

    def at(self, stamp_ns: int, max_gap_s: float) -> Position | None:
        """Position at a time, linear between its neighbours.

        None outside the track, and where the neighbours are farther apart than twice ``max_gap_s`` or the nearer
        one is farther away than it: a straight line through a tunnel is no truth.
        """
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
            return self._position(after, after, 0.0)
        if after in (0, len(self.stamps_ns)):
            return None
        start, end = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
        if min(stamp_ns - start, end - stamp_ns) > max_gap_s * NS or end - start > 2 * max_gap_s * NS:
            return None
        return self._position(after - 1, after, (stamp_ns - start) / (end - start))

    def _position(self, before: int, after: int, fraction: float) -> Position:
        # in a plane about the first of the two: no seam at the antimeridian
        frame = LocalFrame(float(self.latitude_deg[before]), float(self.longitude_deg[before]))
        enu = frame.to_enu(self.latitude_deg[after], self.longitude_deg[after], 0.0)
        latitude, longitude, _ = frame.to_geodetic(fraction * enu)
        climb = self.altitude_m[after] - self.altitude_m[before]
        return Position(float(latitude), float(longitude), float(self.altitude_m[before] + fraction * climb))


def drive_from_source(source: Source) -> Drive:
    """Take any source of geotagged images as a drive: each image's own position is its truth.

    Images without a stamp are one second apart, so that trajectories and bags can be written.
    """
    if not source.images:
        raise SourceError(f"{source.description}: no images, nothing to evaluate")
    stamped = all(image.place.stamp_ns for image in source.images)
    images = [
        DriveImage(
            name=image.place.name,
            stamp_ns=image.place.stamp_ns if stamped else (1 + row) * NS,
            read=image.read,
            truth=Position(image.place.latitude_deg, image.place.longitude_deg, image.place.altitude_m),
        )
        for row, image in enumerate(source.images)
    ]
    if stamped:
        images.sort(key=lambda image: image.stamp_ns)
    notes = () if stamped else ("the images carry no stamps; they are taken as one second apart",)
    return Drive(source.description, tuple(images), notes + _left_out(source), timed=stamped)


def _left_out(source: Source) -> tuple[str, ...]:
    if not source.skipped:
        return ()
    first = source.skipped[0]
    return (f"{len(source.skipped)} images left out, the first {first.name}: {first.reason}",)
