"""What every source asks of a position: that it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geowarp_ros.geodesy import distance_m
from geowarp_ros.readers import SourceImage, read_source
from geowarp_ros.readers.positions import NULL_ISLAND, doubts, null_island
from geowarp_ros.types import Place
from test.readers.test_folders import GPS, NAPLES, save


def table(folder: Path, *rows: str) -> Path:
    for row in rows:
        Image.new("RGB", (20, 20)).save(folder / row.split(",")[0])
    path = folder / "positions.csv"
    path.write_text("\n".join(("filename,latitude,longitude", *rows)))
    return path


@pytest.mark.parametrize(
    ("latitude", "longitude", "is_it"),
    [(0, 0, True), (-0.0, 0.0, True), (0, 1e-7, True), (0, 1e-5, False), (1e-5, 0, False)],
)
def test_only_zero_zero_is_null_island(latitude: float, longitude: float, is_it: bool) -> None:
    assert null_island(latitude, longitude) is is_it


def test_a_table_leaves_null_island_out_and_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, "a.png,0,0", "b.png,-0.0,0.000", "equator.png,0,9.5", "meridian.png,51.5,0")
    source = read_source(path)
    assert [image.place.name for image in source.images] == ["equator.png", "meridian.png"]
    assert [(s.name, s.reason) for s in source.skipped] == [("a.png", NULL_ISLAND), ("b.png", NULL_ISLAND)]
    assert len(read_source(path, accept_null_island=True).images) == 4


def test_names_leave_null_island_out_and_say_so(tmp_path: Path) -> None:
    save(tmp_path / "@0166021.44@0000000.00@31@N@00.00000@000.00000@.jpg")  # as tools write degrees of 0
    save(tmp_path / "@500000.00@4982950.40@32@N@@@.jpg")
    source = read_source(tmp_path)
    assert len(source.images) == 1 and [skip.reason for skip in source.skipped] == [NULL_ISLAND]
    assert len(read_source(tmp_path, accept_null_island=True).images) == 2


def test_exif_leaves_null_island_out_and_says_so(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", NAPLES)
    save(tmp_path / "b.jpg", NAPLES | {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)})
    source = read_source(tmp_path)
    assert [(s.name, s.reason) for s in source.skipped] == [("b.jpg", NULL_ISLAND)]
    b = read_source(tmp_path, accept_null_island=True).images[1].place
    assert (b.latitude_deg, b.longitude_deg) == (0, 0)


def shown(*positions: tuple[float, float]) -> list[str]:
    places = [Place(f"{i}.jpg", latitude, longitude) for i, (latitude, longitude) in enumerate(positions)]
    return doubts([SourceImage(place, lambda: np.zeros((20, 20, 3), np.uint8)) for place in places])


def street(count: int, latitude: float = 48.1371, longitude: float = 11.5753) -> list[tuple[float, float]]:
    return [(latitude + 1.37e-5 * i, longitude + 0.91e-5 * i) for i in range(count)]


def test_ordinary_collections_raise_no_doubt() -> None:
    assert shown() == shown((48, 11)) == shown(*street(2)) == shown(*street(300)) == []
    towns = [*street(50), *street(50, -33.8713, 151.2071), *street(50, 35.6812, 139.7671)]
    assert shown(*towns) == []  # whole towns are no outliers
    assert shown(*street(9, 0.00013, 179.99999), (0.00013, -179.99997)) == []  # neighbours over the date line


def test_images_far_from_the_rest_are_named() -> None:
    (said,) = shown(*street(40), (-22.9519, -43.2106))
    assert said.startswith("1 of 41 images are far from the rest: 40.jpg (")
    said_m = float(said.split("(")[1].split(" km")[0].replace(",", "")) * 1000
    chord_m = 2 * 6_371_000 * np.sin(distance_m(48.1371, 11.5753, -22.9519, -43.2106) / 2 / 6_371_000)
    assert said_m == pytest.approx(float(chord_m), rel=0.003)
    assert shown(*street(2), (48.147, 11.5753)) == [
        "1 of 3 images are far from the rest: 2.jpg (1.1 km); are their positions right?"
    ]
    (said,) = shown(*street(90), *street(8, 48.5))
    assert "8 of 98 images" in said and "94.jpg" in said and "and 3 more" in said


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ([(48.137, 11.575)] * 7,
         "all 7 images are at one position (48.137, 11.575): 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more"),
        ([(48.0, 11.0), (49.0, 12.0)], "cut to whole degrees"),
        ([(48 + 7 / 60, 11.5), (48 + 8 / 60, 11 + 31 / 60)],
         "cut to whole minutes, which moves images by up to 928 m: 0.jpg, 1.jpg"),
        ([(48.13, 11.57), (48.14, 11.58), (48.13, 11.58)],
         "cut to two decimals, which moves images by up to 557 m"),
        ([(48.137, 11.575), (48.138, 11.575)], "cut to three decimals"),
    ],
)  # fmt: skip
def test_positions_that_were_cut_short(positions: list[tuple[float, float]], said: str) -> None:
    (found,) = shown(*positions)
    assert said in found


def test_doubts_are_warnings_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, "a.png,48,11", "b.png,48,11")
    for _ in range(2):
        assert len(read_source(path).images) == 2
    (record,) = caplog.records
    assert record.levelname == "WARNING" and f"{path}: all 2 images are at one position" in record.message
