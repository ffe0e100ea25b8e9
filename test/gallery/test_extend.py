"""A gallery of two streets whose photographs come and go: what is untouched keeps its poses to the bit."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest

from geowarp_ros.cameras import ESTIMATED
from geowarp_ros.gallery.alignment import extending
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import align as align_all
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.stored import store_alignment
from geowarp_ros.gallery.making import align as making
from geowarp_ros.gallery.making import filling
from geowarp_ros.gallery.making.align import align_gallery
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, commit, remove_from_gallery
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from geowarp_ros.gallery.manifest import AlignmentSummary, read_manifest
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Image
from test.gallery.alignment.fakes import assert_same, opened_alignment
from test.gallery.alignment.scenes import CAMERA, DATUM, FloatArray, street
from test.gallery.alignment.test_aligning import off
from test.gallery.alignment.test_extending import assert_untouched
from test.gallery.conftest import ColourDescriber
from test.gallery.test_build import Killed

T = TypeVar("T")
OPTIONS = AlignOptions(position_std_m=1.0, neighbours=10)
FRAME = LocalFrame(*DATUM)
STREETS = {1: street(0, 10), 2: street(1, 8)}
"""By the red of their images; the green tells which photograph it is."""


class Synthetic:
    """In the place of the detector: the keypoints of the photograph whose colour the image has."""

    def __init__(self, config: object) -> None:
        pass

    def __call__(self, image: Image, width: int, height: int) -> Keypoints:
        red, green, _ = image[0, 0]
        return STREETS[int(red)].keypoints[int(green)]


def true(which: int) -> FloatArray:
    return np.add(STREETS[which].positions, (0, 150.0 * (which - 1), 0))


def source(folder: Path, which: int, rows: range, camera: bool = True) -> Source:
    """Photographs of a street; the second lies 150 m to the north of the first."""
    folder.mkdir()
    if camera:
        write_camera(folder / "camera.yaml", CAMERA)
    tags = true(which)
    tags[:, :2] += off(len(tags), 0.5, which)
    latitude, longitude, altitude = FRAME.to_geodetic(tags)
    with (folder / "positions.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "latitude", "longitude", "altitude"])
        for row in rows:
            name = f"{which}-{row}.png"
            cv2.imwrite(str(folder / name), np.full((240, 320, 3), (9, row, which), np.uint8))
            table.writerow([name, latitude[row], longitude[row], altitude[row]])
    return read_source(folder)


def describer() -> ColourDescriber:
    return ColourDescriber()


@pytest.fixture(autouse=True)
def keypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "KeypointDetector", Synthetic)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first street, aligned."""
    folder = tmp_path_factory.mktemp("extend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "KeypointDetector", Synthetic)
        path = build_gallery(source(folder / "one", 1, range(8)), describer(), folder / "g").gallery
    align_gallery(path, OPTIONS)
    return path


@pytest.fixture
def path(aligned: Path, tmp_path: Path) -> Path:
    shutil.copytree(aligned, tmp_path / "g")
    return tmp_path / "g"


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of photographs of each alignment of all."""
    aligns: list[int] = []

    def align(given: list[object], *rest: object) -> object:
        aligns.append(len(given))
        return align_all(given, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "align", align)
    return aligns


def truth_errors(found: Alignment, which: int, rows: range) -> float:
    own = LocalFrame(*found.datum).to_enu(*FRAME.to_geodetic(true(which)))
    return float(np.median(np.linalg.norm((found.position_m[rows] - own)[:, :2], axis=1)))


def test_a_street_is_added(path: Path, tmp_path: Path, full: list[int]) -> None:
    before = opened_alignment(path)
    datum = before.datum
    add_to_gallery(source(tmp_path / "two", 2, range(8)), describer(), path)
    summary = align_gallery(path, OPTIONS)
    found = opened_alignment(path)
    assert full == [] and found.datum == datum
    assert Gallery.open(path).frame.datum_latitude_deg > datum[0] + 5e-4, "75 m"
    assert_untouched(found, before, range(8))
    assert (summary.photographs, summary.tied, summary.components) == (16, 16, (8, 8))
    assert summary.lines[0].startswith("8 new photographs aligned with 0 about them; 8 others stay as they were")
    assert truth_errors(found, 2, range(8, 16)) < 0.6
    stored = read_manifest(path).alignment
    assert stored is not None and stored.name == "0002" and stored.summary == summary
    assert [segment.name for segment in stored.segments] == ["0001", "0002"]
    assert Gallery.open(path).verify() == []

    anew = align_gallery(path, OPTIONS, anew=True)
    assert full == [16]
    again = opened_alignment(path)
    assert anew.tied == 16 and again.datum != datum
    assert truth_errors(again, 2, range(8, 16)) > truth_errors(found, 2, range(8, 16)) - 0.1
    assert anew.points == summary.points


@pytest.mark.parametrize("done", [0, 7, 28, "adjusting", "storing"])
def test_a_kill_loses_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int | str, full: list[int]
) -> None:
    before = opened_alignment(path)
    add_to_gallery(source(tmp_path / "two", 2, range(8)), describer(), path)

    totals = []

    def stop(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
        totals.extend([total] if label.startswith("comparing") else [])
        for number, item in enumerate(items):
            if number == done and label.startswith("comparing"):
                raise Killed
            yield item

    def killed(*_: object) -> None:
        raise Killed

    where = {"adjusting": (extending, "settle"), "storing": (making, "commit")}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if isinstance(done, str):
            patch.setattr(*where[done], killed)
        align_gallery(path, OPTIONS, stop)
    left = opened_alignment(path)
    assert_untouched(left, before, range(8))
    assert np.isnan(left.position_m[8:]).all() and Gallery.open(path).verify() == []
    compared = []

    def count(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
        compared.extend([total] if label.startswith("comparing") else [])
        yield from items

    assert align_gallery(path, OPTIONS, count).tied == 16
    assert totals[0] > 28, "more than those of the new street"
    assert compared == [totals[0] - done if isinstance(done, int) else 0, 0]
    assert_untouched(opened_alignment(path), before, range(8))
    assert full == []


def test_removed_photographs_leave_their_group(path: Path, tmp_path: Path, full: list[int]) -> None:
    add_to_gallery(source(tmp_path / "two", 2, range(8)), describer(), path)
    align_gallery(path, OPTIONS)
    before = opened_alignment(path)
    remove_from_gallery(path, ["2-1.png"])
    assert_same(opened_alignment(path), before)
    summary = align_gallery(path, OPTIONS)
    found = opened_alignment(path)
    assert_untouched(found, before, range(8))
    assert (summary.photographs, summary.tied, summary.components) == (15, 15, (8, 7)) and full == []
    assert not found.tied[9] and not np.array_equal(found.position_m[8], before.position_m[8])
    remove_from_gallery(path, [f"2-{row}.png" for row in range(8) if row != 1])  # the segment goes
    summary = align_gallery(path, OPTIONS)
    assert_untouched(opened_alignment(path), before, range(8))
    assert (summary.photographs, summary.tied, summary.components) == (8, 8, (8,)) and full == []


def test_cameras_that_come_later(path: Path, tmp_path: Path, full: list[int]) -> None:
    """Two photographs of unknown camera are not tied; with one, they are as if they had come since."""
    add_to_gallery(source(tmp_path / "more", 1, range(8, 10), camera=False), describer(), path)
    assert align_gallery(path, OPTIONS).tied == 8 and full == [10]
    upgrade_gallery(path, camera=CAMERA)
    summary = align_gallery(path, OPTIONS)
    assert summary.tied == 10 and full == [10]
    assert summary.lines[0].startswith("2 new photographs aligned with 8 about them; 0 others")


def test_estimated_cameras_of_images_that_are_gone_stay(path: Path, tmp_path: Path, full: list[int]) -> None:
    """As on a robot whose gallery refers to images on the workstation."""
    images = source(tmp_path / "one", 1, range(8), camera=False)
    gallery = build_gallery(images, describer(), tmp_path / "h", copy_images=False).gallery
    manifest, aligned = read_manifest(gallery), read_manifest(path).alignment
    assert aligned is not None
    estimate = replace(CAMERA, source=ESTIMATED)
    before = replace(opened_alignment(path), cameras=(estimate,), camera=np.zeros(8, np.int32))
    stored = store_alignment(gallery, manifest.segments, before, OPTIONS.model_dump(), aligned.summary)
    commit(gallery, manifest.model_copy(update={"alignment": stored}))
    shutil.rmtree(tmp_path / "one")

    add_to_gallery(source(tmp_path / "two", 2, range(8)), describer(), gallery)
    summary = align_gallery(gallery, OPTIONS)
    assert_untouched(opened_alignment(gallery), before, range(8))
    assert Gallery.open(gallery).camera(3) == estimate
    assert (summary.tied, full) == (16, [])


@pytest.mark.parametrize("what", ["options", "an old note", "a damaged file", "anew"])
def test_when_all_are_aligned(path: Path, full: list[int], what: str) -> None:
    options = OPTIONS.model_copy(update={"position_std_m": 1.5}) if what == "options" else OPTIONS
    if what == "an old note":  # before cameras were noted
        manifest, stored = path / "gallery.json", read_manifest(path).alignment
        assert stored is not None
        was = f'"cameras_blake2b": "{stored.segments[0].cameras_blake2b}"'
        text = manifest.read_text()
        assert was in text
        manifest.write_text(text.replace(was, '"cameras_blake2b": null'))
    if what == "a damaged file":
        file = path / "alignment/0001/position_m.npy"
        file.write_bytes(file.read_bytes()[:-8])
    summary = align_gallery(path, options, anew=what == "anew")
    assert full == [8] and isinstance(summary, AlignmentSummary) and summary.tied == 8
