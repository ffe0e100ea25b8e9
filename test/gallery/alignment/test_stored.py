"""An alignment in a gallery: whole or refused by name, and by rows that come and go."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.cameras import ESTIMATED, Camera
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, index_gallery, remove_from_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig
from test.gallery.alignment.fakes import alignment_for, assert_rows, assert_same, opened_alignment, put
from test.gallery.conftest import ColourDescriber, Views

CONFIG = KeypointConfig(count=20)
FILES = (
    "tied", "position_m", "rotation", "position_std_m", "heading_std_rad", "component", "points_m", "starts",
    "keypoint", "point",
)  # fmt: skip


def describer() -> ColourDescriber:
    return ColourDescriber(resolution=48)


@pytest.fixture
def path(views: Views, tmp_path: Path) -> Path:
    """A gallery of five photographs with keypoints."""
    return build_gallery(views(5), describer(), tmp_path / "g", keypoints=CONFIG).gallery


def test_round_trip(path: Path) -> None:
    expected = alignment_for(path)
    assert Gallery.open(path).alignment is None
    stored = put(path, expected)
    assert_same(opened_alignment(path), expected)
    assert {*stored.files} == {f"{name}.npy" for name in FILES}
    assert Gallery.open(path).verify() == []


def test_estimated_cameras_go_with_their_photographs(views: Views, tmp_path: Path) -> None:
    source = views(5)
    blind = replace(source, images=tuple(replace(image, camera=None) for image in source.images))
    path = build_gallery(blind, describer(), tmp_path / "blind", keypoints=CONFIG).gallery
    assert Gallery.open(path).only_camera is None
    wide = Camera(64, 48, 50.0, 50.0, 31.5, 23.5, source=ESTIMATED)
    tall = Camera(48, 64, 50.0, 50.0, 23.5, 31.5, source=ESTIMATED)
    expected = replace(alignment_for(path), cameras=(wide, tall), camera=np.array([1, 0, 1, 0, -1], np.int32))
    stored = put(path, expected)
    assert stored.cameras == (wide, tall) and "camera.npy" in stored.files
    assert_same(opened_alignment(path), expected)
    opened = Gallery.open(path)
    assert [opened.camera(row) for row in range(5)] == [tall, wide, tall, wide, None]
    photograph = opened.photograph(1)
    assert photograph is not None
    np.testing.assert_array_equal(photograph.rays, wide.normalised(photograph.keypoints.points))
    assert opened.only_camera is None, "two, and one is unknown"
    assert opened.verify() == []
    remove_from_gallery(path, ["000.png", "002.png", "004.png"])
    add_to_gallery(replace(views(2, "more", first=7), skipped=()), describer(), path)
    opened = Gallery.open(path)
    assert opened.camera(0) == wide and opened.camera(1) == wide and opened.camera(2) != wide
    remove_from_gallery(path, [place.name for place in opened.places][2:])
    only = Gallery.open(path).only_camera
    assert only == replace(wide, source=f"the gallery's camera ({ESTIMATED})")


def test_estimated_cameras_that_are_not_there_are_refused(path: Path) -> None:
    put(path, replace(alignment_for(path), camera=np.zeros(5, np.int32)))
    with pytest.raises(GalleryError, match=r"camera\.npy: names cameras that the manifest does not have"):
        Gallery.open(path)


def test_nothing_tied_is_no_alignment(path: Path) -> None:
    none = alignment_for(path)
    put(path, replace(none, tied=np.zeros(5, bool)))
    opened = Gallery.open(path)
    assert opened.alignment is None and opened.photograph(1) is None and opened.manifest.alignment is not None


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_as_written(path: Path, name: str) -> None:
    put(path, alignment_for(path))
    file = path / f"alignment/0001/{name}.npy"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    if name not in ("starts", "point"):  # those two are looked at as they open
        assert Gallery.open(path).verify() == [f"{file}: content has changed, its checksum differs"]
    file.write_bytes(data[:-1])
    with pytest.raises(GalleryError, match=rf"{name}\.npy: is truncated: {len(data) - 1} bytes, expected "):
        Gallery.open(path)
    file.unlink()
    with pytest.raises(GalleryError, match=rf"{name}\.npy: is missing"):
        Gallery.open(path)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("rotation", b"<f8", b"<i8", r"rotation\.npy: holds int64 \(5, 3, 3\), expected float64 \(5, 3, 3\)"),
        (
            "position_m",
            b"(5, 3)",
            b"(3, 5)",
            r"position_m\.npy: holds float64 \(3, 5\), expected float64 \(5, 3\)",
        ),
        ("points_m", b"(9, 3)", b"(3, 9)", r"points_m\.npy: holds float64 \(3, 9\), expected float64 \(9, 3\)"),
        ("tied", b"NUMPY", b"NUMBY", r"tied\.npy: is no array"),
    ],
)
def test_foreign_files_are_refused(path: Path, name: str, old: bytes, new: bytes, said: str) -> None:
    put(path, alignment_for(path))
    file = path / f"alignment/0001/{name}.npy"
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    with pytest.raises(GalleryError, match=said):
        Gallery.open(path)


@pytest.mark.parametrize("number", [-1, 9])
def test_points_that_are_not_there_are_refused(path: Path, number: int) -> None:
    alignment = alignment_for(path)
    point = alignment.point.copy()
    point[0] = number
    put(path, replace(alignment, point=point))
    with pytest.raises(GalleryError, match=r"point\.npy: names points that points_m\.npy does not have"):
        Gallery.open(path)


@pytest.mark.parametrize("starts", [[0, 3, 2, 4, 5, 6], [1, 2, 3, 4, 5, 6]])
def test_observations_out_of_order_are_refused(path: Path, starts: list[int]) -> None:
    alignment = alignment_for(path)
    six = replace(alignment, starts=np.array(starts), keypoint=alignment.keypoint[:6], point=alignment.point[:6])
    put(path, six)
    with pytest.raises(GalleryError, match=r"starts\.npy: does not ascend from 0"):
        Gallery.open(path)


def test_other_keypoints_are_refused_with_the_command(path: Path) -> None:
    put(path, alignment_for(path))
    manifest = json.loads((path / "gallery.json").read_text())
    manifest["alignment"]["segments"][0]["keypoints_blake2b"] = "0" * 32
    (path / "gallery.json").write_text(json.dumps(manifest))
    with pytest.raises(
        GalleryError, match=rf"its alignment 0001 is of other keypoints .* \(geowarp gallery align {path}\)"
    ):
        Gallery.open(path)


def test_rows_come_and_go(views: Views, path: Path) -> None:
    expected = alignment_for(path)
    put(path, expected)
    add_to_gallery(views(3, "more", first=20), describer(), path)
    found = opened_alignment(path)
    assert_rows(found, expected, [0, 1, 2, 3, 4, -1, -1, -1])
    base: Any = found.point
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap), "what was added leaves the observations on the disk"

    remove_from_gallery(path, ["001.png", "021.png"])
    opened = Gallery.open(path)
    assert [place.name for place in opened.places] == [
        "000.png", "002.png", "003.png", "004.png", "020.png", "022.png",
    ]  # fmt: skip
    assert opened.alignment is not None
    assert_rows(opened.alignment, expected, [0, 1, 2, 3, 4, -1, -1, -1])  # by stored row
    third = opened.photograph(2)  # 003.png, stored row 3
    assert third is not None
    np.testing.assert_array_equal(third.position_m, expected.position_m[3])
    keypoint, point = expected.observations(3)
    np.testing.assert_array_equal(third.points_m[keypoint], expected.points_m[point])
    assert opened.camera(5) is not None or opened.camera(4) is not None
    assert opened.photograph(4) is None and opened.photograph(5) is None, "added after the alignment"


def test_a_segment_goes_and_its_name_is_not_used_again(views: Views, path: Path) -> None:
    add_to_gallery(views(3, "second", first=20), describer(), path)
    add_to_gallery(views(2, "third", first=30), describer(), path)
    expected = alignment_for(path)
    put(path, expected)
    remove_from_gallery(path, ["020.png", "021.png", "022.png"])
    assert_rows(opened_alignment(path), expected, [0, 1, 2, 3, 4, 8, 9])
    remove_from_gallery(path, ["030.png", "031.png"])
    assert_rows(opened_alignment(path), expected, [0, 1, 2, 3, 4])
    add_to_gallery(views(3, "fourth", first=40), describer(), path)
    opened = Gallery.open(path)
    assert [segment.name for segment in opened.manifest.segments] == ["0001", "0004"]
    assert_rows(opened_alignment(path), expected, [0, 1, 2, 3, 4, -1, -1, -1])
    assert opened.verify() == []
    remove_from_gallery(path, [f"{number:03d}.png" for number in range(5)])
    with pytest.raises(AssertionError):
        assert_rows(opened_alignment(path), expected, [0, 1, 2])
    assert_rows(opened_alignment(path), expected, [-1, -1, -1])


def test_the_index_does_not_touch_it(views: Views, path: Path) -> None:
    add_to_gallery(views(3, "second", first=20), describer(), path)
    expected = alignment_for(path)
    put(path, expected)
    index_gallery(path, IndexOptions())
    assert_rows(opened_alignment(path), expected, range(8))
    remove_from_gallery(path, [f"{number:03d}.png" for number in range(5)])
    index_gallery(path, IndexOptions())
    assert_rows(opened_alignment(path), expected, [5, 6, 7])


def test_an_empty_gallery(path: Path) -> None:
    put(path, alignment_for(path))
    remove_from_gallery(path, [f"{number:03d}.png" for number in range(5)])
    assert len(opened_alignment(path).tied) == 0


def test_a_robot_opens_it_without_what_makes_it() -> None:
    script = """
import sys
import geowarp_ros.gallery.alignment.stored
assert "scipy" not in sys.modules
import geowarp_ros.gallery.store, geowarp_ros.localizer
assert not {"poselib", "pycolmap", "geowarp_ros.gallery.alignment.aligning"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
