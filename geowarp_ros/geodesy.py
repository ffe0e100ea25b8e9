"""Positions: WGS84 degrees, UTM metres and a local east-north-up frame.

Convention:
    Latitude and longitude are WGS84 degrees, altitudes metres above its ellipsoid. ENU is that of REP 103: x east,
    y north, z up. Everything is float64 and vectorised: scalars or arrays of one shape in, the same shape out.
    A UTM zone is a number 1-60 and a hemisphere, not a letter of the military grid.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Geod, Transformer

from geowarp_ros.errors import SourceError

FloatArray = NDArray[np.float64]

_ELLIPSOID = Geod(ellps="WGS84")
_GEODETIC, _ECEF = "EPSG:4979", "EPSG:4978"
_LOCAL = "+proj=aeqd +lat_0=0 +lon_0=0 +datum=WGS84 +units=m"


class LocalFrame:
    """Local tangent plane at a datum: metres east, north and up.

    A rotation of earth-centred coordinates, exact at any distance (Wikipedia, "Geographic coordinate conversion",
    from ECEF to ENU); no projection and so no zones.

    Args:
        datum_latitude_deg: WGS84 latitude of the origin.
        datum_longitude_deg: WGS84 longitude of the origin.
        datum_altitude_m: Altitude of the origin above the ellipsoid.
        yaw_deg: Direction of its x axis, counter-clockwise from east; what is called east and north below are x
            and y of a turned one.
    """

    def __init__(
        self,
        datum_latitude_deg: float,
        datum_longitude_deg: float,
        datum_altitude_m: float = 0.0,
        yaw_deg: float = 0.0,
    ) -> None:
        self.datum_latitude_deg = datum_latitude_deg
        self.datum_longitude_deg = datum_longitude_deg
        self.datum_altitude_m = datum_altitude_m
        self._origin_ecef = _ecef(datum_latitude_deg, datum_longitude_deg, datum_altitude_m)
        latitude, longitude = np.radians([datum_latitude_deg, datum_longitude_deg])
        sin_lat, cos_lat = np.sin(latitude), np.cos(latitude)
        sin_lon, cos_lon = np.sin(longitude), np.cos(longitude)
        self._enu_from_ecef = np.array(
            [
                [-sin_lon, cos_lon, 0.0],
                [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
                [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
            ]
        )
        self.yaw_deg = yaw_deg
        if yaw_deg:
            sin, cos = np.sin(np.radians(yaw_deg)), np.cos(np.radians(yaw_deg))
            turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
            self._enu_from_ecef = turn @ self._enu_from_ecef

    @property
    def datum(self) -> tuple[float, float, float]:
        """Latitude (deg), longitude (deg) and altitude (m) of the origin."""
        return self.datum_latitude_deg, self.datum_longitude_deg, self.datum_altitude_m

    def rotation_from(self, other: LocalFrame) -> FloatArray:
        """Return the rotation (3, 3) from the axes of another frame to these.

        Up differs by distance / Earth radius, north by the convergence of the meridians besides: 0.016° for each
        km east at 60° of latitude.
        """
        return np.asarray(self._enu_from_ecef @ other._enu_from_ecef.T)

    def to_enu(
        self, latitude_deg: ArrayLike, longitude_deg: ArrayLike, altitude_m: ArrayLike | None = None
    ) -> FloatArray:
        """Return positions (…, 3) in metres east, north and up of the datum.

        Args:
            latitude_deg: (…) WGS84 latitude.
            longitude_deg: (…) WGS84 longitude.
            altitude_m: (…) altitude above the ellipsoid; None: that of the datum.
        """
        altitude = self.datum_altitude_m if altitude_m is None else altitude_m
        offset = _ecef(latitude_deg, longitude_deg, altitude) - self._origin_ecef
        return np.asarray(offset @ self._enu_from_ecef.T, np.float64)

    def to_geodetic(self, enu_m: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return latitude, longitude and altitude (…) of positions (…, 3); the inverse of :meth:`to_enu`."""
        x, y, z = np.moveaxis(np.asarray(enu_m, np.float64) @ self._enu_from_ecef + self._origin_ecef, -1, 0)
        longitude, latitude, altitude = _transformer(_ECEF, _GEODETIC).transform(x, y, z)
        return np.asarray(latitude), np.asarray(longitude), np.asarray(altitude)


def utm_to_wgs84(
    east_m: ArrayLike, north_m: ArrayLike, zone: int, northern: bool
) -> tuple[FloatArray, FloatArray]:
    """Convert UTM coordinates to WGS84 latitude and longitude.

    Args:
        east_m: (…) easting; 500 000 m at the zone's meridian.
        north_m: (…) northing; 10 000 000 m at the equator in the southern hemisphere.
        zone: Number of the zone, 1-60.
        northern: Whether it is the northern hemisphere.

    Returns:
        Latitude (…) and longitude (…) in degrees.
    """
    east, north = np.broadcast_arrays(east_m, north_m)
    utm = f"EPSG:{(32600 if northern else 32700) + zone}"
    longitude, latitude = _transformer(utm, _GEODETIC).transform(east, north)
    return np.asarray(latitude), np.asarray(longitude)


def local_to_wgs84(east_m: ArrayLike, north_m: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Lay metres of a frame that is nowhere on the earth around 0°, 0°; returns latitude and longitude (…).

    Azimuthal equidistant (Snyder, "Map Projections", 1987, ch. 25): distances along the axes are true at any
    length, within 10 km of the origin all are to 1e-6.
    """
    east, north = np.broadcast_arrays(east_m, north_m)
    longitude, latitude = _transformer(_LOCAL, _GEODETIC).transform(east, north)
    return np.asarray(latitude), np.asarray(longitude)


def wgs84_to_local(latitude_deg: ArrayLike, longitude_deg: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return metres east and north (…); the inverse of :func:`local_to_wgs84`."""
    longitude, latitude = np.broadcast_arrays(longitude_deg, latitude_deg)
    east, north = _transformer(_GEODETIC, _LOCAL).transform(longitude, latitude)
    return np.asarray(east), np.asarray(north)


def parse_utm_zone(text: str) -> tuple[int, bool]:
    """Parse a UTM zone such as ``32N`` or ``56S``.

    Returns:
        Number of the zone, and whether it is in the northern hemisphere.

    Raises:
        SourceError: The text is no zone and hemisphere.
    """
    match = re.fullmatch(r"(\d{1,2})([NS])", text.strip().upper())
    if match is None or not 1 <= int(match[1]) <= 60:
        raise SourceError(f"UTM zone {text!r}: expected a number 1-60 and a hemisphere N or S, such as 32N")
    return int(match[1]), match[2] == "N"


def distance_m(
    latitude1_deg: ArrayLike, longitude1_deg: ArrayLike, latitude2_deg: ArrayLike, longitude2_deg: ArrayLike
) -> FloatArray:
    """Return the geodesic distance (…) between two positions, m."""
    points = (longitude1_deg, latitude1_deg, longitude2_deg, latitude2_deg)
    lon1, lat1, lon2, lat2 = np.broadcast_arrays(*points)
    return np.asarray(_ELLIPSOID.inv(lon1, lat1, lon2, lat2)[2], np.float64)


def _ecef(latitude_deg: ArrayLike, longitude_deg: ArrayLike, altitude_m: ArrayLike) -> FloatArray:
    longitude, latitude, altitude = np.broadcast_arrays(longitude_deg, latitude_deg, altitude_m)
    return np.stack(_transformer(_GEODETIC, _ECEF).transform(longitude, latitude, altitude), axis=-1)


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Transformer:
    return Transformer.from_crs(source, target, always_xy=True)
