"""Galleries of earlier versions get what they lack from their own images; stopped, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError, GalleryError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making import upgrade
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, index_gallery, remove_from_gallery
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from geowarp_ros.gallery.manifest import writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import read_image
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector
from geowarp_ros.readers import Source
from geowarp_ros.readers.camera_files import write_camera
from test.gallery.conftest import WIDE, Views
from test.gallery.test_build import Killed, content
from test.gallery.test_photographs import CONFIG, describer, keypoints_of

T = TypeVar("T")

SQUARE = Camera(500, 500, 400.0, 400.0, 250.0, 250.0, source="square.yaml")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_AT_ONCE", 2)


def without_camera(source: Source) -> Source:
    return replace(source, images=tuple(replace(image, camera=None) for image in source.images))


def of_format_2(source: Source, path: Path, **options: Any) -> Path:
    """A gallery as the version before made it."""
    build_gallery(without_camera(source), describer(), path, keypoints=None, batch_size=3, **options)
    manifest = json.loads((path / "gallery.json").read_text())
    del manifest["keypoints"]
    (path / "gallery.json").write_text(json.dumps(manifest | {"format_version": 2}))
    return path


def assert_upgraded(gallery: Gallery, config: KeypointConfig) -> None:
    """Row by row, the keypoints are those of the image that the gallery keeps."""
    assert gallery.keypoint_config == config
    for row in range(len(gallery)):
        segment, number = gallery.places.locate(row)
        height, width = gallery.image(row).shape[:2]
        kept = read_image(segment.folder / segment.table[number].image)
        expected = KeypointDetector(config)(kept, width, height)
        np.testing.assert_array_equal(keypoints_of(gallery, row).points, expected.points)
        np.testing.assert_array_equal(keypoints_of(gallery, row).descriptors, expected.descriptors)
    assert gallery.verify() == []


@pytest.mark.parametrize("copy_images", [True, False])
def test_an_old_gallery_is_read_as_it_is_and_upgraded(views: Views, tmp_path: Path, copy_images: bool) -> None:
    path = of_format_2(views(5), tmp_path / "g", copy_images=copy_images)
    add_to_gallery(without_camera(views(3, "more", first=20)), describer(), path)
    remove_from_gallery(path, ["001.png", "022.png"])
    old = Gallery.open(path)
    assert old.keypoint_config is None and old.keypoints(0) is None and old.photograph(0) is None
    before = content(path)
    report = upgrade_gallery(path, CONFIG)
    assert (report.keypoints, report.cameras) == (8, 0)  # rows, removed ones too
    opened = Gallery.open(path)
    assert [place.name for place in opened.places] == [place.name for place in old.places]
    assert_upgraded(opened, CONFIG)
    assert old.image(2).shape == opened.image(2).shape, "what has it open reads on"
    after = content(path)
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"gallery.json"}
    assert {name.split("/")[-1] for name in after.keys() - before.keys()} == {
        "keypoints.npy", "keypoint_descriptors.npy", "keypoint_starts.npy",
    }  # fmt: skip
    assert upgrade_gallery(path, CONFIG).keypoints == 0
    assert content(path) == after, "nothing is missing, nothing is done"
    add_to_gallery(views(2, "later", first=40), describer(), path)
    assert len(keypoints_of(Gallery.open(path), 7)) == 60


def test_removed_photographs_are_not_looked_at(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(4), tmp_path / "g")
    remove_from_gallery(path, ["001.png"])
    (path / "segments/0001/images/000001.jpg").unlink()
    upgrade_gallery(path, CONFIG)
    opened = Gallery.open(path)
    assert np.diff(opened.segments[0].keypoints.starts).tolist()[1] == 0  # type: ignore[union-attr]
    assert_upgraded(opened, CONFIG)


def test_a_gallery_of_format_1_gets_its_positions(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(4), tmp_path / "g")
    manifest = json.loads((path / "gallery.json").read_text())
    del manifest["segments"][0]["files"]["places.npy"]
    (path / "gallery.json").write_text(json.dumps(manifest | {"format_version": 1}))
    expected = (path / "segments/0001/places.npy").read_bytes()
    (path / "segments/0001/places.npy").unlink()
    upgrade_gallery(path, CONFIG)
    assert (path / "segments/0001/places.npy").read_bytes() == expected
    assert "places.npy" in Gallery.open(path).manifest.segments[0].files


def test_keypoints_of_a_version_that_named_no_contrast_keep_theirs(views: Views, tmp_path: Path) -> None:
    path, old = tmp_path / "g", KeypointConfig(count=60, scale=2.0, contrast=0.04)
    build_gallery(views(4), describer(), path, keypoints=old)
    manifest = json.loads((path / "gallery.json").read_text())
    del manifest["keypoints"]["contrast"]
    (path / "gallery.json").write_text(json.dumps(manifest))
    assert Gallery.open(path).keypoint_config == old
    before = content(path)
    upgrade_gallery(path)
    assert Gallery.open(path).keypoint_config == old and content(path) == before


def test_cameras_are_added_where_none_is_known(views: Views, tmp_path: Path) -> None:
    wide = views(8)
    wide = replace(wide, images=wide.images[1::2])  # 192×144
    path = of_format_2(wide, tmp_path / "g")
    assert upgrade_gallery(path, CONFIG, WIDE).cameras == 4
    opened = Gallery.open(path)
    assert [opened.camera(row) for row in range(4)] == [WIDE.scaled_to(64, 48)] * 4
    other = replace(WIDE, fx=999.0)
    assert upgrade_gallery(path, CONFIG, other).cameras == 0, "what is known is not replaced"
    index_gallery(path, IndexOptions())
    assert Gallery.open(path).camera(0) == WIDE.scaled_to(64, 48)


def test_referenced_images_tell_their_cameras(views: Views, tmp_path: Path) -> None:
    wide = views(8)
    wide = replace(wide, images=wide.images[1::2])  # 192×144
    path = of_format_2(wide, tmp_path / "g", copy_images=False)
    assert upgrade_gallery(path, CONFIG).cameras == 0 and Gallery.open(path).camera(0) is None
    write_camera(tmp_path / "views/camera.yaml", WIDE)  # put there since
    report = upgrade_gallery(path, CONFIG)
    assert (report.keypoints, report.cameras) == (0, 4)
    opened = Gallery.open(path)
    expected = replace(WIDE, source=str(tmp_path / "views/camera.yaml")).scaled_to(64, 48)
    assert [opened.camera(row) for row in range(4)] == [expected] * 4
    assert opened.verify() == []
    stored = of_format_2(wide, tmp_path / "h")
    assert upgrade_gallery(stored, CONFIG).cameras == 0, "what is stored is no source's image"


def test_a_camera_of_other_images_is_refused_and_the_old_gallery_stays(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(4), tmp_path / "g")
    before = (path / "gallery.json").read_bytes()
    with pytest.raises(CameraError, match=r"\d+\.png: square\.yaml: is of images of 500×500"):
        upgrade_gallery(path, CONFIG, SQUARE)
    assert (path / "gallery.json").read_bytes() == before and Gallery.open(path).verify() == []
    assert upgrade_gallery(path, CONFIG).keypoints == 4


def test_an_absent_image_is_named_and_the_old_gallery_stays(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(4), tmp_path / "g", copy_images=False)
    shutil.move(tmp_path / "views/003.png", tmp_path / "003.png")
    with pytest.raises(
        GalleryError, match=r"image of 003\.png: .*cannot be read.*; remove it first, or put it back"
    ):
        upgrade_gallery(path, CONFIG)
    assert Gallery.open(path).keypoint_config is None
    shutil.move(tmp_path / "003.png", tmp_path / "views/003.png")
    upgrade_gallery(path, CONFIG)
    assert_upgraded(Gallery.open(path), CONFIG)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_killed_upgrade_goes_on(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    whole = of_format_2(views(8), tmp_path / "whole")
    upgrade_gallery(whole, CONFIG)
    path = of_format_2(views(8), tmp_path / "g")
    before = content(path)

    def killing(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        for number, item in enumerate(items):
            if number == batches:
                raise Killed
            yield item

    with pytest.raises(Killed):
        upgrade_gallery(path, CONFIG, progress=killing)
    assert before.items() <= content(path).items() and Gallery.open(path).keypoint_config is None
    assert Gallery.open(path).verify() == []
    seen: list[int] = []

    def counting(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        seen.append(total)
        return items

    assert upgrade_gallery(path, CONFIG, progress=counting).keypoints == 8
    assert seen == [4 - batches]
    assert content(path / "segments") == content(whole / "segments")


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("damage", ["half a row", "rubbish behind", "half a line", "other keypoints", "change"])
def test_what_a_stopped_upgrade_leaves(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = of_format_2(views(6), tmp_path / "g")

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(upgrade, "commit", killed)
        upgrade_gallery(path, KeypointConfig(count=20) if damage == "other keypoints" else CONFIG)
    segment = path / "segments/0001"
    if damage == "half a row":
        os.truncate(
            segment / "keypoint_descriptors.npy", (segment / "keypoint_descriptors.npy").stat().st_size - 5
        )
    elif damage == "rubbish behind":
        with (segment / "keypoints.npy").open("ab") as file:
            file.write(b"\x07" * 1000)
    elif damage == "half a line":
        os.truncate(segment / "journal.jsonl", (segment / "journal.jsonl").stat().st_size - 9)
    elif damage == "change":  # another change deletes what no manifest names
        remove_from_gallery(path, ["003.png"])
        assert not (segment / "keypoints.npy").exists() and Gallery.open(path).verify() == []
    upgrade_gallery(path, CONFIG)
    assert_upgraded(Gallery.open(path), CONFIG)
    assert not (segment / "journal.jsonl").exists() and not (segment / "plan.json").exists()


KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
from geowarp_ros.gallery.making import upgrade
from geowarp_ros.keypoints.detector import KeypointConfig

upgrade._AT_ONCE = 2

def progress(items, total, label):
    for number, item in enumerate(items):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item

upgrade.upgrade_gallery(Path(sys.argv[1]), KeypointConfig(count=60), progress=progress)
"""


def test_sigkill(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(8), tmp_path / "g")
    command = [sys.executable, "-c", KILL_ITSELF, str(path)]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, timeout=120).returncode == -signal.SIGKILL
    assert Gallery.open(path).keypoint_config is None and len(list(path.rglob("journal.jsonl"))) == 1
    upgrade_gallery(path, CONFIG)  # the lock died with it
    assert_upgraded(Gallery.open(path), CONFIG)


def test_one_at_a_time_and_only_galleries(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(2), tmp_path / "g")
    with writing(path), pytest.raises(GalleryError, match="another process is writing"):
        upgrade_gallery(path)
    with pytest.raises(GalleryError, match="has no gallery in it"):
        upgrade_gallery(tmp_path)
    assert not (tmp_path / ".lock").exists()
