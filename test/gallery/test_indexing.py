"""A gallery with an index answers as one without, and leaves out any rows; foreign indices are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, index_gallery, remove_from_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.benchmark.synthetic import queries_of, write_gallery
from geowarp_ros.readers import Source
from geowarp_ros.readers.source import SourceImage
from geowarp_ros.types import Image, Near, Place
from test.gallery.conftest import ColourDescriber

OPTIONS = [
    IndexOptions(kind="ivf-sq"),
    IndexOptions(kind="ivf-sq", on_disk=True),
    IndexOptions(kind="ivf-pq", on_disk=True),
    IndexOptions(kind="hnsw"),
]


@dataclass(frozen=True)
class _Painted:
    """Draws its image from its number."""

    number: int

    def __call__(self) -> Image:
        rng = np.random.default_rng(self.number)
        return np.asarray(cv2.resize(rng.integers(0, 256, (2, 2, 3), np.uint8), (20, 16)), np.uint8)


def painted(count: int, first: int = 0) -> Source:
    rng = np.random.default_rng(first)
    images = []
    for number in range(first, first + count):
        latitude, longitude = 45 + 1e-2 * rng.random(), 9 + 1e-2 * rng.random()
        images.append(SourceImage(Place(f"{number:04d}.png", latitude, longitude), _Painted(number)))
    return Source(tuple(images), description="painted")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 places, compared with exactly."""
    return build_gallery(painted(300), ColourDescriber(), tmp_path_factory.mktemp("index") / "plain").gallery


@pytest.fixture
def gallery(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "g")


@pytest.fixture(scope="module")
def queries() -> NDArray[np.float32]:
    images = [image.read() for image in painted(8, first=900).images]
    return ColourDescriber().describe_batch(images)[0]


def by_hand(
    opened: Gallery, query: NDArray[np.float32], near: Near | None = None, without: Collection[int] = ()
) -> tuple[list[int], NDArray[Any]]:
    """Rows and distances of all places, by a sort."""
    distances = ((np.asarray(opened.descriptors, float) - np.asarray(query, float)) ** 2).sum(axis=1)
    inside = range(len(opened)) if near is None else opened.rows_within(near)
    rows = np.setdiff1d(inside, np.fromiter(without, np.int64, len(without)))
    rows = rows[np.argsort(distances[rows], kind="stable")]
    return rows.tolist(), distances[rows]


def check(opened: Gallery, queries: NDArray[np.float32], near: Near | None = None) -> None:
    for query in queries:
        for without in ([], by_hand(opened, query)[0][:40]):
            found = opened.search(query, 1000, near, without)
            rows, distances = by_hand(opened, query, near, without)
            assert [c.index for c in found] == rows
            assert [c.place.name for c in found] == [opened.places[row].name for row in rows]
            np.testing.assert_allclose([c.distance for c in found], distances, rtol=2e-4, atol=1e-6)
            first = [c.index for c in opened.search(query, 20, near, frozenset(without))]
            assert len(first) == min(20, len(rows)) and first == sorted(first, key=rows.index)
            assert len(set(first) & set(rows[:20])) >= 0.9 * len(first)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_index_through_the_life_of_a_gallery(
    gallery: Path, queries: NDArray[np.float32], options: IndexOptions
) -> None:
    index = index_gallery(gallery, options)
    assert index is not None
    assert (index.kind, index.rows) == (options.kind, 300)
    assert index.recall >= 0.95
    assert Gallery.open(gallery).verify() == []
    check(Gallery.open(gallery), queries)

    gone = [Gallery.open(gallery).search(query)[0].place.name for query in queries]
    remove_from_gallery(gallery, sorted(set(gone)))
    opened = Gallery.open(gallery)
    check(opened, queries)
    check(opened, queries, Near(45.005, 9.005, radius_m=300))

    add_to_gallery(painted(40, first=500), ColourDescriber(), gallery)
    remove_from_gallery(gallery, ["0517.png"])
    opened = Gallery.open(gallery)
    assert opened.manifest.index is not None
    assert len(opened.manifest.index.segments) == 1 and len(opened.manifest.segments) == 2
    check(opened, queries)
    itself = ColourDescriber().describe_batch([_Painted(511)()])[0][0]
    assert opened.search(itself)[0].place.name == "0511.png"  # added later, found all the same
    check(opened, queries, Near(45.005, 9.005, radius_m=300))

    index = index_gallery(gallery, options)
    assert index is not None and index.rows == 340  # the removed ones lie in files that stay
    check(Gallery.open(gallery), queries)
    assert [path.name for path in (gallery / "index").iterdir()] == ["0002"]
    assert index_gallery(gallery, IndexOptions(kind="exact")) is None
    assert not list((gallery / "index").iterdir())
    check(Gallery.open(gallery), queries)


def test_nothing_left_of_what_was_indexed(gallery: Path, queries: NDArray[np.float32]) -> None:
    index_gallery(gallery, IndexOptions(kind="ivf-sq"))
    names = [place.name for place in Gallery.open(gallery).places]
    assert remove_from_gallery(gallery, names) == 0
    assert Gallery.open(gallery).search(queries[0]) == []
    add_to_gallery(painted(5, first=700), ColourDescriber(), gallery)
    check(Gallery.open(gallery), queries)
    assert index_gallery(gallery, IndexOptions()) is None
    assert [path.name for path in (gallery / "segments").iterdir()] == ["0002"]
    check(Gallery.open(gallery), queries)


def test_a_build_with_an_index_is_a_build_and_an_index(plain: Path, gallery: Path, tmp_path: Path) -> None:
    options = IndexOptions(kind="ivf-sq")
    made = build_gallery(painted(300), ColourDescriber(), tmp_path / "h", index=options).gallery
    index_gallery(gallery, options)
    file = "index/0001/index.faiss"
    assert (made / file).read_bytes() == (gallery / file).read_bytes()
    build_gallery(painted(10), ColourDescriber(), made, replace_existing=True)
    assert Gallery.open(made).manifest.index is None and not list((made / "index").iterdir())


def test_an_index_of_whitened_descriptors_is_refused_until_it_is_made_again(
    gallery: Path, queries: NDArray[np.float32]
) -> None:
    index_gallery(gallery, IndexOptions(kind="ivf-sq"))
    path = gallery / "gallery.json"
    manifest = json.loads(path.read_text())
    assert "whitened" not in manifest["index"]
    for whitened in (0, 4):
        path.write_text(json.dumps(manifest | {"index": manifest["index"] | {"whitened": whitened}}))
        if not whitened:  # as every index was written before
            check(Gallery.open(gallery), queries[:1])
            continue
        for use in (
            Gallery.open,
            lambda g: remove_from_gallery(g, ["0001.png"]),
            lambda g: add_to_gallery(painted(5, first=700), ColourDescriber(), g),
        ):
            with pytest.raises(
                GalleryError, match=r"PCA-whitened .* make it again \(geowarp gallery index .*/g\)"
            ):
                use(gallery)
    index = index_gallery(gallery, IndexOptions(kind="hnsw"))
    assert index is not None and index.kind == "hnsw"
    check(Gallery.open(gallery), queries[:1])


def test_too_few_images_keep_the_index_there(gallery: Path) -> None:
    index_gallery(gallery, IndexOptions(kind="hnsw"))
    remove_from_gallery(gallery, [place.name for place in Gallery.open(gallery).places])
    add_to_gallery(painted(5, first=700), ColourDescriber(), gallery)
    with pytest.raises(GalleryError, match="5 images are too few for an index of kind ivf-pq"):
        index_gallery(gallery, IndexOptions(kind="ivf-pq"))
    index = Gallery.open(gallery).manifest.index
    assert index is not None and index.kind == "hnsw"


def test_a_foreign_or_broken_index_is_refused(gallery: Path, tmp_path: Path) -> None:
    index_gallery(gallery, IndexOptions(kind="ivf-sq"))
    file = gallery / "index/0001/index.faiss"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(GalleryError, match=r"index\.faiss: is truncated"):
        Gallery.open(gallery)
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert ["index.faiss: content has changed" in problem for problem in Gallery.open(gallery).verify()] == [True]
    file.unlink()
    with pytest.raises(GalleryError, match=r"index\.faiss: is missing"):
        Gallery.open(gallery)

    other = build_gallery(painted(299, first=1000), ColourDescriber(), tmp_path / "other").gallery
    index_gallery(other, IndexOptions(kind="ivf-sq"))
    shutil.copy(other / "index/0001/index.faiss", file)
    manifest = json.loads((gallery / "gallery.json").read_text())
    foreign = json.loads((other / "gallery.json").read_text())["index"]
    manifest["index"]["files"] = foreign["files"]
    (gallery / "gallery.json").write_text(json.dumps(manifest))
    with pytest.raises(GalleryError, match="indexes 299 descriptors of 6 numbers, expected 300 of 6"):
        Gallery.open(gallery)
    manifest["index"] = foreign
    (gallery / "gallery.json").write_text(json.dumps(manifest))
    with pytest.raises(GalleryError, match=r"its index 0001 is of other descriptors .*make it again"):
        Gallery.open(gallery)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4000 points 10 m apart with ten photographs each, three of them removed."""
    folder = tmp_path_factory.mktemp("large") / "g"
    write_gallery(folder, 40_000, 32, seed=0)
    remove_from_gallery(folder, ["00000007.jpg", "00001234.jpg", "00039999.jpg"])
    return folder


@pytest.mark.parametrize("kind", ["exact", "ivf-sq", "hnsw"])
def test_any_number_of_rows_left_out(large: Path, kind: str) -> None:
    index_gallery(large, IndexOptions(kind=kind))
    opened = Gallery.open(large)
    rng = np.random.default_rng(1)
    recalls = []
    for query in queries_of(40_000, 32, 4, seed=0):
        order, _ = by_hand(opened, query)
        for without in (
            order[:200],  # the nearest: what an index finds first
            order[:985],
            order[:1500],
            order[:1500][::-1] + rng.choice(len(opened), 5000).tolist(),
            rng.choice(len(opened), 3000, replace=False),
            order[: len(order) - 15],
            order,
        ):
            for near in (None, Near(45.003, 9.004, radius_m=200)):
                rows, distances = by_hand(opened, query, near, without)
                found = opened.search(query, 20, near, without)
                assert len(found) == min(20, len(rows))
                indices = [c.index for c in found]
                assert indices == sorted(set(indices), key=rows.index)
                if kind == "exact" or near is not None:
                    assert indices == rows[:20]
                    np.testing.assert_allclose([c.distance for c in found], distances[:20], rtol=1e-5)
                elif rows:
                    recalls.append(len(set(indices) & set(rows[:20])) / len(indices))
    assert kind == "exact" or (np.mean(recalls) >= 0.95 and min(recalls) >= 0.8)


def test_the_circle_against_brute_force(plain: Path) -> None:
    opened = Gallery.open(plain)
    rng = np.random.default_rng(3)
    for _ in range(20):
        near = Near(45 + 1e-2 * rng.random(), 9 + 1e-2 * rng.random(), radius_m=float(rng.uniform(1, 900)))
        east, north, _ = opened.frame.to_enu(near.latitude_deg, near.longitude_deg)
        inside = [
            row
            for row, (e, n, _) in enumerate(opened.positions_enu)
            if np.hypot(e - east, n - north) <= near.radius_m
        ]
        assert opened.rows_within(near).tolist() == inside
    check(opened, opened.descriptors[:5], Near(45.005, 9.005, radius_m=500))
