"""Several processes build the gallery that one would; killed, started again, finishing in any order."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import GalleryError, SourceError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.making.filling import by_place
from geowarp_ros.gallery.making.shards import ALONE, Shard
from geowarp_ros.gallery.manifest import in_turn, writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.source import SourceImage
from geowarp_ros.types import Place
from test.gallery.conftest import ColourDescriber, MakeSource
from test.gallery.test_build import Killed, content, kill_after


def same(gallery: Path, other: Path) -> bool:
    """Row by row, whatever the segments."""
    first, second = Gallery.open(gallery), Gallery.open(other)
    assert repr(list(first.places)) == repr(list(second.places)) and first.splits == second.splits
    np.testing.assert_array_equal(first.descriptors, second.descriptors)
    rows = range(len(first))
    np.testing.assert_array_equal(first.local_features(rows), second.local_features(rows))
    for row in rows:
        np.testing.assert_array_equal(first.image(row), second.image(row))
        ours, theirs = first.keypoints(row), second.keypoints(row)
        assert ours is not None and theirs is not None
        np.testing.assert_array_equal(ours.points, theirs.points)
        np.testing.assert_array_equal(ours.descriptors, theirs.descriptors)
        assert first.camera(row) == second.camera(row)
    assert first.verify() == second.verify() == []
    return True


@pytest.fixture
def big(make_source: MakeSource) -> Source:
    return read_source(make_source(13, "big", broken=(4,)))


@pytest.fixture
def alone(big: Source, tmp_path: Path) -> Path:
    return build_gallery(big, ColourDescriber(), tmp_path / "alone", batch_size=2).gallery


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_in_any_order_make_the_gallery_that_one_process_makes(
    big: Source, alone: Path, tmp_path: Path, order: tuple[int, ...]
) -> None:
    missing = [
        build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(index, 3)).missing
        for index in order
    ]
    assert missing == [2, 1, 0]
    assert same(tmp_path / "g", alone)
    assert len(Gallery.open(tmp_path / "g").manifest.segments) == 3
    assert Gallery.open(tmp_path / "g").manifest.datum == Gallery.open(alone).frame.datum
    assert {path.name for path in (tmp_path / "g/segments").glob("*/*.json*")} == set()  # no notes left
    with pytest.raises(GalleryError, match="has a gallery of 12 images already"):
        build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(0, 3))


def test_a_part_that_was_killed_goes_on(big: Source, alone: Path, tmp_path: Path) -> None:
    killed = ColourDescriber()
    kill_after(killed, 2)
    with pytest.raises(Killed):
        build_gallery(big, killed, tmp_path / "g", batch_size=2, shard=Shard(1, 2))
    build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(0, 2))
    with pytest.raises(GalleryError, match="has an unfinished gallery"):
        Gallery.open(tmp_path / "g")
    again = ColourDescriber()  # torchrun starts all of them again
    assert build_gallery(big, again, tmp_path / "g", batch_size=2, shard=Shard(0, 2)).missing == 1
    assert again.batches == []
    assert build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(1, 2)).resumed == 4
    assert same(tmp_path / "g", alone)


def test_parts_of_another_build_do_not_count(big: Source, make_source: MakeSource, tmp_path: Path) -> None:
    build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(0, 2))
    for batch_size, shard in ((3, Shard(1, 2)), (2, Shard(1, 3))):
        report = build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=batch_size, shard=shard)
        assert report.missing > 0
    other = read_source(make_source(9, "other", first=50))
    assert build_gallery(other, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(1, 2)).missing == 1
    assert build_gallery(big, ColourDescriber(), tmp_path / "g", batch_size=2, shard=Shard(1, 2)).missing == 0
    assert len(Gallery.open(tmp_path / "g")) == 12


def test_parts_over_a_gallery_replace_it_when_all_are_there(
    big: Source, source: Source, alone: Path, tmp_path: Path
) -> None:
    path = build_gallery(source, ColourDescriber(), tmp_path / "g").gallery
    before = content(path)
    options: dict[str, Any] = {"batch_size": 2, "replace_existing": True}
    build_gallery(big, ColourDescriber(), path, shard=Shard(1, 2), **options)
    assert before.items() <= content(path).items() and len(Gallery.open(path)) == 7
    build_gallery(big, ColourDescriber(), path, shard=Shard(0, 2), **options)
    assert same(path, alone)


def test_who_may_write_at_the_same_time(tmp_path: Path, source: Source) -> None:
    with writing(tmp_path, "0-2"):
        with writing(tmp_path, "1-2"), in_turn(tmp_path):
            pass
        for part in ("", "0-2"):
            with pytest.raises(GalleryError, match="another process is writing"), writing(tmp_path, part):
                pass
    with writing(tmp_path), pytest.raises(GalleryError, match="another process"), writing(tmp_path, "0-2"):
        pass


def test_parts_are_whole_batches_that_cover_the_source(big: Source) -> None:
    ordered = by_place(big)
    parts = [Shard(index, 4).part(ordered, 3) for index in range(4)]
    assert tuple(image for part in parts for image in part.images) == ordered.images
    assert [len(part.images) for part in parts] == [3, 3, 3, 4]
    assert ALONE.part(ordered, 3) is ordered
    with pytest.raises(SourceError, match="13 images in batches of 8 are too few for 3 processes"):
        Shard(0, 3).part(ordered, 8)


def test_what_torchrun_says() -> None:
    assert Shard.of_environment({}) == ALONE
    assert Shard.of_environment({"RANK": "2", "WORLD_SIZE": "4"}) == Shard(2, 4)
    with pytest.raises(GalleryError, match="RANK = '4' of WORLD_SIZE = '4': expected 0 to WORLD_SIZE - 1"):
        Shard.of_environment({"RANK": "4", "WORLD_SIZE": "4"})


def test_images_lie_in_the_order_of_a_z_curve(big: Source) -> None:
    def at(north: int, east: int) -> SourceImage:
        """In a cell of 2^18 × 2^18 over the globe; 45°, 45° is the corner of one with even numbers."""
        place = Place(f"{north}-{east}", 45 + (north + 0.5) * 180 / 2**18, 45 + (east + 0.5) * 360 / 2**18)
        return replace(big.images[0], place=place)

    cells = [(north, east) for north in range(4) for east in range(2)]
    shuffled = replace(big, images=tuple(at(*cells[number]) for number in (5, 2, 7, 0, 3, 6, 1, 4)))
    ordered = [image.place.name for image in by_place(shuffled).images]
    assert ordered == ["0-0", "1-0", "0-1", "1-1", "2-0", "3-0", "2-1", "3-1"]
    bag = replace(shuffled, images=tuple(replace(image, path=None) for image in shuffled.images))
    assert by_place(bag) is bag


def test_two_processes_of_torchrun(tmp_path: Path) -> None:
    """The command line as torchrun starts it, both at once, against one process."""
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["filename,latitude,longitude"]
    for number in range(10):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (64, 80, 3), np.uint8))
        lines.append(f"{number}.png,{45 + rng.random() / 100},{9 + rng.random() / 100}")
    (folder / "positions.csv").write_text("\n".join(lines))
    root = Path(__file__).parents[2]
    program = [sys.executable, "-m", "geowarp_ros.cli", "gallery", "build", str(folder)]
    program += ["--batch-size", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen(
            [*program, "--device", "cpu", "--output", str(tmp_path / output)],
            env={**environment, **rank},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for output, rank in [
            ("g", {"RANK": "0", "WORLD_SIZE": "2"}),
            ("g", {"RANK": "1", "WORLD_SIZE": "2"}),
            ("alone", {}),
        ]
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert same(tmp_path / "g", tmp_path / "alone")
    said = sorted(out for out, _ in results[:2])
    assert any("is there, " in out and "1 are still missing" in out for out in said), said
    assert any("10 images, " in out for out in said), said
