"""Where a photograph was taken, as its EXIF tells it (Exif 3.0, GPS attributes), or why it tells no place.

Writers spell the tags in many ways. What has one meaning is read; what has none, or could have two, is left out
with its reason: a photograph on the wrong hemisphere is worse than none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import ExifTags

from geowarp_ros.errors import PluginError
from geowarp_ros.images import UNREADABLE, check_size, open_image
from geowarp_ros.readers.positions import ALTITUDES_M, MAX_ERROR_M
from geowarp_ros.readers.source import Skipped
from geowarp_ros.types import Place

NO_POSITION = "without a GPS position in its EXIF"

NORTH_SOUTH = {"N": 1, "NORTH": 1, "S": -1, "SOUTH": -1}
EAST_WEST = {"E": 1, "EAST": 1, "W": -1, "WEST": -1}
ABOVE_BELOW = {0: 1, 1: -1, 2: 1, 3: -1}
"""GPSAltitudeRef: above and below the ellipsoid (before Exif 3.0 sea level), above and below sea level."""

DATUMS = (
    "WGS84",
    "WGS1984",
    "WORLDGEODETICSYSTEM1984",
    "EPSG4326",
    "ITRF",
    "ETRS89",
    "JGD2011",
    "GDA2020",
    "CGCS2000",
    "SIRGAS2000",
)
"""How a GPSMapDatum begins, without blanks and hyphens, that is WGS-84 or keeps within a metre of it."""

RANGE_ERROR_M = 5.0
"""Error of a position for each unit of GPSDOP, where no error is stated."""

_tag = ExifTags.GPS


def exif_place(name: str, path: Path) -> Place | Skipped:
    """Return the place of an image file by the GPS tags of its header, or why it has none."""
    try:
        tags = _gps_tags(name, path)
    except PluginError as error:
        return Skipped(name, f"in {error.args[1]}")
    except UNREADABLE:
        return Skipped(name, "unreadable")
    reason = _not_a_fix(tags)
    if reason:
        return Skipped(name, reason)
    latitude = signed(_angle(tags.get(_tag.GPSLatitude)), _text(tags.get(_tag.GPSLatitudeRef)), NORTH_SOUTH)
    longitude = signed(_angle(tags.get(_tag.GPSLongitude)), _text(tags.get(_tag.GPSLongitudeRef)), EAST_WEST)
    if latitude is None:
        return Skipped(name, "whose EXIF does not tell north from south (GPSLatitudeRef)")
    if longitude is None:
        return Skipped(name, "whose EXIF does not tell east from west (GPSLongitudeRef)")
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # false for NaN too
        return Skipped(name, NO_POSITION)
    return Place(
        name,
        latitude,
        longitude,
        altitude_m=_altitude(tags.get(_tag.GPSAltitude), tags.get(_tag.GPSAltitudeRef)),
        heading_deg=_heading(tags.get(_tag.GPSImgDirection), _text(tags.get(_tag.GPSImgDirectionRef))),
        stamp_ns=_gps_time_ns(tags.get(_tag.GPSDateStamp), tags.get(_tag.GPSTimeStamp)),
    )


def _gps_tags(name: str, path: Path) -> Mapping[int, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF and large images are judged by what comes out
        with open_image(path, name, pixels=False) as image:
            check_size(image.width, image.height, name)  # a PNG's EXIF may stand behind its pixels: they are read
            return dict(image.getexif().get_ifd(ExifTags.IFD.GPSInfo))


def _not_a_fix(tags: Mapping[int, Any]) -> str:
    """Return why the position, whatever it is, is not where the photograph was taken in WGS-84; empty if it is."""
    if _text(tags.get(_tag.GPSStatus)).startswith("V"):
        return "whose GPS had no fix (GPSStatus V)"
    datum = _text(tags.get(_tag.GPSMapDatum))
    if datum and not is_wgs84(datum):
        return f"with a GPS position in the datum {datum}, not in WGS-84"
    stated_m, dilution = (_number(tags.get(each)) for each in (_tag.GPSHPositioningError, _tag.GPSDOP))
    if (stated_m if stated_m > 0 else RANGE_ERROR_M * dilution) > MAX_ERROR_M:  # false for NaN
        return f"with a GPS position that may be off by more than {MAX_ERROR_M:g} m, as its EXIF says"
    method = tags.get(_tag.GPSProcessingMethod, "")  # behind the name of its encoding, or not; of one or two bytes
    if b"CELLID" in (method if isinstance(method, bytes) else str(method).encode()).replace(b"\0", b"").upper():
        return "with the position of a radio cell in its EXIF (GPSProcessingMethod CELLID)"
    return ""


def _angle(value: Any) -> float:
    """Convert degrees, minutes and seconds to degrees, negative where a sign says so; NaN where they are no angle.

    Whole degrees and minutes come before seconds, and the last that is given may have a fraction.
    """
    parts = [_number(part) for part in (value if isinstance(value, tuple) else (value,))]
    if len(parts) not in (1, 2, 3) or not all(math.isfinite(part) for part in parts):
        return math.nan
    negative, *rest = [part < 0 for part in parts if part] or [False]
    if len(set(rest)) > 1 or (rest and rest[0] > negative):  # the sign stands at the first, or at all
        return math.nan
    degrees, minutes, seconds = (abs(part) for part in (*parts, 0.0, 0.0)[:3])
    if minutes > 60 or seconds > 60 or (degrees % 1 and minutes + seconds) or (minutes % 1 and seconds):
        return math.nan
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if negative else angle


def is_wgs84(datum: str) -> bool:
    """Return whether the name of a datum is one of :data:`DATUMS`, however it is written."""
    return "".join(filter(str.isalnum, datum.upper())).startswith(DATUMS)


def signed(angle: float, reference: str, signs: Mapping[str, int]) -> float | None:
    """Return an angle with the sign of its reference; None where the two disagree or neither tells."""
    if angle == 0 or math.isnan(angle):
        return angle
    sign = signs.get(reference, 0) if reference else -1 if angle < 0 else 0
    return sign * abs(angle) if sign and (angle > 0 or sign < 0) else None


def _altitude(value: Any, reference: Any) -> float:
    """Return an altitude with the sign of its reference; NaN where it is none, or its sign is not known."""
    altitude, text = _number(value), _text(reference)
    if isinstance(reference, int):
        code = reference
    else:  # a byte or the digit of a text; absent and empty are 0
        code = int(text) if text.isdecimal() else ord(text or "\0") if len(text) < 2 else -1
    sign = ABOVE_BELOW.get(code)
    altitude = sign * abs(altitude) if sign and (altitude >= 0 or sign < 0) else math.nan
    return altitude if ALTITUDES_M[0] <= altitude <= ALTITUDES_M[1] else math.nan


def _heading(value: Any, reference: str) -> float:
    """Return a direction from true north (the default); one from magnetic north would need the declination."""
    heading = _number(value)
    return heading if 0 <= heading <= 360 and reference in ("", "T", "TRUE") else math.nan


def _text(value: Any) -> str:
    """Return a text up to its zero byte in capitals, whatever the type it is stored with; empty where absent."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return value.lstrip("\0 ").split("\0")[0].strip().upper() if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """Convert an EXIF rational; NaN where it is absent, no number, or divided by zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _gps_time_ns(date: Any, time: Any) -> int:
    """Convert the GPS date and time (UTC) to ns since 1970; 0 where absent. The camera's own clock has no zone."""
    try:
        hours, minutes, seconds = (float(part) for part in time)
        day = datetime.strptime(_text(date), "%Y:%m:%d").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0
    stamp_s = day.timestamp() + 3600 * hours + 60 * minutes + seconds
    return round(stamp_s * 1000) * 1_000_000 if math.isfinite(stamp_s) and stamp_s > 0 else 0
