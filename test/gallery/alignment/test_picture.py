"""The map of an alignment: each thing in its colour, where it lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.gallery.alignment.picture import OWN, POINT, TAG, WIDTH_PX, AlignedMap, alignment_picture
from geowarp_ros.pictures import LOST, PAPER
from geowarp_ros.types import FloatArray, Image

NOTHING = AlignedMap(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), np.empty((0, 2)), {}, "")
BARE = alignment_picture(NOTHING)
MAP = slice(90, -44)
"""Rows of the map, without title, north and foot."""


def where(picture: Image, colour: tuple[int, int, int]) -> FloatArray:
    """Return the pixels (N, 2) of the map that have a colour, as x and y."""
    y, x = np.nonzero((picture[MAP] == colour).all(axis=2))
    return np.stack([x, y + 90], axis=1).astype(float)


def middle(picture: Image, colour: tuple[int, int, int]) -> FloatArray:
    found = where(picture, colour)
    assert len(found), colour
    return np.asarray((found.min(axis=0) + found.max(axis=0)) / 2)


def test_an_empty_map() -> None:
    assert BARE.dtype == np.uint8 and BARE.shape[1] == WIDTH_PX
    assert (BARE[MAP, :900] == PAPER).all()


def test_tag_position_and_point_lie_where_they_are() -> None:
    """100 m east-west: 1120 px, of which the scale and every distance follow."""
    shown = replace(
        NOTHING,
        tags_m=np.array([[0.0, 0.0], [100.0, 0.0], [40.0, 20.0]]),
        positions_m=np.array([[np.nan] * 2, [np.nan] * 2, [60.0, 10.0]]),
        headings_deg=np.array([np.nan, np.nan, 90.0]),
        points_m=np.array([[80.0, 15.0], [1e4, 0.0]]),
    )
    picture = alignment_picture(shown)
    centre = picture.shape[0] - 44 - (picture.shape[0] - 44 - 52) / 2  # of the map: 10 m north

    def pixel(east: float, north: float) -> tuple[int, int]:
        return round(40 + 11.2 * east), round(centre - 11.2 * (north - 10))

    for colour, place in ((OWN, (60, 10)), (TAG, (40, 20)), (POINT, (80, 15))):
        x, y = pixel(*place)
        assert tuple(picture[y, x]) == colour, colour
    assert len(where(picture, POINT)) == 1, "a point far away is left out"
    x, y = pixel(0, 0)
    assert tuple(picture[y, x]) == PAPER and tuple(picture[y, x + 4]) != PAPER, "a ring: not tied"
    x, y = pixel(50, 15)  # between the tag and the position
    assert (picture[y - 1 : y + 2, x] != PAPER).any()
    x, y = pixel(60, 10)
    assert (picture[y, x + 8] != PAPER).any(), "looks east"
    assert (picture[y, x - 8] == PAPER).all() and (picture[y + 8, x] == PAPER).all()


@pytest.mark.parametrize(("heading", "step"), [(0.0, (0, -9)), (90.0, (9, 0)), (180.0, (0, 9)), (270.0, (-9, 0))])
def test_a_tick_shows_where_a_photograph_looks(heading: float, step: tuple[int, int]) -> None:
    one = replace(NOTHING, tags_m=np.zeros((1, 2)), positions_m=np.zeros((1, 2)), headings_deg=np.array([heading]))
    picture = alignment_picture(one)
    seen = where(picture, OWN)
    x, y = WIDTH_PX // 2, 52 + (picture.shape[0] - 44 - 52) // 2
    assert tuple(picture[y, x]) == OWN
    assert (np.abs(seen - (x, y)).max(axis=1) < 12).all()
    tip = picture[y + step[1], x + step[0]].astype(int)
    assert np.linalg.norm(tip - OWN) < 0.25 * np.linalg.norm(tip - PAPER), "OWN, but for antialiasing"
    assert tuple(picture[y - step[1], x - step[0]]) == PAPER


def test_suspicious_tags_are_red_and_named() -> None:
    tags = np.array([[0.0, 0.0], [100.0, 50.0]])
    shown = replace(NOTHING, tags_m=tags, positions_m=tags.copy(), headings_deg=np.zeros(2))
    assert not len(where(alignment_picture(shown), LOST))
    named, nameless = (alignment_picture(replace(shown, suspicious={0: name})) for name in ("0.png  20 m", ""))
    x, y = middle(nameless, LOST)  # 100 × 50 m with 40 px around: the south-west corner
    assert (x, y) == pytest.approx((40, 52 + 560 + 40), abs=2)
    written = where(named, LOST)
    assert written[:, 0].max() > 60 > where(nameless, LOST)[:, 0].max()


def test_the_title_stands_above() -> None:
    titled = alignment_picture(replace(NOTHING, title="1 of 1"))
    assert (titled[:52] != BARE[:52]).any() and (titled[52:] == BARE[52:]).all()


def test_a_north_south_street_fits() -> None:
    street = np.stack([np.zeros(50), np.linspace(0, 5000, 50)], axis=1)
    picture = alignment_picture(replace(NOTHING, tags_m=street, positions_m=street, headings_deg=np.zeros(50)))
    assert picture.shape[0] < 1400 and len(where(picture, OWN)) > 50 * 20
