"""A drive to be judged: images in the order of their stamps, with true positions where they are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.session import Session
from geowarp_ros.readers import Source
from geowarp_ros.types import FloatArray, Image

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Position:
    """A true position: WGS84 degrees and metres above the ellipsoid; the altitude is NaN if unknown."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float = math.nan


@dataclass(frozen=True, slots=True)
class DriveImage:
    """One image of the drive, not decoded yet.

    Attributes:
        name: Unique within the drive.
        stamp_ns: Time of the image; 0 if unknown.
        read: Decodes it; raises ImageError.
        truth: True position; None in a gap of the truth.
        frame_id: Frame of the camera.
        camera_at: Its camera for the image at a width and height (px), None if unknown; raises CameraError.
    """

    name: str
    stamp_ns: int
    read: Callable[[], Image]
    truth: Position | None = None
    frame_id: str = ""
    camera_at: Callable[[int, int], Camera | None] = lambda width_px, height_px: None


@dataclass(frozen=True, slots=True)
class Event:
    """A message for a session other than an image: odometry, or a fix of the prior.

    Attributes:
        stamp_ns: Time of the message.
        tell: Hands it to the session.
    """

    stamp_ns: int
    tell: Callable[[Session], object]


@dataclass(frozen=True, slots=True)
class Drive:
    """Images with truth.

    Attributes:
        title: One line for people.
        images: The images, in the order of their stamps.
        notes: Remarks for readers of the figures.
        timed: Whether the stamps are true; otherwise they only keep the order.
        events: Odometry and fixes of the prior for a session, in the order of the stamps.
    """

    title: str
    images: tuple[DriveImage, ...]
    notes: tuple[str, ...] = ()
    timed: bool = True
    events: tuple[Event, ...] = ()

    def thinned(self, every: int = 1, limit: int = 0) -> Drive:
        """Keep every N-th image, at most ``limit`` of them (0: all)."""
        images = self.images[::every]
        return replace(self, images=images[:limit] if limit else images)


@dataclass(frozen=True, slots=True)
class Track:
    """True positions over time.

    Attributes:
        stamps_ns: (N,) stamps, ascending, none twice.
        positions: (N, 3) WGS84 latitude and longitude (deg) and altitude (m; NaN if unknown).
    """

    stamps_ns: NDArray[np.int64]
    positions: FloatArray

    @classmethod
    def of(cls, rows: Sequence[tuple[int, float, float, float]]) -> Track:
        """Build a track from rows (stamp, latitude, longitude, altitude), any order; of equal stamps the last."""
        ordered = sorted({stamp_ns: rest for stamp_ns, *rest in rows}.items())
        positions = np.array([rest for _, rest in ordered], np.float64).reshape(-1, 3)
        return cls(np.array([stamp for stamp, _ in ordered], np.int64), positions)

    def shifted(self, offset_s: float) -> Track:
        """Return the track with ``offset_s`` added to its stamps."""
        return replace(self, stamps_ns=self.stamps_ns + round(offset_s * NS))

    def at(self, stamp_ns: int, max_gap_s: float) -> Position | None:
        """Return the position at a time, linear between its neighbours.

        None outside the track, and if the neighbours are more than twice ``max_gap_s`` apart or the nearer one
        more than ``max_gap_s`` away: a straight line through a tunnel is no truth.
        """
        if not len(self.stamps_ns) or not self.stamps_ns[0] <= stamp_ns <= self.stamps_ns[-1]:
            return None
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        before = after if self.stamps_ns[after] == stamp_ns else after - 1
        start, end = int(self.stamps_ns[before]), int(self.stamps_ns[after])
        if min(stamp_ns - start, end - stamp_ns) > max_gap_s * NS or end - start > 2 * max_gap_s * NS:
            return None
        fraction = (stamp_ns - start) / max(end - start, 1)
        # in a plane about the first of the two: no seam at the antimeridian
        here, there = self.positions[before], self.positions[after]
        frame = LocalFrame(float(here[0]), float(here[1]))
        latitude, longitude, _ = frame.to_geodetic(fraction * frame.to_enu(there[0], there[1], 0.0))
        return Position(float(latitude), float(longitude), float(here[2] + fraction * (there[2] - here[2])))


def drive_from_source(source: Source) -> Drive:
    """Return a source of geotagged images as a drive: the position of each image is its truth.

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
            camera_at=image.camera_at,
        )
        for row, image in enumerate(source.images)
    ]
    if stamped:
        images.sort(key=lambda image: image.stamp_ns)
    notes = [] if stamped else ["the images carry no stamps; they are taken as one second apart"]
    for first in source.skipped[:1]:
        notes.append(f"{len(source.skipped)} images left out, the first {first.name}: {first.reason}")
    return Drive(source.description, tuple(images), tuple(notes), timed=stamped)
