"""Geotagged images from a folder, by their names (``@utm_east@utm_north@…@.jpg``) or their EXIF."""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import ExifTags
from PIL import Image as Pillow

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.geodesy import parse_utm_zone, utm_to_wgs84
from geowarp_ros.images import FORMATS, check_size
from geowarp_ros.readers.camera_files import CameraFiles
from geowarp_ros.readers.source import IMAGE_SUFFIXES, Skipped, Source, SourceImage, canonical_split, image_file
from geowarp_ros.types import Place

_SPLITS = {"train", "val", "test", "gallery", "queries"}
_UTM_NAME = re.compile(
    "@([^@]+)@([^@]+)@"  # easting, northing
    "(?:(0?[1-9]|[1-5][0-9]|60)@([C-HJ-NP-X])@"  # zone number, band of the military grid
    "(?:(?:[^@]*@){4}([^@]*)@)?)?"  # latitude, longitude, panorama, tile; heading
)
"""Name of an image: @easting@northing@, and in data sets that name a zone also @zone@band@…@heading@."""


def read_folder(folder: Path, utm_zone: str | None) -> Source:
    """Read a folder tree: positions from the names if any begins with ``@``, from EXIF otherwise.

    Args:
        folder: The folder.
        utm_zone: Zone and hemisphere of names that give none, such as ``32N``; None refuses those.

    Raises:
        SourceError: There is no image, or a name without a zone and no ``utm_zone``.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        raise SourceError(
            f"{folder}: no images in it, expected {', '.join(IMAGE_SUFFIXES)}, a positions.csv or a ROS bag"
        )
    if any(path.name.startswith("@") for path in files):
        return _read_utm_names(folder, files, utm_zone)
    return _read_exif(folder, files)


def split_of(relative: Path) -> str:
    """Return the split that the folders of a path name: ``train/gallery`` for ``images/train/database/x.jpg``."""
    return "/".join(name for name in canonical_split(relative.parent.as_posix()).split("/") if name in _SPLITS)


def _read_utm_names(folder: Path, files: list[Path], utm_zone: str | None) -> Source:
    given = parse_utm_zone(utm_zone) if utm_zone else None
    skipped: list[Skipped] = []
    by_zone: dict[tuple[int, bool], list[tuple[Path, float, float, float]]] = defaultdict(list)
    for path in files:
        match = _UTM_NAME.match(path.name)
        east, north = (_number(match[1]), _number(match[2])) if match else (math.nan, math.nan)
        if match is None or not (0 < east < 1_000_000 and 0 <= north <= 10_000_000):
            skipped.append(Skipped(_name(folder, path), "without @utm_east@utm_north@ in its name"))
            continue
        own = (int(match[3]), match[4] >= "N") if match[3] else None  # bands from N lie north of the equator
        zone = own or given
        if zone is None:
            raise SourceError(
                f"{path}: the name gives no UTM zone; give it once as utm_zone (--utm-zone), such as 32N"
            )
        by_zone[zone].append((path, east, north, _heading(match[5])))
    images: list[SourceImage] = []
    cameras = CameraFiles(folder)
    for (zone_number, northern), members in by_zone.items():
        paths, east_m, north_m, headings = zip(*members, strict=True)
        degrees = zip(*utm_to_wgs84(east_m, north_m, zone_number, northern), strict=True)
        for path, (latitude, longitude), heading in zip(paths, degrees, headings, strict=True):
            place = Place(_name(folder, path), float(latitude), float(longitude), heading_deg=heading)
            images.append(image_file(place, path, cameras, split_of(path.relative_to(folder))))
    images.sort(key=lambda image: image.place.name)
    return Source(tuple(images), tuple(skipped), f"folder {folder}, positions from the names")


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _read_exif(folder: Path, files: list[Path]) -> Source:
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
    cameras = CameraFiles(folder)
    for path in files:
        name = _name(folder, path)
        try:
            place = _exif_place(name, path)
        except (ImageError, OSError, SyntaxError, ValueError, struct.error, Pillow.DecompressionBombError):
            skipped.append(Skipped(name, "unreadable"))
            continue
        if place is None:
            skipped.append(Skipped(name, "without a GPS position in its EXIF"))
        else:
            images.append(image_file(place, path, cameras, split_of(path.relative_to(folder))))
    return Source(tuple(images), tuple(skipped), f"folder {folder}, positions from EXIF")


def _exif_place(name: str, path: Path) -> Place | None:
    """Read the GPS tags (EXIF 2.32, sec. 4.6.6) from the file's header; None without a position."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and large images are judged by what comes out
        with Pillow.open(path, formats=FORMATS) as image:
            check_size(image.width, image.height, name)  # a PNG's EXIF may stand behind its pixels: they are read
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    tag = ExifTags.GPS
    latitude = _angle(gps.get(tag.GPSLatitude), gps.get(tag.GPSLatitudeRef) == "S")
    longitude = _angle(gps.get(tag.GPSLongitude), gps.get(tag.GPSLongitudeRef) == "W")
    void = gps.get(tag.GPSStatus) == "V"  # the receiver had no fix
    if void or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    altitude = _number(gps.get(tag.GPSAltitude))
    below = gps.get(tag.GPSAltitudeRef) in (b"\x01", 1)
    # a direction from magnetic north would need the declination of its day and place
    magnetic = gps.get(tag.GPSImgDirectionRef) == "M"
    return Place(
        name,
        latitude,
        longitude,
        altitude_m=-altitude if below else altitude,
        heading_deg=math.nan if magnetic else _heading(gps.get(tag.GPSImgDirection)),
        stamp_ns=_gps_time_ns(gps.get(tag.GPSDateStamp), gps.get(tag.GPSTimeStamp)),
    )


def _angle(value: Any, negative: bool) -> float:
    """Convert degrees, minutes and seconds to degrees; NaN where they are not three numbers."""
    if not isinstance(value, tuple) or len(value) != 3:
        return math.nan
    degrees, minutes, seconds = (_number(part) for part in value)
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if negative else angle


def _number(value: Any) -> float:
    """Convert a text or an EXIF rational; NaN where it is absent, no number, or divided by zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _heading(value: Any) -> float:
    heading = _number(value)
    return heading if 0 <= heading <= 360 else math.nan


def _gps_time_ns(date: Any, time: Any) -> int:
    """Convert the GPS date and time (UTC) to ns since 1970; 0 where absent. The camera's own clock has no zone."""
    try:
        hours, minutes, seconds = (float(part) for part in time)
        day = datetime.strptime(str(date).strip("\0 "), "%Y:%m:%d").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0
    stamp_s = day.timestamp() + 3600 * hours + 60 * minutes + seconds
    return round(stamp_s * 1000) * 1_000_000 if math.isfinite(stamp_s) and stamp_s > 0 else 0
