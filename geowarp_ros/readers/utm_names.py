"""Positions in file names: ``@east@north@zone@letter@latitude@longitude@pano@tile@heading@…``, any of them empty.

The letter after the zone is a band of the military grid (``T``) or a hemisphere (``N``, ``S``); ``S`` is both.
What the name says besides decides: its latitude and longitude, or that the northing lies in no band S. A name that
contradicts itself, or still has two meanings, places no image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import distance_m, parse_utm_zone, utm_to_wgs84
from geowarp_ros.readers.positions import null_island
from geowarp_ros.types import FloatArray

BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Letters of the bands of 8° from 80° S on; the last one has 12°."""

BAND_MARGIN_DEG = 1.0
"""A data set that crosses the border of a band may keep its letter."""

AGREEMENT_M = 100.0
"""Distance up to which a name's metres and degrees are one place: degrees are cut to five decimals, or fewer."""

NO_ZONE = "whose name gives no UTM zone; give it once as utm_zone (--utm-zone), such as 32N"
NO_HEMISPHERE = "whose name does not tell the hemisphere of its UTM zone; give it as utm_zone (--utm-zone)"
CONTRADICTION = (
    "whose name contradicts itself: easting, northing, zone, letter, latitude and longitude do not agree"
)
NO_UTM = "whose name has an easting or northing outside of its UTM zone"

_EASTINGS, _NORTHINGS = (100_000, 900_000), (0, 10_000_000)
_ZONE = re.compile(rf"(\d{{1,2}})?(?:\.0*)? *([{BANDS}])?")
"""Zone, which may have the letter behind it."""
_WORDS = {"NORTH": "N", "SOUTH": "S"}


@dataclass(frozen=True, slots=True)
class UtmName:
    """What a file's name says; 0, empty and NaN where it does not."""

    text: str
    east_m: float
    north_m: float
    zone: int = 0
    letter: str = ""
    latitude_deg: float = math.nan
    longitude_deg: float = math.nan
    heading_deg: float = math.nan

    @property
    def loose(self) -> bool:
        """Whether nothing says where on the earth its metres are."""
        return not self.zone and math.isnan(self.latitude_deg)

    @property
    def in_a_zone(self) -> bool:
        """Whether the metres can be those of a UTM zone, the widest of which reaches 400 km from its meridian."""
        return _EASTINGS[0] <= self.east_m <= _EASTINGS[1] and _NORTHINGS[0] <= self.north_m <= _NORTHINGS[1]


def parse_name(name: str) -> UtmName | None:
    """Parse a file's name; None where it does not begin with ``@east@north@``."""
    first, *fields = name.split("@", 10)
    if first or len(fields) < 3:
        return None
    fields[-1:] = [""] * (10 - len(fields))  # the last is the suffix, or has it
    east, north, latitude, longitude, heading = (_number(fields[column]) for column in (0, 1, 4, 5, 8))
    if not (abs(east) <= 1e7 and abs(north) <= 1e7):  # false for NaN too
        return None
    if math.isnan(latitude + longitude) or null_island(latitude, longitude):
        latitude = longitude = math.nan
    zone, letter = _ZONE.fullmatch(fields[2].strip().upper()), fields[3].strip().upper()
    number, letter = int(zone[1] or 0) if zone else 0, _WORDS.get(letter, letter) or (zone and zone[2]) or ""
    if zone is None or number > 60 or (zone[1] and not number) or letter not in ("", *BANDS):
        # another format from here on; what has decimals where degrees are is taken for degrees, and must agree
        degrees = (latitude, longitude) if "." in fields[4] and "." in fields[5] else (math.nan, math.nan)
        return UtmName(name, east, north, 0, "", *degrees)
    heading = heading if 0 <= heading <= 360 else math.nan
    return UtmName(name, east, north, number, letter, latitude, longitude, heading)


def place_names(names: Sequence[UtmName], utm_zone: str | None) -> tuple[FloatArray, list[str]]:
    """Return the latitude and longitude (N, 2) that names say, and a reason where one says none (else empty).

    Args:
        names: (N,) names.
        utm_zone: Zone and hemisphere of names that give none, such as ``32N``; it may only confirm the others.

    Raises:
        SourceError: ``utm_zone`` is none, or contradicts a name.
    """
    given = parse_utm_zone(utm_zone) if utm_zone else None
    own = np.array([(name.latitude_deg, name.longitude_deg) for name in names]).reshape(-1, 2)
    east, north = np.array([(name.east_m, name.north_m) for name in names]).reshape(-1, 2).T
    zones = np.array([name.zone or (given[0] if given else _zone_of(name)) for name in names], int)
    readings = np.full((2, len(names), 2), np.nan)  # as northern, as southern
    for zone in set(zones.tolist()) - {0}:
        for northern in (True, False):
            rows = zones == zone
            degrees = utm_to_wgs84(east[rows], north[rows], zone, northern)
            readings[int(not northern), rows] = np.stack(degrees, axis=-1)
    latitudes = readings[..., 0]
    possible = np.array([name.in_a_zone for name in names], bool) & (latitudes > -80.5) & (latitudes < 84.5)
    letters = np.array([name.letter for name in names], "U1")
    for letter in set(letters.tolist()) - {""}:
        possible[:, letters == letter] &= _as_band_or_hemisphere(letter, latitudes[:, letters == letter])
    told, valid = np.isfinite(own[:, 0]), (np.abs(own) <= (90, 180)).all(axis=1)
    for allowed, half in zip(possible, readings, strict=True):
        allowed &= valid | ~told
        rows = told & allowed
        allowed[rows] = distance_m(*half[rows].T, *own[rows].T) <= AGREEMENT_M
    if given:
        fits, without_own = possible[int(not given[1])], np.array([not name.zone for name in names], bool)
        other = (zones != given[0]) | (possible.any(0) & ~fits) | (told & without_own & ~fits)
        for row in np.flatnonzero(other)[:1]:
            raise SourceError(
                f"{names[row].text}: the name contradicts utm_zone (--utm-zone) {utm_zone}, which is for names"
                " that do not tell their zone"
            )
        possible[int(given[1])] = False
    chosen = np.where(possible[0], 0, 1)
    reasons = [
        _reason(name, zone, halves) for name, zone, halves in zip(names, zones, possible.sum(0), strict=True)
    ]
    return np.asarray(readings[chosen, np.arange(len(names))]), reasons


def _as_band_or_hemisphere(letter: str, latitudes_deg: FloatArray) -> NDArray[np.bool_]:
    """Return which latitudes (2, N), read as northern and as southern, a letter allows."""
    south = -80 + 8 * BANDS.index(letter)
    north = south + (12 if letter == "X" else 8)
    inside = (south - BAND_MARGIN_DEG <= latitudes_deg) & (latitudes_deg <= north + BAND_MARGIN_DEG)
    return np.asarray(inside | [[letter == "N"], [letter == "S"]], bool)


def _reason(name: UtmName, zone: int, readings: int) -> str:
    if readings == 1:
        return ""
    if not zone:
        return NO_ZONE
    if readings == 2:
        return NO_HEMISPHERE
    return CONTRADICTION if name.in_a_zone else NO_UTM


def _zone_of(name: UtmName) -> int:
    """Return the zone whose meridian lies as far from the name's degrees as its easting; 0 without degrees."""
    if math.isnan(name.longitude_deg):
        return 0
    parallel_m = 111_320 * max(math.cos(math.radians(name.latitude_deg)), 0.01)  # of a degree
    meridian = name.longitude_deg - (name.east_m - 500_000) / parallel_m
    return (round((meridian + 183) / 6) - 1) % 60 + 1


def _number(text: str) -> float:
    if not text:  # most fields of most names
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
