"""Keypoints and cameras of the photographs: stored with everything else, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.errors import CameraError, GalleryError
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.making.shards import Shard
from geowarp_ros.gallery.photographs import CAMERA_FILES, KEYPOINT_FILES
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.readers import Source
from test.gallery.conftest import LATITUDE, LONGITUDE, WIDE, ColourDescriber, Views
from test.gallery.test_build import Killed, content, kill_after
from test.gallery.test_shards import same

CONFIG = KeypointConfig(count=60)
RESOLUTION = 48


def describer() -> ColourDescriber:
    return ColourDescriber(resolution=RESOLUTION)


def keypoints_of(gallery: Gallery, row: int) -> Keypoints:
    found = gallery.keypoints(row)
    assert found is not None
    return found


def assert_as_detected(gallery: Gallery, source: Source, config: KeypointConfig) -> None:
    """Row by row, the keypoints are those of the original image, the camera that of the working resolution."""
    images = {image.place.name: image for image in source.images}
    for row, place in enumerate(gallery.places):
        image = images[place.name]
        height, width = gallery.image(row).shape[:2]
        expected = KeypointDetector(config)(image.read(), width, height)
        np.testing.assert_array_equal(keypoints_of(gallery, row).points, expected.points)
        np.testing.assert_array_equal(keypoints_of(gallery, row).descriptors, expected.descriptors)
        assert gallery.camera(row) == image.camera_at(width, height)


@pytest.mark.parametrize("form", ["half", "int8", "pq"])
@pytest.mark.parametrize("copy_images", [True, False])
def test_round_trip(views: Views, tmp_path: Path, form: Any, copy_images: bool) -> None:
    source = views(8)
    path = build_gallery(
        source, describer(), tmp_path / "g", batch_size=3, keypoints=CONFIG, copy_images=copy_images,
        local_features=form,
    ).gallery  # fmt: skip
    opened = Gallery.open(path)
    assert opened.keypoint_config == CONFIG
    assert_as_detected(opened, source, CONFIG)
    assert [len(keypoints_of(opened, row)) for row in (1, 2, 3)] == [60, 0, 60]
    cameras = [opened.camera(row) for row in range(8)]
    assert cameras[0] is None and cameras[4] is None
    wide = cameras[1]
    assert wide is not None and (wide.width_px, wide.height_px, wide.distortion) == (64, 48, WIDE.distortion)
    expected = (50, 151 / 3, 95.5 / 3 - 0.5, 72.5 / 3 - 0.5)
    assert (wide.fx, wide.fy, wide.cx, wide.cy) == pytest.approx(expected, abs=1e-12)
    assert {camera and camera.source for camera in cameras} == {None, "camera.yaml", "EXIF"}
    stored = json.loads((path / "segments/0001/cameras.json").read_text())
    assert len(stored) == 2  # each is stored once
    assert opened.verify() == []


def test_keypoints_are_mapped(views: Views, tmp_path: Path) -> None:
    opened = Gallery.open(build_gallery(views(3), describer(), tmp_path / "g").gallery)
    for array in (keypoints_of(opened, 1).points, keypoints_of(opened, 1).descriptors):
        base: Any = array
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)


def test_without_keypoints_and_cameras(views: Views, tmp_path: Path) -> None:
    source = views(3)
    source = replace(source, images=tuple(replace(image, camera=None) for image in source.images))
    path = build_gallery(source, describer(), tmp_path / "g", keypoints=None).gallery
    opened = Gallery.open(path)
    assert opened.keypoint_config is None
    assert all(opened.keypoints(row) is None and opened.camera(row) is None for row in range(3))
    assert opened.photograph(0) is None
    assert not {*KEYPOINT_FILES, *CAMERA_FILES} & {file.name for file in (path / "segments/0001").iterdir()}
    add_to_gallery(views(2, "more", first=10), describer(), path)
    added = Gallery.open(path)
    assert added.keypoints(4) is None, "a gallery has keypoints of all its photographs, or of none"
    assert (added.camera(2), added.camera(4)) == (None, WIDE.scaled_to(64, 48))
    assert added.verify() == []


def test_add_detects_what_the_gallery_has_and_remove_keeps_the_rows_right(views: Views, tmp_path: Path) -> None:
    first, second = views(5), views(4, "more", first=20)
    path = build_gallery(first, describer(), tmp_path / "g", keypoints=CONFIG).gallery
    add_to_gallery(second, describer(), path)
    remove_from_gallery(path, ["001.png", "020.png"])
    opened = Gallery.open(path)
    assert [place.name for place in opened.places] == [
        "000.png", "002.png", "003.png", "004.png", "021.png", "022.png", "023.png",
    ]  # fmt: skip
    assert_as_detected(opened, replace(first, images=(*first.images, *second.images)), CONFIG)
    assert opened.verify() == []


@pytest.mark.parametrize(("batches", "done"), [(0, 0), (1, 0), (2, 2), (3, 4)])
def test_a_killed_build_goes_on(views: Views, tmp_path: Path, batches: int, done: int) -> None:
    source = views(8)
    whole = build_gallery(source, describer(), tmp_path / "whole", batch_size=2).gallery
    killed = describer()
    kill_after(killed, batches)
    with pytest.raises(Killed):
        build_gallery(source, killed, tmp_path / "g", batch_size=2)
    assert build_gallery(source, describer(), tmp_path / "g", batch_size=2).resumed >= done
    assert content(tmp_path / "g/segments") == content(whole / "segments")


def stop_after_two_batches(source: Source, output: Path) -> Path:
    killed = describer()
    kill_after(killed, 3)
    with pytest.raises(Killed):
        build_gallery(source, killed, output, batch_size=2, keypoints=CONFIG)
    return output / "segments/0001.partial"


@pytest.mark.parametrize("damage", ["half a row", "points without descriptors", "rubbish behind", "no such lens"])
def test_half_written_keypoints_are_cut_off(views: Views, tmp_path: Path, damage: str) -> None:
    source = views(8)
    partial = stop_after_two_batches(source, tmp_path / "g")
    points, descriptors = partial / "keypoints.npy", partial / "keypoint_descriptors.npy"
    if damage == "half a row":
        os.truncate(descriptors, descriptors.stat().st_size - 64)
    elif damage == "points without descriptors":
        os.truncate(descriptors, 128)
    elif damage == "rubbish behind":
        for path in (points, descriptors):
            with path.open("ab") as file:
                file.write(b"of a batch without a line in the journal")
    else:
        journal = partial / "journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join([*lines[:-1], lines[-1].replace("plumb_bob", "plum_blob")]))
    report = build_gallery(source, describer(), tmp_path / "g", batch_size=2, keypoints=CONFIG)
    assert report.resumed == {"rubbish behind": 6, "points without descriptors": 0}.get(damage, 4)
    opened = Gallery.open(tmp_path / "g")
    assert opened.verify() == []
    assert_as_detected(opened, source, CONFIG)


def test_other_keypoints_or_cameras_do_not_take_over_what_was_left(views: Views, tmp_path: Path) -> None:
    source = views(8)
    stop_after_two_batches(source, tmp_path / "g")
    assert build_gallery(source, describer(), tmp_path / "g", batch_size=2).resumed == 0
    stop_after_two_batches(source, tmp_path / "h")
    without = replace(source, images=tuple(replace(image, camera=None) for image in source.images))
    report = build_gallery(without, describer(), tmp_path / "h", batch_size=2, keypoints=CONFIG)
    assert report.resumed == 0 and Gallery.open(tmp_path / "h").camera(1) is None


def test_parts_make_what_one_process_makes(views: Views, tmp_path: Path) -> None:
    source = views(9)
    build_gallery(source, describer(), tmp_path / "alone", batch_size=2, keypoints=CONFIG)
    for index in (1, 0):
        part = Shard(index, 2)
        build_gallery(source, describer(), tmp_path / "g", batch_size=2, keypoints=CONFIG, shard=part)
    assert same(tmp_path / "g", tmp_path / "alone")
    build_gallery(source, describer(), tmp_path / "h", batch_size=2, keypoints=CONFIG, shard=Shard(0, 2))
    other = build_gallery(source, describer(), tmp_path / "h", batch_size=2, shard=Shard(1, 2))
    assert other.missing == 1, "parts with other keypoints are of another build"


def test_replaced_as_a_whole(views: Views, tmp_path: Path) -> None:
    build_gallery(views(5), describer(), tmp_path / "g", keypoints=None)
    source = views(3, "other", first=30)
    build_gallery(source, describer(), tmp_path / "g", keypoints=CONFIG, replace_existing=True)
    assert_as_detected(Gallery.open(tmp_path / "g"), source, CONFIG)


def test_a_camera_of_other_images_is_refused_with_the_photographs_name(views: Views, tmp_path: Path) -> None:
    source = views(4)
    source = replace(source, images=tuple(replace(image, camera=WIDE) for image in source.images))
    with pytest.raises(
        CameraError, match=r"000\.png: camera\.yaml: is of images of 192×144 px, the image has 48×64"
    ):
        build_gallery(source, describer(), tmp_path / "g")
    assert not (tmp_path / "g/gallery.json").exists()


@pytest.mark.parametrize("name", [*KEYPOINT_FILES, *CAMERA_FILES])
def test_truncated_and_missing_files_are_named(views: Views, tmp_path: Path, name: str) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g").gallery
    file = path / "segments/0001" / name
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(GalleryError, match=rf"{name}: is truncated: {len(data) - 1} bytes, expected {len(data)}"):
        Gallery.open(path)
    file.unlink()
    with pytest.raises(GalleryError, match=rf"{name}: is missing"):
        Gallery.open(path)
    manifest = json.loads((path / "gallery.json").read_text())
    del manifest["segments"][0]["files"][name]
    (path / "gallery.json").write_text(json.dumps(manifest))
    if name in CAMERA_FILES:
        return
    with pytest.raises(GalleryError, match=rf"segment 0001 names no {name}; the manifest was edited"):
        Gallery.open(path)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("keypoints.npy", b"", b""),
        ("keypoint_descriptors.npy", b"", b""),
        ("cameras.json", b"EXIF", b"exif"),
    ],
)
def test_verify_finds_what_sizes_do_not_show(
    views: Views, tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g").gallery
    file = path / "segments/0001" / name
    data = file.read_bytes()
    file.write_bytes(data.replace(old, new) if old else data[:-1] + bytes([data[-1] ^ 1]))
    assert Gallery.open(path).verify() == [f"{file}: content has changed, its checksum differs"]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("cameras.json", b'"fx"', b'"xf"', r"cameras\.json: is no list of cameras: 0"),
        ("cameras.json", b"[", b"{", r"cameras\.json: is no list of cameras: "),
        ("cameras.json", b'"fx": 5', b'"fx":-5', r"cameras\.json: camera\.yaml: fx is -50 px"),
        ("camera_numbers.npy", b"\1\0\0\0", b"\7\0\0\0", r"names cameras that cameras\.json does not have"),
        (
            "keypoint_starts.npy",
            b"<i8",
            b"<u8",
            r"keypoint_starts\.npy: holds uint64 \(5,\), expected int64 \(5,\)",
        ),
        ("keypoints.npy", b"<f4", b"<i4", r"keypoints\.npy: holds int32 .*, expected float32"),
        ("keypoint_descriptors.npy", b"|u1", b"|i1", r"keypoint_descriptors\.npy: holds int8 .*, expected uint8"),
    ],
)
def test_foreign_content_of_the_right_size_is_refused(
    views: Views, tmp_path: Path, name: str, old: bytes, new: bytes, said: str
) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g").gallery
    file = path / "segments/0001" / name
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    with pytest.raises(GalleryError, match=said):
        Gallery.open(path)


def test_a_photograph_is_put_together_by_stored_row(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g", keypoints=CONFIG).gallery
    remove_from_gallery(path, ["000.png"])
    add_to_gallery(views(2, "more", first=9), describer(), path)
    opened = Gallery.open(path)
    assert opened.photograph(4) is None, "no alignment"
    tied = np.array([False, True, False, True, False, False])
    rotation = np.full((6, 3, 3), np.nan)
    rotation[tied] = np.eye(3)
    alignment = Alignment(
        datum=(LATITUDE, LONGITUDE, 0.0),
        tied=tied,
        position_m=np.concatenate([np.arange(12.0).reshape(4, 3), np.full((2, 3), np.nan)]),
        rotation=rotation,
        position_std_m=np.array([9.0, 0.5, 9.0, 0.25, np.nan, np.nan]),
        heading_std_rad=np.array([np.nan, 0.01, np.nan, 0.02, np.nan, np.nan]),
        component=np.array([-1, 0, -1, 0, -1, -1], np.int32),
        points_m=np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]),
        starts=np.array([0, 0, 2, 2, 4, 4, 4]),
        keypoint=np.array([5, 7, 0, 59], np.int32),
        point=np.array([2, 0, 1, 2], np.int32),
    )
    monkeypatch.setitem(vars(opened), "alignment", alignment)
    photograph = opened.photograph(0)  # 001.png, stored row 1
    assert photograph is not None and photograph.row == 0
    keypoints, camera = keypoints_of(opened, 0), opened.camera(0)
    assert camera == WIDE.scaled_to(64, 48)
    np.testing.assert_array_equal(photograph.keypoints.descriptors, keypoints.descriptors)
    ahead = np.column_stack([photograph.rays, np.ones(60)])
    np.testing.assert_allclose(camera.project(ahead), keypoints.points, atol=1e-3)
    assert photograph.point[[5, 7]].tolist() == [2, 0] and (np.delete(photograph.point, [5, 7]) == -1).all()
    np.testing.assert_array_equal(photograph.points_m[[5, 7]], [[7, 8, 9], [1, 2, 3]])
    assert np.isnan(np.delete(photograph.points_m, [5, 7], axis=0)).all()
    np.testing.assert_array_equal(photograph.position_m, [3, 4, 5])
    assert (photograph.position_std_m, photograph.heading_std_rad) == (0.5, 0.01)
    assert opened.photograph(0) is photograph, "kept in memory"
    last = opened.photograph(2)  # 003.png, stored row 3
    assert last is not None and last.point[[0, 59]].tolist() == [1, 2]
    untied = opened.photograph(1)  # 002.png, flat
    assert untied is not None and len(untied.keypoints) == 0 and np.isnan(untied.rotation).all()
    assert opened.photograph(3) is None, "added after the alignment"
