"""Folders of images whose positions stand in their names (``@utm_east@utm_north@…@.jpg``) or in their EXIF."""

from __future__ import annotations

import math
import struct
import warnings
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags
from PIL import Image as Pillow

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.geodesy import parse_utm_zone, utm_to_wgs84
from geowarp_ros.images import FORMATS, check_size
from geowarp_ros.readers.source import IMAGE_SUFFIXES, Skipped, Source, SourceImage, image_file
from geowarp_ros.types import Place

_SPLITS = {"train", "val", "test", "gallery", "queries"}
_OTHER_NAMES = {"database": "gallery", "query": "queries"}
_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of the military grid, from 80° S; N and later lie north of the equator


def read_folder(folder: Path, utm_zone: str | None) -> Source:
    """Read a folder tree: by its names if any begins with ``@``, by EXIF otherwise.

    Raises:
        SourceError: No images in it, or names without a zone and no ``utm_zone``.
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
    """Return the split that a path's folders name: ``images/train/database/x.jpg`` is in ``train/gallery``."""
    names = [_OTHER_NAMES.get(part.lower(), part.lower()) for part in relative.parts[:-1]]
    return "/".join(name for name in names if name in _SPLITS)


def _read_utm_names(folder: Path, files: list[Path], utm_zone: str | None) -> Source:
    given = parse_utm_zone(utm_zone) if utm_zone else None
    skipped: list[Skipped] = []
    by_zone: dict[tuple[int, bool], list[tuple[Path, list[str]]]] = defaultdict(list)
    for path in files:
        fields = path.name.split("@")
        if len(fields) < 4 or fields[0] or not _is_utm(fields[1], fields[2]):
            skipped.append(Skipped(_name(folder, path), "without @utm_east@utm_north@ in its name"))
            continue
        zone = _zone_of(fields) or given
        if zone is None:
            raise SourceError(
                f"{path}: the name gives no UTM zone; give it once as utm_zone (--utm-zone), such as 32N"
            )
        by_zone[zone].append((path, fields))
    images: list[SourceImage] = []
    for (zone_number, northern), members in by_zone.items():
        metres = np.array([[float(fields[1]), float(fields[2])] for _, fields in members])
        latitudes, longitudes = utm_to_wgs84(metres[:, 0], metres[:, 1], zone_number, northern)
        for (path, fields), latitude, longitude in zip(members, latitudes, longitudes, strict=True):
            place = Place(_name(folder, path), float(latitude), float(longitude), heading_deg=_heading_of(fields))
            images.append(image_file(place, path, split_of(path.relative_to(folder))))
    images.sort(key=lambda image: image.place.name)
    return Source(tuple(images), tuple(skipped), f"folder {folder}, positions from the names")


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _is_utm(east: str, north: str) -> bool:
    try:
        return 0 < float(east) < 1_000_000 and 0 <= float(north) <= 10_000_000
    except ValueError:
        return False


def _zone_of(fields: list[str]) -> tuple[int, bool] | None:
    """Read zone number and band letter from the third and fourth field, where data sets put them."""
    if len(fields) < 6 or not fields[3].isdecimal() or not 1 <= int(fields[3]) <= 60:
        return None
    if len(fields[4]) != 1 or fields[4] not in _BANDS:
        return None
    return int(fields[3]), fields[4] >= "N"


def _heading_of(fields: list[str]) -> float:
    """Read the heading from the ninth field, where data sets that name a zone put it; NaN where there is none."""
    if _zone_of(fields) is None or len(fields) < 11:
        return math.nan
    try:
        heading = float(fields[9])
    except ValueError:
        return math.nan
    return heading if 0 <= heading <= 360 else math.nan


def _read_exif(folder: Path, files: list[Path]) -> Source:
    images: list[SourceImage] = []
    skipped: list[Skipped] = []
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
            images.append(image_file(place, path, split_of(path.relative_to(folder))))
    return Source(tuple(images), tuple(skipped), f"folder {folder}, positions from EXIF")


def _exif_place(name: str, path: Path) -> Place | None:
    """Read the GPS tags (EXIF 2.32, sec. 4.6.6); only the header of the file is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and large images are judged by what comes out
        with Pillow.open(path, formats=FORMATS) as image:
            check_size(image.width, image.height, name)  # a PNG's EXIF may stand behind its pixels: they are read
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    tag = ExifTags.GPS
    latitude = _angle(gps.get(tag.GPSLatitude), gps.get(tag.GPSLatitudeRef) == "S")
    longitude = _angle(gps.get(tag.GPSLongitude), gps.get(tag.GPSLongitudeRef) == "W")
    void = gps.get(tag.GPSStatus) == "V"  # the receiver had no fix when the picture was taken
    if void or not (abs(latitude) <= 90 and abs(longitude) <= 180) or latitude == longitude == 0:
        return None
    altitude = _rational(gps.get(tag.GPSAltitude))
    below = gps.get(tag.GPSAltitudeRef) in (b"\x01", 1)
    # a direction from magnetic north would need the declination of its day and place
    heading = math.nan if gps.get(tag.GPSImgDirectionRef) == "M" else _rational(gps.get(tag.GPSImgDirection))
    return Place(
        name,
        latitude,
        longitude,
        altitude_m=-altitude if below else altitude,
        heading_deg=heading if 0 <= heading <= 360 else math.nan,
        stamp_ns=_gps_time_ns(gps.get(tag.GPSDateStamp), gps.get(tag.GPSTimeStamp)),
    )


def _angle(value: Any, negative: bool) -> float:
    """Degrees, minutes and seconds as one number of degrees; NaN where they are not three numbers."""
    if not isinstance(value, tuple) or len(value) != 3:
        return math.nan
    degrees, minutes, seconds = (_rational(part) for part in value)
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if negative else angle


def _rational(value: Any) -> float:
    """An EXIF rational as a float; NaN where it is absent, no number, or divided by zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _gps_time_ns(date: Any, time: Any) -> int:
    """UTC of the GPS tags in ns since 1970; 0 where absent. Camera clocks without a zone are not used."""
    try:
        hours, minutes, seconds = (float(part) for part in time)
        day = datetime.strptime(str(date).strip("\0 "), "%Y:%m:%d").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0
    stamp_s = day.timestamp() + 3600 * hours + 60 * minutes + seconds
    return round(stamp_s * 1000) * 1_000_000 if math.isfinite(stamp_s) and stamp_s > 0 else 0
