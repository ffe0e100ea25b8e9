"""What every source asks of a position: that it is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from geowarp_ros.readers import read_source
from geowarp_ros.readers.positions import NULL_ISLAND, null_island
from test.readers.test_folders import GPS, NAPLES, save


def table(folder: Path, *rows: str) -> Path:
    for row in rows:
        Image.new("RGB", (20, 20)).save(folder / row.split(",")[0])
    path = folder / "positions.csv"
    path.write_text("\n".join(("filename,latitude,longitude", *rows)))
    return path


@pytest.mark.parametrize(
    ("latitude", "longitude", "is_it"), [(0, 0, True), (-0.0, 0.0, True), (0, 1e-7, False), (1e-7, 0, False)]
)
def test_only_zero_zero_is_null_island(latitude: float, longitude: float, is_it: bool) -> None:
    assert null_island(latitude, longitude) is is_it


def test_a_table_leaves_null_island_out_and_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, "a.png,0,0", "b.png,-0.0,0.000", "equator.png,0,9.5", "meridian.png,51.5,0")
    source = read_source(path)
    assert [image.place.name for image in source.images] == ["equator.png", "meridian.png"]
    assert [(s.name, s.reason) for s in source.skipped] == [("a.png", NULL_ISLAND), ("b.png", NULL_ISLAND)]
    assert len(read_source(path, accept_null_island=True).images) == 4


def test_exif_leaves_null_island_out_and_says_so(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", NAPLES)
    save(tmp_path / "b.jpg", NAPLES | {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)})
    source = read_source(tmp_path)
    assert [(s.name, s.reason) for s in source.skipped] == [("b.jpg", NULL_ISLAND)]
    b = read_source(tmp_path, accept_null_island=True).images[1].place
    assert (b.latitude_deg, b.longitude_deg) == (0, 0)
