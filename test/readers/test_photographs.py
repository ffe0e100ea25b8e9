"""Which files of a folder are its photographs: links, hidden files, thumbnails, formats that need a plugin."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from geowarp_ros.errors import SourceError
from geowarp_ros.images import lacking
from geowarp_ros.readers import read_source
from test.readers.test_folders import NAPLES, save


def names(folder: Path, split: str | None = None) -> list[str]:
    return [image.place.name for image in read_source(folder, split=split).images]


def test_mapillary_sls_has_its_test_split_by_a_link(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for side in ("database", "queries"):
            save(tmp_path / part / side / "@500000@4982950@32@T@@@.jpg")
    (tmp_path / "test").symlink_to(tmp_path / "val")
    source = read_source(tmp_path)
    assert source.splits == {
        f"{part}/{side}": 1 for part in ("test", "train", "val") for side in ("gallery", "queries")
    }
    assert names(tmp_path, "test/gallery") == ["test/database/@500000@4982950@32@T@@@.jpg"]
    assert source.images[0].read().shape == (20, 30, 3)


def test_a_folder_to_which_several_links_lead_is_read_once(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "b" / "x.jpg", NAPLES)
    save(tmp_path / "elsewhere" / "y.jpg", NAPLES)
    (tmp_path / "photos" / "a").symlink_to("b")
    for name in "cd":
        (tmp_path / "photos" / name).symlink_to("../elsewhere")
    assert names(tmp_path / "photos") == ["b/x.jpg", "c/y.jpg"]
    (tmp_path / "linked").symlink_to("photos")
    assert names(tmp_path / "linked") == ["b/x.jpg", "c/y.jpg"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_loop_of_links_is_refused(tmp_path: Path, target: str) -> None:
    save(tmp_path / "photos" / "a" / "x.jpg", NAPLES)
    (tmp_path / "photos" / "a" / "again").symlink_to(target)
    with pytest.raises(SourceError, match=r"a/again: is a link to .*, in which it is itself, expected no loop"):
        read_source(tmp_path / "photos")


def test_two_folders_that_link_to_one_another_are_a_loop(tmp_path: Path) -> None:
    for here, there in ("ab", "ba"):
        save(tmp_path / here / "x.jpg", NAPLES)
        (tmp_path / here / "other").symlink_to(tmp_path / there)
    with pytest.raises(SourceError, match="expected no loop"):
        read_source(tmp_path / "a")


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", NAPLES)
    (tmp_path / "test").symlink_to(tmp_path / "gone")
    (skipped,) = read_source(tmp_path).skipped
    assert (skipped.name, skipped.reason) == ("test", "links to nothing")


def test_hidden_files_and_thumbnails_are_no_photographs(tmp_path: Path) -> None:
    root = tmp_path / ".hidden" / "@eaDir"  # what lies above is the user's
    for name in (
        "x.jpg",
        "._x.jpg",
        ".thumbnails/x.jpg",
        "@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/._x.jpg",
    ):
        save(root / name, NAPLES)
    source = read_source(root)
    assert [image.place.name for image in source.images] == ["x.jpg"] and not source.skipped


def save_as(path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(NAPLES)
    Image.fromarray(np.full((64, 80, 3), 77, np.uint8)).save(path, kind, exif=exif.tobytes())


@pytest.mark.parametrize(("suffix", "kind"), [("HEIC", "HEIF"), ("heif", "HEIF"), ("avif", "AVIF"), ("jxl", "JXL"),
                                              ("jpg", "HEIF"), ("tiff", "TIFF"), ("jfif", "JPEG")])  # fmt: skip
def test_photographs_in_formats_of_plugins(tmp_path: Path, suffix: str, kind: str) -> None:
    assert kind in ("TIFF", "JPEG") or lacking(kind) == ""
    save_as(tmp_path / f"a.{suffix}", kind)
    (image,) = read_source(tmp_path).images
    assert (image.place.latitude_deg, image.place.longitude_deg) == pytest.approx((40.85167, 14.26808), abs=1e-5)
    assert np.abs(image.read().astype(int) - 77).max() < 5
    (tmp_path / "positions.csv").write_text(f"filename,latitude,longitude\na.{suffix},1,2\n")
    assert read_source(tmp_path).images[0].read().shape == (64, 80, 3)


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    lacking.cache_clear()
    yield
    lacking.cache_clear()


NEEDS = "in HEIF, which needs pillow-heif: pip install 'geowarp_ros[photos]'"


def test_photographs_that_need_an_absent_plugin_are_counted_and_it_is_named(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert lacking("HEIF") == ""
    save_as(tmp_path / "IMG_1.HEIC", "HEIF")
    shutil.copy(tmp_path / "IMG_1.HEIC", tmp_path / "IMG_2.jpg")  # as some phones' exports are called
    request.getfixturevalue("no_heif")
    with pytest.raises(SourceError) as caught:
        read_source(tmp_path)
    assert f"no usable image: 2 {NEEDS}" in str(caught.value)
    save(tmp_path / "x.jpg", NAPLES)
    assert [(skip.name, skip.reason) for skip in read_source(tmp_path).skipped] == [
        ("IMG_1.HEIC", NEEDS), ("IMG_2.jpg", NEEDS),
    ]  # fmt: skip
    (tmp_path / "positions.csv").write_text("filename,latitude,longitude\nIMG_1.HEIC,1,2\nx.jpg,1,2\n")
    assert [(skip.name, skip.reason) for skip in read_source(tmp_path).skipped] == [("IMG_1.HEIC", NEEDS)]


def test_raw_photographs_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", NAPLES)
    (tmp_path / "x.CR3").write_bytes(b"II*\0")
    (skipped,) = read_source(tmp_path).skipped
    assert skipped.reason == "raw photographs, which are not read: export them as DNG or JPEG"


RATIONAL, SRATIONAL, SHORTS = 5, 10, 3


def directory(tags: dict[int, tuple[int, Any]], at: int) -> bytes:
    """A TIFF directory that stands at an offset, with its values behind it (TIFF 6.0, sec. 2)."""
    entries, rest, heap = struct.pack("<H", len(tags)), b"", at + 2 + 12 * len(tags) + 4
    for number, (kind, value) in sorted(tags.items()):
        if kind in (RATIONAL, SRATIONAL):
            data, count = b"".join(struct.pack("<iI", round(10_000 * v), 10_000) for v in value), len(value)
        elif isinstance(value, tuple):
            data, count = struct.pack(f"<{len(value)}H", *value), len(value)
        else:
            data, count = (value, len(value)) if kind < 3 else (struct.pack("<" + "HI"[kind - 3], value), 1)
        where = struct.pack("<I", heap + len(rest)) if len(data) > 4 else data.ljust(4, b"\0")
        rest += data + bytes(len(data) % 2) if len(data) > 4 else b""
        entries += struct.pack("<HHI", number, kind, count) + where
    return entries + bytes(4) + rest


def write_dng(path: Path, width: int = 96, height: int = 64, orientation: int = 1) -> None:
    """A raw picture as a camera writes it: RGGB, 16 bits, its left half darker (DNG 1.4)."""
    raw = np.full((height, width), 30_000, "<u2")
    raw[0::2, 0::2], raw[1::2, 1::2] = 20_000, 10_000
    raw[:, : width // 2] //= 8
    gps = directory({1: (2, b"S\0"), 2: (5, (33, 51, 0)), 3: (2, b"E\0"), 4: (5, (151, 12, 0))}, 8)
    strip = 8 + len(gps)
    matrix = (
        3.2406,
        -1.5372,
        -0.4986,
        -0.9689,
        1.8758,
        0.0415,
        0.0557,
        -0.2040,
        1.0570,
    )  # XYZ -> the camera's: sRGB
    tags = {
        254: (4, 0), 256: (4, width), 257: (4, height), 258: (3, 16), 259: (3, 1), 262: (3, 32803),
        271: (2, b"Test\0"), 272: (2, b"Camera\0"),
        273: (4, strip), 274: (3, orientation), 277: (3, 1), 278: (4, height),
        279: (4, raw.nbytes), 33421: (SHORTS, (2, 2)), 33422: (1, bytes([0, 1, 1, 2])), 34853: (4, 8),
        50706: (1, bytes([1, 4, 0, 0])), 50708: (2, b"Test Camera\0"), 50714: (3, 0), 50717: (4, 65535),
        50721: (SRATIONAL, matrix), 50728: (RATIONAL, (1, 1, 1)), 50778: (3, 21),
    }  # fmt: skip
    main = strip + raw.nbytes
    path.write_bytes(b"II*\0" + struct.pack("<I", main) + gps + raw.tobytes() + directory(tags, main))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_dng_is_developed_upright(tmp_path: Path, orientation: int) -> None:
    assert lacking("DNG") == ""
    write_dng(tmp_path / "x.DNG", orientation=orientation)
    (image,) = read_source(tmp_path).images
    assert (image.place.latitude_deg, image.place.longitude_deg) == pytest.approx((-33.85, 151.2))
    colours = image.read().astype(float)
    red, green, blue = colours.mean(axis=(0, 1))
    assert green > 1.1 * red > 1.2 * blue
    picture = colours.mean(axis=2)
    assert picture.shape == ((64, 96) if orientation == 1 else (96, 64))
    dark, bright = (picture[:, :40], picture[:, -40:]) if orientation == 1 else (picture[:40], picture[-40:])
    assert dark.mean() < 0.6 * bright.mean()  # 6: the left side is at the top
    (tmp_path / "x.DNG").write_bytes((tmp_path / "x.DNG").read_bytes()[:3000])
    with pytest.raises(SourceError, match="no usable image: 1 unreadable"):
        read_source(tmp_path)


def test_a_tiff_by_the_name_of_a_dng_is_a_tiff(tmp_path: Path) -> None:
    assert lacking("DNG") == ""
    save_as(tmp_path / "a.dng", "TIFF")
    assert read_source(tmp_path).images[0].read().shape == (64, 80, 3)
