"""Compressed indices against brute force: distances and order of what is found, what is missed or left out."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index import compressed
from geowarp_ros.gallery.index.compressed import (
    CompressedIndex,
    choose_kind,
    exact_index,
    read_index,
    recall_of,
    train_index,
    tune,
    write_index,
)
from geowarp_ros.gallery.rows import Stacked
from test.gallery.test_search import brute_force, unit_rows

KINDS = ["ivf-sq", "ivf-pq", "hnsw"]
COUNT, LENGTH = 2000, 16


@pytest.fixture(scope="module")
def descriptors() -> Stacked:
    """Four dimensions' worth of clusters in sixteen, as two segments."""
    rng = np.random.default_rng(0)
    latent = np.repeat(rng.normal(size=(COUNT // 10, 4)), 10, axis=0) + 0.3 * rng.normal(size=(COUNT, 4))
    rows = (latent @ rng.normal(size=(4, LENGTH))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Stacked([rows[:1500], rows[1500:]])


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, descriptors: Stacked) -> tuple[str, faiss.Index]:
    return request.param, train_index(request.param, descriptors)


def whole(descriptors: Stacked) -> NDArray[np.float32]:
    return np.concatenate(descriptors.arrays)


def queries_of(descriptors: Stacked, count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    rows = whole(descriptors)[rng.choice(COUNT, count, replace=False)]
    return (rows + 0.05 * rng.normal(size=rows.shape)).astype(np.float32)


def test_what_is_found_has_true_distances_and_order(
    trained: tuple[str, faiss.Index], descriptors: Stacked
) -> None:
    _, index = trained
    effort, recall = tune(index, descriptors)
    assert recall >= compressed.RECALL
    queries = queries_of(descriptors, 30)
    distances, rows = CompressedIndex(index, descriptors, effort).search(queries, 20)
    expected, order = brute_force(whole(descriptors), queries, 20)
    assert recall_of(rows, order) > 0.9
    true = ((whole(descriptors)[rows].astype(float) - queries[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, true, rtol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()
    # where nothing is missed the answer is brute force's
    complete = [set(found) == set(true) for found, true in zip(rows.tolist(), order.tolist(), strict=True)]
    assert sum(complete) > 15
    np.testing.assert_array_equal(rows[complete], order[complete])
    np.testing.assert_allclose(distances[complete], expected[complete], rtol=1e-6)


def test_less_effort_and_a_shorter_list_miss_more(trained: tuple[str, faiss.Index], descriptors: Stacked) -> None:
    kind, index = trained
    queries = queries_of(descriptors, 50)
    order = brute_force(whole(descriptors), queries, 20)[1]
    lazy = CompressedIndex(index, descriptors, 1, shortlist=20).search(queries, 20)[1]
    eager = CompressedIndex(index, descriptors, 256, shortlist=400).search(queries, 20)[1]
    assert recall_of(lazy, order) < recall_of(eager, order), kind
    assert recall_of(eager, order) > 0.99


def test_what_is_left_out_is_not_found(trained: tuple[str, faiss.Index], descriptors: Stacked) -> None:
    _, index = trained
    without = np.arange(0, COUNT, 3)
    queries = queries_of(descriptors, 20)
    _, rows = CompressedIndex(index, descriptors, 256).search(queries, 20, without)
    assert not np.isin(rows, without).any()
    kept = np.setdiff1d(np.arange(COUNT), without)
    order = kept[brute_force(whole(descriptors)[kept], queries, 20)[1]]
    assert recall_of(rows, order) > 0.98


def test_more_than_an_index_finds_is_found_all_the_same(
    trained: tuple[str, faiss.Index], descriptors: Stacked
) -> None:
    _, index = trained
    queries = queries_of(descriptors, 2)
    search = CompressedIndex(index, descriptors, 1, shortlist=20)
    distances, rows = search.search(queries, 5000)
    expected, order = brute_force(whole(descriptors), queries, COUNT)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert [part.shape for part in search.search(queries[:0], 5)] == [(0, 5), (0, 5)]
    assert [part.shape for part in search.search(queries, 5, np.arange(COUNT))] == [(2, 0), (2, 0)]


@pytest.mark.parametrize("on_disk", [False, True])
def test_written_and_read_back(
    trained: tuple[str, faiss.Index], descriptors: Stacked, tmp_path: Path, on_disk: bool
) -> None:
    _, index = trained
    path = tmp_path / "index.faiss"
    write_index(index, path)
    back = read_index(path, COUNT, LENGTH, on_disk)
    queries = queries_of(descriptors, 10)
    for read, made in zip(
        CompressedIndex(back, descriptors, 16).search(queries, 20),
        CompressedIndex(index, descriptors, 16).search(queries, 20),
        strict=True,
    ):
        np.testing.assert_array_equal(read, made)
    with pytest.raises(GalleryError, match=r"indexes 2000 descriptors of 16 numbers, expected 1999 of 16; it bel"):
        read_index(path, COUNT - 1, LENGTH)
    half = tmp_path / "half.faiss"  # another file: the mapped one must stay
    half.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(GalleryError, match=r"half\.faiss: cannot be read as an index: "):
        read_index(half, COUNT, LENGTH, on_disk)


def test_the_lists_on_the_disk_are_read_from_there(descriptors: Stacked, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    write_index(train_index("ivf-sq", descriptors), path)
    for on_disk in (True, False):
        index = read_index(path, COUNT, LENGTH, on_disk)
        lists = faiss.extract_index_ivf(index).invlists
        assert lists is not None
        lists = faiss.downcast_InvertedLists(lists)
        assert isinstance(lists, faiss.OnDiskInvertedLists) == on_disk


def test_exact_over_segments_equals_brute_force(descriptors: Stacked) -> None:
    queries = queries_of(descriptors, 8)
    without = np.array([0, 1499, 1500, 1700])
    distances, rows = exact_index(descriptors).search(queries, 25, without)
    kept = np.setdiff1d(np.arange(COUNT), without)
    expected, order = brute_force(whole(descriptors)[kept], queries, 25)
    np.testing.assert_array_equal(rows, kept[order])
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_foreign_queries_are_refused(trained: tuple[str, faiss.Index], descriptors: Stacked) -> None:
    search = CompressedIndex(trained[1], descriptors, 16)
    with pytest.raises(GalleryError, match=r"shape \(1, 5\), expected \(Q, 16\)"):
        search.search(np.zeros((1, 5), np.float32), 1)
    with pytest.raises(GalleryError, match="NaN or infinite"):
        search.search(np.full((1, LENGTH), np.nan, np.float32), 1)


def test_too_few_to_train_on(descriptors: Stacked) -> None:
    with pytest.raises(GalleryError, match="200 images are too few for an index of kind ivf-pq, expected 256"):
        train_index("ivf-pq", Stacked([unit_rows(np.random.default_rng(0), 200, 8)]))


def test_the_kind_by_size() -> None:
    assert choose_kind(97_000, 512) == "exact" and choose_kind(98_000, 512) == "ivf-sq"
    assert choose_kind(2_000, 32_768) == "ivf-sq"  # a NetVLAD descriptor is long
