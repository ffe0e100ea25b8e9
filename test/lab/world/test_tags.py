"""Tags are wrong by the law that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.world.tags import Tags, retag
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import Place

FRAME = LocalFrame(50.0, -30.0)


def walk(spots: int, spacing_m: float = 5.0) -> list[SourceImage]:
    """Three views a spot, straight east."""
    images = []
    for spot in range(spots):
        latitude, longitude, _ = FRAME.to_geodetic([spot * spacing_m, 0.0, 0.0])
        for view, heading in enumerate((90.0, 180.0, 0.0)):
            place = Place(f"{spot}_{view}.jpg", float(latitude), float(longitude), 51.9, heading)
            images.append(SourceImage(place, lambda: np.zeros((16, 16, 3), np.uint8)))
    return images


def errors_of(images: list[SourceImage], tags: Tags) -> np.ndarray:
    def enu(found: list[SourceImage]) -> np.ndarray:
        places = [image.place for image in found]
        return FRAME.to_enu(
            [p.latitude_deg for p in places], [p.longitude_deg for p in places], [p.altitude_m for p in places]
        )

    return np.asarray(enu(list(retag(images, tags))) - enu(images))


def test_one_error_a_spot_of_the_wanted_size() -> None:
    errors = errors_of(walk(800), Tags(std_m=2.0)).reshape(800, 3, 3)
    assert np.abs(errors - errors[:, :1]).max() < 1e-6
    np.testing.assert_allclose(errors[:, 0].std(axis=0), 2.0, rtol=0.1)
    assert abs(np.corrcoef(errors[1:, 0, 0], errors[:-1, 0, 0])[0, 1]) < 0.1


def test_correlated_errors_fade_with_the_way() -> None:
    errors = errors_of(walk(4000), Tags(std_m=3.0, length_m=30.0)).reshape(4000, 3, 3)[:, 0]
    np.testing.assert_allclose(errors.std(axis=0), 3.0, rtol=0.1)
    for apart in (1, 4):
        alike = np.corrcoef(errors[apart:, 0], errors[:-apart, 0])[0, 1]
        assert alike == pytest.approx(math.exp(-apart * 5.0 / 30.0), abs=0.06)


def test_outliers_are_as_many_and_as_far_off_as_asked() -> None:
    off = np.hypot(*errors_of(walk(200), Tags(outliers=0.1)).reshape(200, 3, 3)[:, 0, :2].T)
    assert (off > 1.0).sum() == 20
    np.testing.assert_allclose(off[off > 1.0], 15.0, rtol=1e-6)


def test_headings_are_turned_or_taken() -> None:
    images = walk(500)
    drawn = retag(images, Tags(std_m=1.0, heading_std_deg=5.0))
    assert [i.place for i in drawn] == [i.place for i in retag(images, Tags(std_m=1.0, heading_std_deg=5.0))]
    turned = [image.place.heading_deg for image in retag(images, Tags(heading_std_deg=5.0))]
    apart = (np.array(turned) - [i.place.heading_deg for i in images] + 180) % 360 - 180
    assert apart.std() == pytest.approx(5.0, rel=0.1)
    assert min(turned) >= 0 and max(turned) < 360
    assert all(math.isnan(image.place.heading_deg) for image in retag(images, Tags(heading_std_deg=None)))
    assert retag([], Tags(std_m=1.0)) == ()
