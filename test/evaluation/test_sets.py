from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.sets import (
    Distances,
    Neighbours,
    check_reachable,
    read_sets,
    sequence_and_number,
    spread,
)
from geowarp_ros.geodesy import distance_m
from geowarp_ros.types import Place


def _write(folder: Path, name: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    return name


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The standard layout, with both of its words for the gallery."""
    for split, gallery, east in (("train", "database", 0), ("test", "gallery", 1000)):
        for i in range(4):
            _write(
                tmp_path,
                f"images/{split}/{gallery}/@{550000 + east + 10 * i}.00@4980000.00@32@T@@@{i}@@@@@@@@.jpg",
            )
        for i in range(2):
            _write(
                tmp_path, f"images/{split}/queries/@{550002 + east + 10 * i}.00@4980000.00@32@T@@@q{i}@@@@@@@@.jpg"
            )
    return tmp_path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """positions.csv without a split, ten places 10 m apart."""
    with (tmp_path / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "latitude", "longitude"])
        rows.writerows([_write(tmp_path, f"IMG_{i:04d}.jpg"), 45.0 + i * 9e-5, 9.0] for i in range(10))
    return tmp_path


def test_the_standard_layout_gives_its_test_split(tree: Path) -> None:
    sets = read_sets(tree)
    assert (len(sets.gallery.images), len(sets.queries)) == (4, 2)
    assert all("test/gallery" in image.place.name for image in sets.gallery.images)
    train = read_sets(tree, gallery_split="train/database", query_split="train/queries")
    assert all("train/database" in image.place.name for image in train.gallery.images)


def test_an_absent_split_is_said_with_what_is_there(tree: Path) -> None:
    with pytest.raises(SourceError, match=r"'val/queries'.*test/queries \(2 images\)"):
        read_sets(tree, query_split="val/queries")


def test_a_query_may_not_stand_in_the_gallery(tree: Path) -> None:
    with pytest.raises(SourceError, match=r"is in both 'test' and 'test/queries' \(2 images are\)"):
        read_sets(tree, gallery_split="test")


def test_every_third_image_is_a_query(table: Path) -> None:
    sets = read_sets(table, every=3)
    assert [q.place.name for q in sets.queries] == ["IMG_0002.jpg", "IMG_0005.jpg", "IMG_0008.jpg"]
    assert len(sets.gallery.images) == 7
    with pytest.raises(SourceError, match="expected 1 to 10"):
        read_sets(table, every=11)


def test_each_image_is_a_query_of_all_but_its_neighbours(table: Path) -> None:
    sets = read_sets(table, every=1)
    assert sets.queries == sets.gallery.images
    # within two numbers nothing counts: the third is 30 m away
    assert check_reachable(sets, [25.0, 31.0], apart=2) == {25.0: 10, 31.0: 0}


def test_queries_without_a_place_near_them_are_counted_and_all_of_them_refused(table: Path) -> None:
    sets = read_sets(table, every=2)  # each query's nearest is 10 m away
    assert check_reachable(sets, [9.0, 11.0]) == {9.0: 5, 11.0: 0}
    with pytest.raises(
        SourceError, match=r"none of 5 queries has a gallery image within 5 m; the nearest pair is 10\.0"
    ):
        check_reachable(sets, [1.0, 5.0])


def test_distances_are_geodesic_to_a_millimetre() -> None:
    rng = np.random.default_rng(0)
    places = [Place(f"{i}", 45 + x, 9 + y) for i, (x, y) in enumerate(rng.uniform(-0.04, 0.04, (20, 2)))]
    here = Place("q", 45.001, 9.002, altitude_m=500.0)
    expected = [
        float(distance_m(here.latitude_deg, here.longitude_deg, p.latitude_deg, p.longitude_deg)) for p in places
    ]
    assert Distances(places)(here) == pytest.approx(expected, abs=1e-3)


def test_spread_takes_the_first_the_last_and_evenly_between(table: Path) -> None:
    images = read_sets(table, every=2).gallery.images
    assert [i.place.name for i in spread(images, 3)] == ["IMG_0000.jpg", "IMG_0004.jpg", "IMG_0008.jpg"]
    assert spread(images, 0) == spread(images, 99) == images


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("images/IMG_0446.jpg", ("images/IMG_", 446)),
        ("f03/f03_hall_12_0007.png", ("f03/f03_hall_12_", 7)),
        ("12.jpg", ("", 12)),
        ("a.b/frame9b.jpg", ("a.b/frame", 9)),
    ],
)
def test_sequence_and_number_of_a_name(name: str, expected: tuple[int | str, ...]) -> None:
    assert sequence_and_number(name) == expected


def test_a_name_without_a_number_is_refused() -> None:
    with pytest.raises(SourceError, match=r"door\.jpg: has no number"):
        sequence_and_number("floor3/door.jpg")


def test_neighbours_are_of_the_same_sequence() -> None:
    places = [Place(f"{s}_{i:03d}.jpg", 0, 0) for s in "ab" for i in range(10)]
    near = Neighbours(places, 2)
    assert near(Place("a_004.jpg", 0, 0)) == {2, 3, 4, 5, 6}
    assert near(Place("b_000.jpg", 0, 0)) == {10, 11, 12}
    assert near(Place("c_004.jpg", 0, 0)) == frozenset()
    assert Neighbours(places, 0)(Place("a_004.jpg", 0, 0)) == frozenset()
