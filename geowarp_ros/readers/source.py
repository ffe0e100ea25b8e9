"""The result of every reader: geotagged images, decoded on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import SUFFIXES, lacking, read_image
from geowarp_ros.readers.camera_files import CameraFiles, exif_camera
from geowarp_ros.types import Image, Place

RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A geotagged image that is not decoded yet.

    Attributes:
        place: Name and position.
        read: Decodes the image, from any thread, or raises ImageError; a bag's images are quickest in order.
        path: Image file; None in a bag.
        split: Split, such as ``gallery`` or ``test/queries``; empty where the source has none.
        camera: The camera it was taken with, at the size it was calibrated for; None where at most its EXIF tells.
    """

    place: Place
    read: Callable[[], Image]
    path: Path | None = None
    split: str = ""
    camera: Camera | None = None

    def camera_at(self, width_px: int, height_px: int) -> Camera | None:
        """Return its camera for the image at this size; None where nothing tells.

        A file's EXIF is read only now, and only without another camera: sources list their images unopened.

        Raises:
            CameraError: The aspect ratio differs: the calibration is of another camera.
        """
        camera = self.camera or (self.path and exif_camera(self.path)) or None
        return camera and camera.scaled_to(width_px, height_px)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was left out, or a bag of which a part was.

    Attributes:
        name: Name of the image or the bag.
        reason: Reason in words, without the name.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A collection of geotagged images.

    Attributes:
        images: Images in the same order at every reading.
        skipped: Images left out, with the reason.
        description: One line for people.
        local: Whether positions are metres of a frame that is nowhere on the earth, laid around 0°, 0° by
            :func:`geowarp_ros.geodesy.local_to_wgs84`.
    """

    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...] = ()
    description: str = ""
    local: bool = False

    @property
    def splits(self) -> dict[str, int]:
        """Number of images in each split."""
        return dict(sorted(Counter(image.split for image in self.images).items()))


def printable(text: str) -> str:
    r"""Return a text with ``\xff`` and the like for the bytes of a file's name that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def not_read(path: Path) -> str:
    """Return why a file whose suffix is a photograph's is not read here; empty if it is."""
    if path.suffix.lower() in RAW_SUFFIXES:
        return "raw photographs, which are not read: export them as DNG or JPEG"
    lack = lacking(SUFFIXES.get(path.suffix.lower(), ""))
    return f"in {lack}" if lack else ""


def centre_of(images: Sequence[SourceImage]) -> tuple[float, float]:
    """Return latitude and longitude of the middle of at least one image's positions, wherever outliers lie."""
    first = images[0].place
    frame = LocalFrame(first.latitude_deg, first.longitude_deg)
    enu = frame.to_enu([i.place.latitude_deg for i in images], [i.place.longitude_deg for i in images])
    latitude, longitude, _ = frame.to_geodetic(np.median(enu, axis=0))
    return float(latitude), float(longitude)


def image_file(place: Place, path: Path, cameras: CameraFiles, split: str = "") -> SourceImage:
    """Return an image that is read from ``path``, with the camera of the ``camera.yaml`` beside or above it."""
    return SourceImage(place, partial(read_image, path), path, split, cameras.of(path))


def canonical_split(split: str) -> str:
    """Return a split in lower case, with ``database`` as ``gallery`` and ``query`` as ``queries``."""
    names = {"database": "gallery", "query": "queries"}
    return "/".join(names.get(part, part) for part in split.strip("/").lower().split("/"))


def count_reasons(skipped: Sequence[Skipped]) -> str:
    """Return reasons with their counts, such as ``12 without a GPS position, 1 absent``, commonest first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(s.reason for s in skipped).most_common())
