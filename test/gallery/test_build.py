"""Building, adding, removing; stopped at every moment, on a full disk, by two at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError, ModelError, SourceError
from geowarp_ros.gallery.making import build, filling, segment
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.manifest import writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Skipped, Source, read_source
from geowarp_ros.types import Image
from test.gallery.bags import drive, write_bag
from test.gallery.conftest import ColourDescriber, MakeSource

T = TypeVar("T")


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(gallery: Path) -> list[str]:
    return [place.name for place in Gallery.open(gallery).places]


def test_report(source: Source, describer: ColourDescriber, tmp_path: Path) -> None:
    seen = []

    def progress(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
        for item in items:
            seen.append((total, label))
            yield item

    report = build_gallery(source, describer, tmp_path / "g", batch_size=3, progress=progress)
    assert (report.images, report.added, report.resumed, report.skipped) == (7, 7, 0, ())
    assert describer.batches == [3, 3, 1]
    assert seen == [(7, "describing images")] * 7 + [(7, "storing images")] * 7
    assert {p.name for p in (tmp_path / "g/segments/0001").iterdir()} == {
        "descriptors.npy", "local_features.npy", "places.csv", "places.npy", "images",
        "keypoints.npy", "keypoint_descriptors.npy", "keypoint_starts.npy",
    }  # fmt: skip


def test_unreadable_images_are_counted_and_the_rest_is_good(
    make_source: MakeSource, describer: ColourDescriber, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = read_source(make_source(5, broken=(0, 3)))
    report = build_gallery(source, describer, tmp_path / "g", batch_size=2)
    assert report.skipped == (Skipped("000.png", "unreadable"), Skipped("003.png", "unreadable"))
    assert "003.png" in caplog.text
    assert names(tmp_path / "g") == ["001.png", "002.png", "004.png"]
    opened = Gallery.open(tmp_path / "g")
    np.testing.assert_allclose(opened.image(2), source.images[4].read(), atol=4)
    assert opened.verify() == []


def test_no_readable_image_is_refused_and_leaves_no_gallery(
    make_source: MakeSource, describer: ColourDescriber, tmp_path: Path
) -> None:
    source = read_source(make_source(2, broken=(0, 1)))
    with pytest.raises(SourceError, match=r"none of its 2 images can be read, the first is 000\.png"):
        build_gallery(source, describer, tmp_path / "g")
    assert not list((tmp_path / "g/segments").iterdir())
    with pytest.raises(SourceError, match="no usable image"):
        build_gallery(replace(source, images=()), describer, tmp_path / "g")


def test_descriptors_that_are_not_finite_are_refused(
    source: Source, describer: ColourDescriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = describer.describe_batch

    def broken(images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        descriptors, features = describe(images)
        descriptors[0, 2] = np.nan
        return descriptors, features

    monkeypatch.setattr(describer, "describe_batch", broken)
    with pytest.raises(ModelError, match=r"descriptor of 000\.png has NaN"):
        build_gallery(source, describer, tmp_path / "g")


def kill_after(describer: ColourDescriber, batches: int) -> None:
    describe = describer.describe_batch

    def describe_batch(images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        if len(describer.batches) == batches:
            raise Killed
        return describe(images)

    vars(describer)["describe_batch"] = describe_batch


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_second_run_goes_on_after_the_last_batch(make_source: MakeSource, tmp_path: Path, batches: int) -> None:
    source = read_source(make_source(7, broken=(1,)))
    whole = build_gallery(source, ColourDescriber(), tmp_path / "whole", batch_size=2).gallery
    killed = ColourDescriber()
    kill_after(killed, batches)
    with pytest.raises(Killed):
        build_gallery(source, killed, tmp_path / "g", batch_size=2)
    with pytest.raises(GalleryError, match="has an unfinished gallery"):
        Gallery.open(tmp_path / "g")
    second = ColourDescriber()
    report = build_gallery(source, second, tmp_path / "g", batch_size=2)
    done = [0, 1, 5][(0, 1, 3).index(batches)]  # images in the batches; the broken one is in the first
    assert report.resumed == done and sum(second.batches) == 6 - done
    assert report.skipped == (Skipped("001.png", "unreadable"),)
    assert content(tmp_path / "g/segments/0001") == content(whole / "segments/0001")
    assert Gallery.open(tmp_path / "g").verify() == []


@pytest.mark.parametrize("moment", ["write_manifest", "forget_journal"])
def test_killed_around_the_commit(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(build, moment, killed)
        build_gallery(source, ColourDescriber(), tmp_path / "g")
    if moment == "forget_journal":  # the manifest is there
        assert len(Gallery.open(tmp_path / "g")) == 7
        remove_from_gallery(tmp_path / "g", ["000.png"])
    else:
        second = ColourDescriber()
        assert build_gallery(source, second, tmp_path / "g").resumed == 7
        assert second.batches == []
    assert Gallery.open(tmp_path / "g").verify() == []
    assert [p.name for p in (tmp_path / "g/segments").iterdir()] == ["0001"]
    assert not (tmp_path / "g/segments/0001/plan.json").exists()


def stop_in_second_batch(source: Source, output: Path) -> Path:
    describer = ColourDescriber()
    kill_after(describer, 2)
    with pytest.raises(Killed):
        build_gallery(source, describer, output, batch_size=2)
    return output / "segments/0001.partial"


@pytest.mark.parametrize(
    "damage",
    [
        "half a line",
        "a line of zeros",
        "half an array",
        "image of the last batch",
        "zeros in it",
        "rubbish behind",
    ],
)
def test_what_a_power_cut_leaves(source: Source, tmp_path: Path, damage: str) -> None:
    partial = stop_in_second_batch(source, tmp_path / "g")
    journal = partial / "journal.jsonl"
    if damage == "half a line":
        journal.write_bytes(journal.read_bytes()[:-30])
    elif damage == "a line of zeros":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(lines[0] + b'{"done": 0}' + bytes(len(lines[1]) - 12) + b"\n")
    elif damage == "zeros in it":  # the size reached the disk and the content did not
        image = partial / "images/000003.jpg"
        image.write_bytes(bytes(image.stat().st_size))
    elif damage == "half an array":
        os.truncate(partial / "local_features.npy", (partial / "local_features.npy").stat().st_size - 1)
    elif damage == "image of the last batch":
        os.truncate(partial / "images/000003.jpg", 0)
    else:
        for name in ("descriptors.npy", "local_features.npy"):
            with (partial / name).open("ab") as file:
                file.write(b"batch without a line in the journal")
    report = build_gallery(source, ColourDescriber(), tmp_path / "g", batch_size=2)
    assert report.resumed == (4 if damage == "rubbish behind" else 2)
    opened = Gallery.open(tmp_path / "g")
    assert opened.verify() == []
    np.testing.assert_array_equal(
        opened.descriptors, ColourDescriber().describe_batch([i.read() for i in source.images])[0]
    )


def test_another_source_or_model_does_not_take_over_what_was_left(
    source: Source, make_source: MakeSource, tmp_path: Path
) -> None:
    stop_in_second_batch(source, tmp_path / "g")
    other = read_source(make_source(3, "other", first=50))
    assert build_gallery(other, ColourDescriber(), tmp_path / "g").resumed == 0
    assert names(tmp_path / "g") == ["050.png", "051.png", "052.png"]
    assert [p.name for p in (tmp_path / "g/segments").iterdir()] == ["0002"]
    stop_in_second_batch(source, tmp_path / "h")
    assert build_gallery(source, ColourDescriber("beef"), tmp_path / "h").resumed == 0


def test_add(gallery: Path, make_source: MakeSource, describer: ColourDescriber) -> None:
    before = content(gallery / "segments/0001")
    more = read_source(make_source(4, first=5))  # two of them are there already
    report = add_to_gallery(more, describer, gallery)
    assert (report.images, report.added) == (9, 2)
    assert [(s.name, s.reason) for s in report.skipped] == [
        ("005.png", "already in the gallery"),
        ("006.png", "already in the gallery"),
    ]
    opened = Gallery.open(gallery)
    assert names(gallery) == [f"{i:03d}.png" for i in range(9)]
    assert content(gallery / "segments/0001") == before
    images = [opened.image(i) for i in range(9)]
    descriptors, features = ColourDescriber().describe_batch(images)
    np.testing.assert_allclose(opened.descriptors, descriptors, atol=0.02)
    np.testing.assert_allclose(opened.local_features([8, 0, 3]), features[[8, 0, 3]], atol=0.03)
    assert opened.search(opened.descriptors[8])[0].place.name == "008.png"
    assert opened.verify() == []
    with pytest.raises(SourceError, match="nothing new"):
        add_to_gallery(more, describer, gallery)


def test_add_refuses_the_same_name_elsewhere_and_takes_a_prefix(
    gallery: Path, make_source: MakeSource, describer: ColourDescriber
) -> None:
    folder = make_source(2, "other")
    table = folder / "positions.csv"
    table.write_text(table.read_text().replace("45.0,", "46.0,"))
    other = read_source(folder)
    with pytest.raises(
        GalleryError, match=r"has an image '000\.png' at 45\.0000000, .*the new one is at 46\.0000000"
    ):
        add_to_gallery(other, describer, gallery)
    add_to_gallery(other, describer, gallery, prefix="day2/")
    assert set(names(gallery)[-2:]) == {"day2/000.png", "day2/001.png"}


def test_add_refuses_another_model(gallery: Path, make_source: MakeSource) -> None:
    with pytest.raises(GalleryError, match="made by model 0123456789abcdef"):
        add_to_gallery(read_source(make_source(2, "other", first=50)), ColourDescriber("beef"), gallery)
    assert len(Gallery.open(gallery)) == 7


def test_add_killed_leaves_the_old_gallery_and_goes_on(gallery: Path, make_source: MakeSource) -> None:
    before = content(gallery)
    more = read_source(make_source(5, "more", first=20))
    describer = ColourDescriber()
    kill_after(describer, 1)
    with pytest.raises(Killed):
        add_to_gallery(more, describer, gallery, batch_size=2)
    assert before.items() <= content(gallery).items()
    assert len(Gallery.open(gallery)) == 7
    assert add_to_gallery(more, ColourDescriber(), gallery, batch_size=2).resumed == 2
    assert len(Gallery.open(gallery)) == 12


def test_remove(gallery: Path) -> None:
    descriptors = np.array(Gallery.open(gallery).descriptors)
    segment_before = content(gallery / "segments/0001")
    assert remove_from_gallery(gallery, ["002.png", "005.png"]) == 5
    opened = Gallery.open(gallery)
    assert names(gallery) == ["000.png", "001.png", "003.png", "004.png", "006.png"]
    np.testing.assert_array_equal(opened.descriptors, descriptors[[0, 1, 3, 4, 6]])
    assert opened.search(descriptors[4])[0].place.name == "004.png"
    assert opened.positions_enu.shape == (5, 3)
    features = np.load(gallery / "segments/0001/local_features.npy")
    np.testing.assert_array_equal(opened.local_features([2])[0], features[3])
    assert opened.verify() == []
    assert content(gallery / "segments/0001") == segment_before
    with pytest.raises(GalleryError, match=r"has no image '00\.png' \(did you mean '00"):
        remove_from_gallery(gallery, ["00.png", "001.png"])
    with pytest.raises(GalleryError, match=r"has no image '002\.png'"):
        remove_from_gallery(gallery, ["002.png"])
    assert len(Gallery.open(gallery)) == 5


def test_a_removed_name_can_come_back(gallery: Path, make_source: MakeSource, describer: ColourDescriber) -> None:
    remove_from_gallery(gallery, ["006.png"])
    add_to_gallery(read_source(make_source(1, first=6)), describer, gallery)
    assert names(gallery) == [f"{i:03d}.png" for i in range(7)]
    remove_from_gallery(gallery, ["006.png"])
    assert names(gallery) == [f"{i:03d}.png" for i in range(6)]


def test_build_over_a_gallery(
    gallery: Path, source: Source, make_source: MakeSource, describer: ColourDescriber
) -> None:
    with pytest.raises(GalleryError, match="has a gallery of 7 images already; add to it, replace it"):
        build_gallery(source, describer, gallery)
    (gallery / "calibration.json").write_text("{}")
    killed = ColourDescriber("beef")
    kill_after(killed, 1)
    other = read_source(make_source(5, "other", first=30))
    with pytest.raises(Killed):
        build_gallery(other, killed, gallery, batch_size=2, replace_existing=True)
    assert len(Gallery.open(gallery)) == 7
    assert (gallery / "calibration.json").exists()  # the old gallery is whole
    report = build_gallery(other, ColourDescriber("beef"), gallery, batch_size=2, replace_existing=True)
    assert not (gallery / "calibration.json").exists()  # it says nothing about the new one
    assert (report.images, report.resumed) == (5, 2)
    opened = Gallery.open(gallery)
    opened.check_model("beef")
    assert opened.verify() == [] and len(opened) == 5
    assert [p.name for p in (gallery / "segments").iterdir()] == ["0002"]


def test_other_peoples_folders_are_left_alone(source: Source, describer: ColourDescriber, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="is no gallery and has 'source' in it; expected a new or empty folder"):
        build_gallery(source, describer, tmp_path)
    with pytest.raises(GalleryError, match=r"positions\.csv: is a file, expected a folder"):
        build_gallery(source, describer, tmp_path / "source/positions.csv")
    with pytest.raises(GalleryError, match="has no gallery in it"):
        add_to_gallery(source, describer, tmp_path)
    assert not (tmp_path / ".lock").exists()


def test_two_at_once(gallery: Path, source: Source, describer: ColourDescriber, tmp_path: Path) -> None:
    with writing(gallery):
        with pytest.raises(GalleryError, match="another process is writing to this gallery"):
            remove_from_gallery(gallery, ["000.png"])
        with pytest.raises(GalleryError, match="another process is writing"):
            build_gallery(source, describer, gallery, replace_existing=True)
        assert len(Gallery.open(gallery)) == 7  # reading goes on
    remove_from_gallery(gallery, ["000.png"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("where", ["image", "array", "journal", "manifest"])
def test_a_disk_that_refuses_loses_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    targets: dict[str, tuple[object, str]] = {
        "image": (filling, "_store_image"),
        "array": (segment._GrowingArray, "append"),
        "journal": (json, "dumps"),
        "manifest": (build, "write_manifest"),
    }
    with monkeypatch.context() as patch, pytest.raises(GalleryError) as raised:
        patch.setattr(*targets[where], refuse)
        build_gallery(source, ColourDescriber(), tmp_path / "g", batch_size=3)
    message = str(raised.value)
    assert os.strerror(number) in message and str(tmp_path / "g") in message and "\n" not in message
    build_gallery(source, ColourDescriber(), tmp_path / "g", batch_size=3)
    assert Gallery.open(tmp_path / "g").verify() == []


def test_a_folder_that_cannot_be_made(source: Source, describer: ColourDescriber, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GalleryError, match="cannot be written: Not a directory"):
        build_gallery(source, describer, tmp_path / "file" / "gallery")


def test_images_of_a_bag(tmp_path: Path, describer: ColourDescriber) -> None:
    source = read_source(write_bag(tmp_path / "drive", drive()))
    opened = Gallery.open(build_gallery(source, describer, tmp_path / "g", batch_size=3).gallery)
    assert opened.places[3].latitude_deg == pytest.approx(45.0015, abs=1e-8)
    assert opened.places[3].stamp_ns == source.images[3].place.stamp_ns
    np.testing.assert_allclose(opened.image(3), source.images[3].read(), atol=8)
    with pytest.raises(GalleryError, match="its images have no files to refer to"):
        build_gallery(source, describer, tmp_path / "h", copy_images=False)


KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.readers import read_source
from test.gallery.conftest import ColourDescriber

class Mortal(ColourDescriber):
    def describe_batch(self, images):
        if len(self.batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().describe_batch(images)

build_gallery(read_source(Path(sys.argv[1])), Mortal(), Path(sys.argv[2]), batch_size=2)
"""


def test_sigkill(source: Source, make_source: MakeSource, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILL_ITSELF, str(tmp_path / "source"), str(tmp_path / "g")]
    assert subprocess.run(command, cwd=root, timeout=120).returncode == -signal.SIGKILL
    report = build_gallery(source, ColourDescriber(), tmp_path / "g", batch_size=2)  # the lock died with it
    assert report.resumed in (2, 4)  # the second batch was on its way to the disk
    assert report.added == 7
    assert Gallery.open(tmp_path / "g").verify() == []
