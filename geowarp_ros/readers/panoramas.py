"""Perspective views cut out of 360° panoramas, each with its heading and its camera.

Convention:
    A panorama is equirectangular: columns are headings, from half a turn left of its middle to half a turn right
    of it, rows are elevations from zenith to nadir. Its heading is that of its middle column, as in GPano's
    PoseHeadingDegrees. Views look to the horizon; x is right, y down, z forward (REP 103, optical frames).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import ImageError
from geowarp_ros.readers.source import Source, SourceImage
from geowarp_ros.types import Image

FIELD_OF_VIEW_DEG = 90.0
"""Horizontal and vertical field of view of a view: four of them go round."""

_HEADING = re.compile(rb"PoseHeadingDegrees\s*(?:=\s*[\"']|>)\s*([-+]?[0-9.]+)")
_HEAD_BYTES = 1 << 18  # of a file, in which its XMP stands


def cut_panoramas(found: Source, views: int) -> Source:
    """Return a source with so many views of each of its images, the first in its middle, then clockwise.

    A panorama without a heading of its own has that of its XMP; without either its views have none.
    """

    @lru_cache(maxsize=2)  # views of one panorama are asked in a row
    def decode(row: int) -> Image:
        return found.images[row].read()

    focal = 0.5 / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
    camera = Camera(1000, 1000, 1000 * focal, 1000 * focal, 499.5, 499.5, source="panorama")
    images: list[SourceImage] = []
    for row, image in enumerate(found.images):
        heading = image.place.heading_deg
        if math.isnan(heading) and image.path is not None:
            heading = _xmp_heading(image.path)
        for number in range(views):
            yaw = 360.0 * number / views
            name = f"{image.place.name}#{yaw:03.0f}"
            place = replace(image.place, name=name, heading_deg=(heading + yaw) % 360)
            images.append(SourceImage(place, partial(_view, decode, row, yaw, name), None, image.split, camera))
    return replace(found, images=tuple(images), description=f"{found.description}, {views} views of each panorama")


def view_of(panorama: Image, yaw_deg: float) -> Image:
    """Return the square view (H, H, 3) to the right of a panorama's middle, as sharp as the panorama there."""
    height, width = panorama.shape[:2]
    focal = width / (2 * math.pi)
    side = round(2 * focal * math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2))
    focal = side / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
    along = (np.arange(side) - (side - 1) / 2) / focal
    x, y = np.meshgrid(along, along)
    azimuth = np.radians(yaw_deg) + np.arctan(x)
    column = (azimuth / (2 * np.pi) + 0.5) % 1 * width - 0.5
    line = (0.5 + np.arctan2(y, np.hypot(x, 1)) / np.pi) * height - 0.5
    maps = column.astype(np.float32), line.astype(np.float32)
    return np.asarray(cv2.remap(panorama, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.uint8)


def _view(decode: Callable[[int], Image], row: int, yaw_deg: float, name: str) -> Image:
    panorama = decode(row)
    height, width = panorama.shape[:2]
    if abs(width - 2 * height) > 0.02 * height:
        raise ImageError(f"{name}: is {width}×{height} px, expected a 360° panorama, twice as wide as high")
    return view_of(panorama, yaw_deg)


def _xmp_heading(path: Path) -> float:
    """Return the heading that a file's XMP gives to its middle; NaN without one."""
    try:
        with path.open("rb") as file:
            found = _HEADING.search(file.read(_HEAD_BYTES))
    except OSError:
        return math.nan
    try:
        return float(found[1]) % 360 if found else math.nan
    except ValueError:
        return math.nan
