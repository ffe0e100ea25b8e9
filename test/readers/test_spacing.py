"""Photographs that are thinned, against brute force and worked cases."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.source import Source, SourceImage
from geowarp_ros.readers.spacing import SAME_VIEW_DEG, spaced
from geowarp_ros.types import Place

FRAME = LocalFrame(45.0, 9.0)


def source(*rows: tuple[float, float, float, str]) -> Source:
    """Images at metres east and north, with a heading (deg) and a split."""
    images = []
    for number, (east, north, heading, split) in enumerate(rows):
        latitude, longitude, _ = FRAME.to_geodetic([east, north, 0.0])
        place = Place(f"{number:04}", float(latitude), float(longitude), heading_deg=heading)
        images.append(SourceImage(place, lambda: np.zeros((8, 8, 3), np.uint8), split=split))
    return Source(tuple(images))


def names(found: Source) -> list[int]:
    return [int(image.place.name) for image in found.images]


def test_a_dense_street_is_thinned_and_it_is_said_why() -> None:
    found = spaced(source(*((2.0 * row, 0.0, 90.0, "") for row in range(11))), 5.0)
    assert names(found) == [0, 3, 6, 9]
    assert Counter(skipped.reason for skipped in found.skipped) == {
        "closer than 5 m to another that looks the same way": 7
    }
    assert {int(skipped.name) for skipped in found.skipped} == {1, 2, 4, 5, 7, 8, 10}


def test_other_directions_and_other_splits_stay() -> None:
    around = [(0.0, 0.0, heading, "") for heading in (350.0, 20.0, 25.0, 170.0)]
    assert names(spaced(source(*around), 5.0)) == [0, 2, 3]  # 350° and 20° are 30° apart
    assert SAME_VIEW_DEG == 30.0
    assert names(spaced(source(*around), 5.0, all_round=True)) == [0]
    unknown = [(0.0, 0.0, math.nan, ""), (1.0, 0.0, 90.0, ""), (6.0, 0.0, math.nan, "")]
    assert names(spaced(source(*unknown), 5.0)) == [0, 2]
    splits = [(0.0, 0.0, 0.0, "gallery"), (1.0, 0.0, 0.0, "queries"), (2.0, 0.0, 0.0, "queries")]
    assert names(spaced(source(*splits), 5.0)) == [0, 1]
    assert names(spaced(source(*splits), 0.0)) == [0, 1, 2]


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_equals_comparing_each_with_all_that_are_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(*rng.uniform(-40, 40, 2).tolist(), rng.uniform(0, 360), "") for _ in range(400)]
    kept: list[int] = []
    for row, (east, north, heading, _) in enumerate(rows):
        if all(
            math.hypot(east - rows[k][0], north - rows[k][1]) >= 7.0
            or abs((heading - rows[k][2] + 180) % 360 - 180) > 30.0
            for k in kept
        ):
            kept.append(row)
    found = spaced(source(*rows), 7.0)
    assert names(found) == kept and 50 < len(kept) < 350
    assert len(found.skipped) == 400 - len(kept)
