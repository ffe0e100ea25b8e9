"""A gallery with an index answers as one without; whitened as by hand; foreign indices are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from geowarp_ros.config import RetrievalConfig
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, index_gallery, remove_from_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Source
from geowarp_ros.readers.source import SourceImage
from geowarp_ros.types import Near, Place
from test.gallery.conftest import ColourDescriber

ALL = RetrievalConfig(candidates=1000)
OPTIONS = [
    IndexOptions(kind="ivf-sq"),
    IndexOptions(kind="ivf-pq", on_disk=True),
    IndexOptions(kind="hnsw"),
    IndexOptions(kind="exact", whitened=3),
    IndexOptions(kind="ivf-sq", whitened=4, on_disk=True),
]


@dataclass(frozen=True)
class _Painted:
    """Draws its image from its number."""

    number: int

    def __call__(self):
        rng = np.random.default_rng(self.number)
        return cv2.resize(rng.integers(0, 256, (2, 2, 3), np.uint8), (20, 16))


def painted(count, first=0):
    rng = np.random.default_rng(first)
    images = []
    for number in range(first, first + count):
        latitude, longitude = 45 + 1e-2 * rng.random(), 9 + 1e-2 * rng.random()
        images.append(SourceImage(Place(f"{number:04d}.png", latitude, longitude), _Painted(number)))
    return Source(tuple(images), description="painted")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """300 places, compared with exactly."""
    return build_gallery(painted(300), ColourDescriber(), tmp_path_factory.mktemp("index") / "plain").gallery


@pytest.fixture
def gallery(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "g")


@pytest.fixture(scope="module")
def queries():
    images = [image.read() for image in painted(8, first=900).images]
    return ColourDescriber().describe_batch(images)[0]


def by_hand(opened, query, near=None):
    """Names and distances of all places, by the whitening's formula and a sort."""
    rows = np.asarray(opened.descriptors, float)
    query = np.asarray(query, float)
    if (whitening := opened._searched.whitening) is not None:
        rows, query = ((x - whitening.mean.astype(float)) @ whitening.matrix.astype(float) for x in (rows, query))
        rows *= whitening.length / np.linalg.norm(rows, axis=1, keepdims=True)
        query *= whitening.length / np.linalg.norm(query)
    distances = ((rows - query) ** 2).sum(axis=1)
    inside = range(len(rows)) if near is None else opened.rows_within(near)
    order = sorted(inside, key=lambda row: distances[row])
    return [opened.places[row].name for row in order], distances[order]


def check(opened, queries, near=None):
    for query in queries:
        found = opened.search(query, ALL, near)
        names, distances = by_hand(opened, query, near)
        assert [c.place.name for c in found] == names
        np.testing.assert_allclose([c.distance for c in found], distances, rtol=2e-4, atol=1e-6)
        first = [c.place.name for c in opened.search(query, RetrievalConfig(candidates=20), near)]
        assert len(set(first) & set(names[:20])) >= 0.9 * len(first)
        assert first == sorted(first, key=names.index)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_index_through_the_life_of_a_gallery(gallery, queries, options):
    index = index_gallery(gallery, options)
    assert (index.kind, index.whitened, index.rows) == (options.kind, options.whitened, 300)
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
    assert len(opened.manifest.index.segments) == 1 and len(opened.manifest.segments) == 2
    check(opened, queries)
    itself = ColourDescriber().describe_batch([_Painted(511)()])[0][0]
    assert opened.search(itself)[0].place.name == "0511.png"  # added later, found all the same
    check(opened, queries, Near(45.005, 9.005, radius_m=300))

    assert index_gallery(gallery, options).rows == 340  # the removed ones lie in files that stay
    check(Gallery.open(gallery), queries)
    assert [path.name for path in (gallery / "index").iterdir()] == ["0002"]
    assert index_gallery(gallery, IndexOptions(kind="exact")) is None
    assert not list((gallery / "index").iterdir())
    check(Gallery.open(gallery), queries)


def test_nothing_left_of_what_was_indexed(gallery, queries):
    index_gallery(gallery, IndexOptions(kind="ivf-sq"))
    names = [place.name for place in Gallery.open(gallery).places]
    assert remove_from_gallery(gallery, names) == 0
    assert Gallery.open(gallery).search(queries[0]) == []
    add_to_gallery(painted(5, first=700), ColourDescriber(), gallery)
    check(Gallery.open(gallery), queries)
    assert index_gallery(gallery, IndexOptions()) is None
    assert [path.name for path in (gallery / "segments").iterdir()] == ["0002"]
    check(Gallery.open(gallery), queries)


def test_a_build_with_an_index_is_a_build_and_an_index(plain, gallery, tmp_path):
    options = IndexOptions(kind="ivf-sq", whitened=5)
    made = build_gallery(painted(300), ColourDescriber(), tmp_path / "h", index=options).gallery
    index_gallery(gallery, options)
    for name in ("descriptors.npy", "whitening.npy", "index.faiss"):
        assert (made / "index/0001" / name).read_bytes() == (gallery / "index/0001" / name).read_bytes()
    build_gallery(painted(10), ColourDescriber(), made, replace_existing=True)
    assert Gallery.open(made).manifest.index is None and not list((made / "index").iterdir())


def test_whitened_descriptors_have_no_favourite_direction(gallery):
    index_gallery(gallery, IndexOptions(whitened=4))
    opened = Gallery.open(gallery)
    whitening = opened._searched.whitening
    covariance = np.cov((opened.descriptors - whitening.mean) @ whitening.matrix, rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(4), atol=1e-3)
    whitened = opened._searched.descriptors.arrays[0]
    np.testing.assert_allclose(np.linalg.norm(whitened, axis=1), whitening.length, rtol=1e-5)

    def mean_distance(rows):
        return ((rows[:, None].astype(float) - rows) ** 2).sum(axis=2).mean()

    assert mean_distance(whitened) == pytest.approx(mean_distance(opened.descriptors), rel=1e-3)
    with pytest.raises(GalleryError, match="whitening to 7 dimensions: expected 1 to 6, for 300 descriptors of 6"):
        index_gallery(gallery, IndexOptions(whitened=7))
    assert Gallery.open(gallery).manifest.index.whitened == 4


def test_a_calibration_holds_the_distances_it_was_measured_with(gallery):
    (gallery / "calibration.json").write_text("{}")
    index_gallery(gallery, IndexOptions(kind="ivf-sq"))
    with pytest.raises(
        GalleryError, match=r"calibration\.json: was measured with descriptors whitened to 0 dimens"
    ):
        index_gallery(gallery, IndexOptions(whitened=3))
    (gallery / "calibration.json").unlink()
    assert index_gallery(gallery, IndexOptions(whitened=3)).whitened == 3


def test_too_few_images_keep_the_index_there(gallery):
    index_gallery(gallery, IndexOptions(kind="hnsw"))
    remove_from_gallery(gallery, [place.name for place in Gallery.open(gallery).places])
    add_to_gallery(painted(5, first=700), ColourDescriber(), gallery)
    with pytest.raises(GalleryError, match="5 images are too few for an index of kind ivf-pq"):
        index_gallery(gallery, IndexOptions(kind="ivf-pq"))
    assert Gallery.open(gallery).manifest.index.kind == "hnsw"


def test_a_foreign_or_broken_index_is_refused(gallery, tmp_path):
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


def test_the_circle_against_brute_force(plain):
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
