"""Aligning a gallery: the old alignment answers until the new one is whole, and no pair is compared twice."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.alignment.aligning import Suspect
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.picture import AlignedMap
from geowarp_ros.gallery.making import align as making
from geowarp_ros.gallery.making.align import align_gallery, draw_alignment, tagged
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.manifest import read_manifest, writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig
from test.gallery.alignment.fakes import FakeAlign, assert_rows, assert_same, opened_alignment
from test.gallery.conftest import WIDE, ColourDescriber, Views
from test.gallery.test_build import Killed, content

T = TypeVar("T")
CONFIG = KeypointConfig(count=20)
USABLE = 4
"""Photographs of five with keypoints: one is flat."""


def describer() -> ColourDescriber:
    return ColourDescriber(resolution=48)


@pytest.fixture
def path(views: Views, tmp_path: Path) -> Path:
    return build_gallery(views(5), describer(), tmp_path / "g", keypoints=CONFIG).gallery


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAlign:
    fake = FakeAlign([Suspect(3, 20.0), Suspect(1, 10.0)])
    monkeypatch.setattr(making, "align", fake)
    return fake


def test_what_is_found_is_stored(path: Path, fake: FakeAlign) -> None:
    options = AlignOptions(position_std_m=3.0, free_tilt=True)
    began = time.monotonic()
    summary = align_gallery(path, options)
    assert FakeAlign.TAKES_S <= summary.seconds <= time.monotonic() - began
    assert fake.options == [options]
    assert_same(opened_alignment(path), fake.alignment)
    stored = read_manifest(path).alignment
    assert stored is not None and stored.summary == summary and stored.options == options.model_dump()
    assert (summary.photographs, summary.tied, summary.residual_m, summary.tag_std_m) == (5, 4, 1.25, 1.5)
    assert [(tag.name, tag.off_m) for tag in summary.suspicious] == [("003.png", 20.0), ("001.png", 10.0)]
    assert (summary.headings, summary.points, summary.pairs) == (3, 9, 6)
    assert summary.lines == ("a moving car in 2 photographs",)
    opened = Gallery.open(path)
    frame = opened.frame
    assert stored.datum == (frame.datum_latitude_deg, frame.datum_longitude_deg, frame.datum_altitude_m)
    assert opened.verify() == []


def test_what_is_unknown_is_null(path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeAlign) -> None:
    def nothing(*args: object) -> object:
        alignment, report = fake(*args)  # type: ignore[arg-type]
        tied = np.zeros(len(alignment.tied), bool)
        return replace(alignment, tied=tied), replace(report, tied=0, residual_m=math.nan, tag_std_m=math.nan)

    monkeypatch.setattr(making, "align", nothing)
    summary = align_gallery(path)
    assert (summary.residual_m, summary.tag_std_m, summary.tied) == (None, None, 0)
    assert Gallery.open(path).alignment is None


def test_tags_as_they_came(views: Views, path: Path) -> None:
    remove_from_gallery(path, ["001.png"])
    add_to_gallery(views(2, "more", first=7), describer(), path)
    opened = Gallery.open(path)
    found = tagged(opened)
    assert len(found) == 7
    assert found[1].camera is None and len(found[1].keypoints) == 0, "removed"
    kept = [0, 2, 3, 4, 5, 6]
    for row, number in enumerate(kept):
        one = found[number]
        np.testing.assert_array_equal(one.position_m[:2], opened.positions_enu[row, :2])
        assert math.isnan(one.position_m[2]) and math.isnan(one.heading_deg), "the tags give neither"
        keypoints = opened.keypoints(row)
        assert keypoints is not None
        np.testing.assert_array_equal(one.keypoints.points, keypoints.points)
        assert one.camera == opened.camera(row)
    assert found[3].camera == WIDE.scaled_to(64, 48)


def test_tags_with_altitudes_and_headings(views: Views, tmp_path: Path) -> None:
    source = views(3)
    places = [
        replace(image.place, altitude_m=100.0 + k, heading_deg=10.0 * k) for k, image in enumerate(source.images)
    ]
    places[1] = replace(places[1], altitude_m=math.nan)
    images = tuple(replace(image, place=place) for image, place in zip(source.images, places, strict=True))
    path = build_gallery(replace(source, images=images), describer(), tmp_path / "h", keypoints=CONFIG).gallery
    found = tagged(Gallery.open(path))
    heights = [one.position_m[2] for one in found]
    assert heights[2] - heights[0] == pytest.approx(2.0, abs=1e-3) and math.isnan(heights[1])
    assert [one.heading_deg for one in found] == [0.0, 10.0, 20.0]


def test_again(path: Path, fake: FakeAlign) -> None:
    align_gallery(path)
    first = fake.alignment
    fake.seed = 1
    align_gallery(path, anew=True)
    assert len(fake.compared) == USABLE * (USABLE - 1) // 2, "no pair is compared twice"
    assert_same(opened_alignment(path), fake.alignment)
    assert not np.array_equal(first.position_m, fake.alignment.position_m)
    assert sorted(p.name for p in (path / "alignment").iterdir()) == ["0002", "pairs.bin"]
    assert Gallery.open(path).verify() == []


@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_stopped_run(path: Path, fake: FakeAlign, views: Views, done: int) -> None:
    align_gallery(path)
    before = fake.alignment
    add_to_gallery(views(3, "more", first=21), describer(), path)
    fake.compared.clear()
    fake.seed = 1

    def stop(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
        for number, item in enumerate(items):
            if number == done:
                raise Killed
            yield item

    with pytest.raises(Killed):
        align_gallery(path, progress=stop, anew=True)
    assert_rows(opened_alignment(path), before, [0, 1, 2, 3, 4, -1, -1, -1])
    assert Gallery.open(path).verify() == []
    align_gallery(path, anew=True)
    usable = USABLE + 3
    new = usable * (usable - 1) // 2 - USABLE * (USABLE - 1) // 2
    assert len(fake.compared) == len(set(fake.compared)) == new
    assert_same(opened_alignment(path), fake.alignment)


def test_killed_between_the_files_and_the_manifest(
    path: Path, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch
) -> None:
    align_gallery(path)
    before = fake.alignment

    def killed(*_: object) -> None:
        raise Killed

    fake.seed = 1
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(making, "commit", killed)
        align_gallery(path, anew=True)
    assert_same(opened_alignment(path), before)
    align_gallery(path, anew=True)
    assert_same(opened_alignment(path), fake.alignment)
    assert sorted(p.name for p in (path / "alignment").iterdir()) == ["0003", "pairs.bin"]


def test_pairs_follow_their_photographs(path: Path, fake: FakeAlign, views: Views) -> None:
    add_to_gallery(views(3, "more", first=21), describer(), path)
    align_gallery(path)
    remove_from_gallery(path, [f"{number:03d}.png" for number in range(5)])
    fake.compared.clear()
    align_gallery(path, anew=True)
    assert fake.compared == []
    assert len(opened_alignment(path).tied) == 3


def test_other_keypoints_are_no_obstacle_to_aligning_again(path: Path, fake: FakeAlign) -> None:
    align_gallery(path)
    manifest = path / "gallery.json"
    at = read_manifest(path).alignment
    assert at is not None
    manifest.write_text(manifest.read_text().replace(f'"keypoints_blake2b": "{at.segments[0].keypoints_blake2b}"',
                                                     f'"keypoints_blake2b": "{"0" * 32}"'))  # fmt: skip
    with pytest.raises(GalleryError, match="of other keypoints"):
        Gallery.open(path)
    align_gallery(path)
    assert_same(opened_alignment(path), fake.alignment)


def test_a_replaced_gallery_has_none(path: Path, fake: FakeAlign, views: Views) -> None:
    align_gallery(path)
    build_gallery(views(3, "new", first=50), describer(), path, keypoints=CONFIG, replace_existing=True)
    assert Gallery.open(path).alignment is None
    assert [p.name for p in (path / "alignment").iterdir()] == ["pairs.bin"]


def test_without_keypoints(views: Views, tmp_path: Path, fake: FakeAlign) -> None:
    path = build_gallery(views(3), describer(), tmp_path / "none", keypoints=None).gallery
    before = content(path)
    with pytest.raises(GalleryError, match=rf"stores no keypoints, .* first \(geowarp gallery upgrade {path}\)"):
        align_gallery(path)
    assert content(path) == before
    with pytest.raises(GalleryError, match="does not exist"):
        align_gallery(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_two_writers(path: Path, fake: FakeAlign) -> None:
    with writing(path), pytest.raises(GalleryError, match="another process is writing to this gallery"):
        align_gallery(path)
    assert not (path / "alignment").exists()


def test_what_cannot_be_written_loses_nothing(path: Path, fake: FakeAlign) -> None:
    align_gallery(path)
    before = content(path)
    script = "import sys, pathlib\nfrom geowarp_ros.gallery.making.align import align_gallery\n"
    script += "from geowarp_ros.errors import GalleryError\n"
    script += "try: align_gallery(pathlib.Path(sys.argv[1]))\nexcept GalleryError as error: print(error)\n"
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    words = [
        setpriv,
        "--bounding-set",
        "-dac_override,-dac_read_search,-fowner",
        sys.executable,
        "-c",
        script,
        str(path),
    ]
    (path / "alignment/pairs.bin").unlink()  # so that it is to be written
    (path / "alignment").chmod(0o555)
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        (path / "alignment").chmod(0o755)
    assert "alignment/pairs.bin: cannot be written: Permission denied" in said.stdout, said
    left = content(path)
    assert left == {name: data for name, data in before.items() if name != "alignment/pairs.bin"}
    assert_same(opened_alignment(path), fake.alignment)


def test_the_map_of_a_gallery(path: Path, fake: FakeAlign, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    """North of one another by 1e-4°; 002 is gone, 003 looks east, 004 down with its image's top to the south."""
    with pytest.raises(GalleryError, match="is not aligned"):
        draw_alignment(Gallery.open(path))
    east, down = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]

    def found(*args: object) -> object:
        alignment, report = fake(*args)  # type: ignore[arg-type]
        turned, positions = alignment.rotation.copy(), alignment.position_m.copy()
        turned[3:], positions[3] = np.array([east, down]), (5.0, 6.0, 7.0)
        return replace(alignment, rotation=turned, position_m=positions), report

    monkeypatch.setattr(making, "align", found)
    align_gallery(path)
    remove_from_gallery(path, ["001.png", "002.png"])
    add_to_gallery(views(1, "more", first=21), describer(), path)
    shown: list[AlignedMap] = []
    monkeypatch.setattr(making, "alignment_picture", shown.append)
    opened = Gallery.open(path)
    draw_alignment(opened)
    (drawn,) = shown
    assert drawn.title == "4 of 5 photographs tied, 1.25 m off their tags in the median, 1 suspicious tag"
    assert drawn.suspicious == {1: "003.png  20 m"}, "001.png is removed"
    assert np.diff(drawn.tags_m[:, 1]) == pytest.approx(np.array([3, 1, 17]) * 11.11, rel=1e-3)
    assert np.isfinite(drawn.positions_m).all(axis=1).tolist() == [False, True, True, False]
    np.testing.assert_array_equal(drawn.positions_m[1], [5.0, 6.0])
    assert drawn.headings_deg[1:3] == pytest.approx([90, 180])
    assert drawn.points_m.shape == (9, 2)
