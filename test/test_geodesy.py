"""Positions against published and hand-worked values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Proj

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame, distance_m, parse_utm_zone, utm_to_wgs84

METRES_PER_DEGREE_OF_LATITUDE_AT_45 = 111_131.77  # M(45°) π/180 with a = 6378137, f = 1/298.257223563
METRES_PER_DEGREE_OF_LONGITUDE_AT_EQUATOR = 111_319.49  # a π/180


def test_utm_at_the_meridian_and_the_equator() -> None:
    latitude, longitude = utm_to_wgs84(500_000, 0, 32, northern=True)
    assert (latitude, longitude) == pytest.approx((0, 9), abs=1e-12)
    latitude, longitude = utm_to_wgs84(500_000, 10_000_000, 56, northern=False)
    assert (latitude, longitude) == pytest.approx((0, 153), abs=1e-12)


def test_utm_of_known_points() -> None:
    # CN Tower: Wikipedia, "Universal Transverse Mercator", 17N 630084 4833438
    latitude, longitude = utm_to_wgs84(630_084, 4_833_438, 17, northern=True)
    assert (latitude, longitude) == pytest.approx(
        (43 + 38 / 60 + 33.24 / 3600, -(79 + 23 / 60 + 13.7 / 3600)), abs=2e-5
    )
    # at the central meridian the northing is the scaled meridian arc: 0.9996 · 4 984 944.378 m to 45°
    latitude, longitude = utm_to_wgs84(500_000, 0.9996 * 4_984_944.378, 32, northern=True)
    assert (latitude, longitude) == pytest.approx((45, 9), abs=1e-8)


@given(st.floats(-80, 80), st.floats(-2.9, 2.9), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_utm_is_the_inverse_of_pyprojs(latitude: float, offset: float, zone: int) -> None:
    longitude = -183 + 6 * zone + offset
    east, north = Proj(proj="utm", zone=zone, south=latitude < 0, ellps="WGS84")(longitude, latitude)
    back = utm_to_wgs84(east, north, zone, latitude >= 0)
    assert back == pytest.approx((latitude, longitude), abs=1e-9)


def test_enu_by_hand() -> None:
    frame = LocalFrame(45, 9, 100)
    np.testing.assert_allclose(frame.to_enu(45, 9, 100), 0, atol=1e-6)
    np.testing.assert_allclose(frame.to_enu(45, 9, 130), [0, 0, 30], atol=1e-6)
    north = LocalFrame(45, 9).to_enu(45 + 1e-3, 9)
    np.testing.assert_allclose(north, [0, METRES_PER_DEGREE_OF_LATITUDE_AT_45 * 1e-3, 0], atol=2e-3)
    east = LocalFrame(0, 9).to_enu(0, 9 + 1e-3)
    np.testing.assert_allclose(east, [METRES_PER_DEGREE_OF_LONGITUDE_AT_EQUATOR * 1e-3, 0, 0], atol=2e-3)


def test_enu_axes_are_rep_103s() -> None:
    enu = LocalFrame(-33.9, 151.2, 20).to_enu([-33.9, -33.8], [151.3, 151.2], [20, 20])
    assert enu.shape == (2, 3)
    assert enu[0, 0] > 9000 and abs(enu[0, 1]) < 10  # farther east
    assert enu[1, 1] > 11_000 and abs(enu[1, 0]) < 1e-6  # farther north


def test_enu_crosses_the_antimeridian() -> None:
    assert LocalFrame(0, 179.9995).to_enu(0, -179.9995)[0] == pytest.approx(111.32, abs=0.01)


@given(
    st.floats(-89, 89), st.floats(-180, 180), st.floats(-400, 9000),
    st.lists(st.tuples(st.floats(-5e4, 5e4), st.floats(-5e4, 5e4), st.floats(-100, 2000)), min_size=1, max_size=5),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_local_frame_there_and_back(
    latitude: float, longitude: float, altitude: float, enu: list[tuple[float, float, float]]
) -> None:
    frame = LocalFrame(latitude, longitude, altitude)
    np.testing.assert_allclose(frame.to_enu(*frame.to_geodetic(enu)), enu, atol=1e-5)


def test_distance() -> None:
    assert distance_m(0, 0, 0, 1) == pytest.approx(METRES_PER_DEGREE_OF_LONGITUDE_AT_EQUATOR, abs=0.01)
    # Paris to New York along the geodesic; Karney's example, GeographicLib
    assert distance_m(40.6, -73.8, 49.01666667, 2.55) == pytest.approx(5_853_226, abs=1)
    np.testing.assert_allclose(distance_m([0, 5], [0, 5], [0, 5], [0, 5]), [0, 0])
    assert distance_m([45, 46], 9, 45, 9).shape == (2,)


def test_distance_agrees_with_enu_nearby() -> None:
    rng = np.random.default_rng(1)
    latitude, longitude = 55.7 + rng.normal(0, 1e-3, 20), 13.2 + rng.normal(0, 1e-3, 20)
    enu = LocalFrame(55.7, 13.2).to_enu(latitude, longitude)
    np.testing.assert_allclose(np.hypot(*enu[:, :2].T), distance_m(55.7, 13.2, latitude, longitude), rtol=1e-6)


def test_inputs_are_left_alone() -> None:
    latitude, longitude = np.array([45.0]), np.array([9.0])
    LocalFrame(0, 0).to_enu(latitude, longitude)
    assert (latitude[0], longitude[0]) == (45.0, 9.0)


def test_zone() -> None:
    assert parse_utm_zone("32N") == (32, True)
    assert parse_utm_zone(" 7s ") == (7, False)
    for text in ("", "32", "61N", "0S", "32T", "N32"):
        with pytest.raises(SourceError, match="expected a number 1-60 and a hemisphere"):
            parse_utm_zone(text)


def test_a_turned_frame_by_hand() -> None:
    straight, turned = LocalFrame(48.0, 11.0, 500.0), LocalFrame(48.0, 11.0, 500.0, 30.0)
    position = straight.to_geodetic([100.0, 0.0, 7.0])
    # x points 30° north of east: a point due east lies to its right
    assert turned.to_enu(*position) == pytest.approx([100 * 0.75**0.5, -50.0, 7.0], abs=1e-6)
    assert np.stack(turned.to_geodetic(turned.to_enu(*position))) == pytest.approx(np.stack(position))
    assert turned.rotation_from(straight) @ [0.0, 1.0, 0.0] == pytest.approx([0.5, 0.75**0.5, 0.0])
    assert turned.datum == straight.datum and turned.yaw_deg == 30.0
