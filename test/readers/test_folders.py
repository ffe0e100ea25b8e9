"""Folders: positions from names and from EXIF, splits from the tree, and everything that is left out."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from pyproj import Proj

from geowarp_ros.errors import SourceError
from geowarp_ros.readers import read_source
from geowarp_ros.readers.folders import NEITHER

GPS = ExifTags.GPS


def save(path: Path, gps: dict[int, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((20, 30, 3), 77, np.uint8))
    exif = Image.Exif()
    if gps is not None:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    image.save(path, exif=exif)
    return path


NAPLES: dict[int, Any] = {
    GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (40.0, 51.0, 6.0),
    GPS.GPSLongitudeRef: "E", GPS.GPSLongitude: (14.0, 16.0, 5.1),
}  # fmt: skip


def test_utm_names_with_the_zone_given_once(tmp_path: Path) -> None:
    save(tmp_path / "@500000.00@4982950.40@@.jpg")  # 0.9996 · the meridian's arc to 45°
    save(tmp_path / "b" / "@630084@4833438@note@.jpg")
    source = read_source(tmp_path, utm_zone="17N")
    at_45, toronto = (image.place for image in source.images)
    assert (at_45.latitude_deg, at_45.longitude_deg) == pytest.approx((45, -81), abs=1e-7)
    assert (toronto.latitude_deg, toronto.longitude_deg) == pytest.approx((43.6426, -79.3871), abs=1e-4)
    assert toronto.name == "b/@630084@4833438@note@.jpg"
    assert math.isnan(toronto.altitude_m) and math.isnan(toronto.heading_deg)
    south = read_source(tmp_path, utm_zone="17S").images[0].place
    assert south.latitude_deg < -40


def test_names_that_carry_their_own_zone_and_heading(tmp_path: Path) -> None:
    # S is a band of the northern hemisphere (San Francisco), H one of the southern (Sydney)
    east, north = Proj(proj="utm", zone=10)(-122.50903, 37.75684)
    save(tmp_path / f"@0{east:.2f}@{north:.2f}@10@S@037.75684@-122.50903@pano@@270@@@@2014@@.jpg")
    east, north = Proj(proj="utm", zone=56, south=True)(151.2, -33.87)
    save(tmp_path / f"@{east:.2f}@{north:.2f}@56@H@-33.87@151.2@pano@@@@@@@@.jpg")
    sydney, francisco = sorted(
        (i.place for i in read_source(tmp_path, utm_zone=None).images), key=lambda p: p.latitude_deg
    )
    assert (francisco.latitude_deg, francisco.longitude_deg) == pytest.approx((37.75684, -122.50903), abs=1e-6)
    assert francisco.heading_deg == 270
    assert (sydney.latitude_deg, sydney.longitude_deg) == pytest.approx((-33.87, 151.2), abs=1e-6)
    assert math.isnan(sydney.heading_deg)


@pytest.mark.parametrize("name", ["@east@4982950@.jpg", "@500000@.jpg", "@nan@1@.jpg", "@5e9@1@.jpg", "plain.jpg"])
def test_names_that_say_no_position_are_skipped(tmp_path: Path, name: str) -> None:
    save(tmp_path / "@500000@4982950@.jpg")
    save(tmp_path / name)
    source = read_source(tmp_path, utm_zone="32N")
    assert len(source.images) == 1
    assert [(s.name, s.reason) for s in source.skipped] == [(name, NEITHER)]


def test_standard_trees_have_splits(tmp_path: Path) -> None:
    for part in ("train/database", "train/queries", "test/gallery", "test/queries"):
        save(tmp_path / "images" / part / "@500000@4982950@32@T@@@.jpg")
    source = read_source(tmp_path)
    assert source.splits == {"test/gallery": 1, "test/queries": 1, "train/gallery": 1, "train/queries": 1}
    assert len(read_source(tmp_path, split="train").images) == 2
    assert read_source(tmp_path, split="train/database").images[0].split == "train/gallery"
    assert (
        read_source(tmp_path / "images/test", split="queries").images[0].place.name
        == "queries/@500000@4982950@32@T@@@.jpg"
    )
    with pytest.raises(SourceError, match="no image of split 'val'"):
        read_source(tmp_path, split="val")


def test_exif(tmp_path: Path) -> None:
    save(tmp_path / "naples.jpg", NAPLES | {
        GPS.GPSAltitude: 12.5, GPS.GPSAltitudeRef: b"\x00", GPS.GPSImgDirection: 45.5, GPS.GPSImgDirectionRef: "T",
        GPS.GPSDateStamp: "2026:11:23", GPS.GPSTimeStamp: (16.0, 30.0, 1.5),
    })  # fmt: skip
    place = read_source(tmp_path).images[0].place
    assert place.latitude_deg == pytest.approx(40 + 51 / 60 + 6 / 3600, abs=1e-9)
    assert place.longitude_deg == pytest.approx(14 + 16 / 60 + 5.1 / 3600, abs=1e-7)
    assert (place.altitude_m, place.heading_deg) == (12.5, 45.5)
    assert place.stamp_ns == 1_795_451_401_500_000_000  # date -u -d "2026-11-23 16:30:01.5" +%s%N


@pytest.mark.parametrize(
    "gps",
    [
        None,
        {},
        {GPS.GPSLatitudeRef: "N", GPS.GPSLatitude: (40.0, 51.0, 6.0)},
        NAPLES | {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
    ],
)
def test_exif_without_a_position_is_skipped(tmp_path: Path, gps: dict[int, Any] | None) -> None:
    save(tmp_path / "good.jpg", NAPLES)
    save(tmp_path / "sub" / "bad.jpg", gps)
    source = read_source(tmp_path)
    assert [i.place.name for i in source.images] == ["good.jpg"]
    assert [(s.name, s.reason) for s in source.skipped] == [("sub/bad.jpg", "without a GPS position in its EXIF")]


def test_exif_of_a_broken_file_is_skipped(tmp_path: Path) -> None:
    save(tmp_path / "good.jpg", NAPLES)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe1 not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    assert {s.reason for s in read_source(tmp_path).skipped} == {"unreadable"}


def test_a_folder_without_any_position_says_how_many(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.jpg")
    with pytest.raises(SourceError, match="no usable image: 3 without a GPS position in its EXIF"):
        read_source(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images in it"):
        read_source(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        read_source(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"notes\.txt: is no source, expected a folder of images, \.csv"):
        read_source(tmp_path / "notes.txt")


def test_exif_of_a_large_image_is_not_read(tmp_path: Path) -> None:
    """A PNG's EXIF may stand behind its pixels: who asks for it decodes them all."""
    Image.new("1", (16_400, 20)).save(tmp_path / "wide.png")
    Image.new("1", (20, 20)).save(tmp_path / "small.png")
    with pytest.raises(SourceError, match=r"1 unreadable") as caught:
        read_source(tmp_path)
    assert "1 without a GPS position in its EXIF" in str(caught.value)


def test_a_name_that_is_not_utf8_is_left_out(tmp_path: Path) -> None:
    """A gallery's names are: a build would end with an error behind the last image."""
    save(tmp_path / "a.jpg", NAPLES).rename(tmp_path / os.fsdecode(b"stra\xdfe.jpg"))
    save(tmp_path / "b.jpg", NAPLES)
    save(tmp_path / "straße.jpg", NAPLES)
    source = read_source(tmp_path)
    assert [image.place.name for image in source.images] == ["b.jpg", "straße.jpg"]
    assert [(skip.name, skip.reason) for skip in source.skipped] == [
        ("stra\\xdfe.jpg", "whose name is not UTF-8, as a gallery's names are")
    ]
