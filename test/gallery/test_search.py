"""Search against brute force, by both engines."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index import search
from geowarp_ros.gallery.index.search import ExactIndex, Index

Engine: TypeAlias = Literal["faiss", "torch"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


def brute_force(gallery: NDArray[Any], queries: NDArray[Any], k: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    offsets = queries[:, None].astype(np.float64) - gallery[None]
    distances = (offsets**2).sum(axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def unit_rows(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = rng.normal(size=shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("count", "queries", "k"), [(500, 1, 20), (500, 30, 5), (3, 2, 20), (1, 1, 1)])
def test_equals_brute_force(engine: Engine, count: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(count)
    gallery, query = unit_rows(rng, count, 24), unit_rows(rng, queries, 24)
    index: Index = ExactIndex(gallery, "cpu", engine)
    distances, rows = index.search(query, k)
    expected, order = brute_force(gallery, query, k)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert distances.dtype == np.float32 and rows.dtype == np.int64
    assert rows.shape == (queries, min(k, count))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_lies_within_rounding_is_ranked_by_true_distance(engine: Engine) -> None:
    # long descriptors that differ in the last bits: ‖a‖² + ‖b‖² - 2ab cancels all of it in float32
    rng = np.random.default_rng(0)
    query = (100 * unit_rows(rng, 1, 8)).astype(np.float32)
    near = query + 1e-3 * rng.normal(size=(30, 8)).astype(np.float32)
    gallery = np.concatenate([near, 100 * unit_rows(rng, 300, 8)]).astype(np.float32)
    _, rows = ExactIndex(gallery, "cpu", engine).search(query, 10)
    np.testing.assert_array_equal(rows, brute_force(gallery, query, 10)[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_equals_rank_by_row(engine: Engine) -> None:
    gallery = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    distances, rows = ExactIndex(gallery, "cpu", engine).search(gallery[[4]], 6)
    assert rows.tolist() == [[3, 4, 5, 0, 1, 2]]
    assert distances.tolist() == [[0, 0, 0, 2, 2, 2]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_ranks_as_the_cpu() -> None:
    rng = np.random.default_rng(7)
    gallery, query = unit_rows(rng, 5000, 256), unit_rows(rng, 40, 256)
    for on_cuda, on_cpu in zip(
        ExactIndex(gallery, "cuda").search(query, 20), ExactIndex(gallery).search(query, 20), strict=True
    ):
        np.testing.assert_array_equal(on_cuda, on_cpu)


def test_torch_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", 64)
    monkeypatch.setattr(search, "_VALUES_AT_ONCE", 2000)
    rng = np.random.default_rng(5)
    gallery, query = unit_rows(rng, 200, 16), unit_rows(rng, 9, 16)
    _, rows = ExactIndex(gallery, "cpu", "torch").search(query, 20)
    np.testing.assert_array_equal(rows, brute_force(gallery, query, 20)[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_to_find(engine: Engine) -> None:
    empty = ExactIndex(np.empty((0, 4), np.float32), "cpu", engine)
    assert [part.shape for part in empty.search(np.zeros((2, 4), np.float32), 5)] == [(2, 0), (2, 0)]
    index = ExactIndex(np.zeros((3, 4), np.float32), "cpu", engine)
    assert [part.shape for part in index.search(np.zeros((0, 4), np.float32), 2)] == [(0, 2), (0, 2)]


def test_several_indices_are_one() -> None:
    rng = np.random.default_rng(2)
    rows = np.round(3 * unit_rows(rng, 90, 3))  # many equals, over all parts
    parts = [(ExactIndex(rows[:20]), 0), (ExactIndex(rows[20:20]), 20), (ExactIndex(rows[20:]), 20)]
    distances, found = search.MergedIndex(parts, 3).search(rows[:7], 30)
    expected, order = brute_force(rows, rows[:7], 30)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_left_out(engine: Engine) -> None:
    rng = np.random.default_rng(4)
    gallery, query = unit_rows(rng, 400, 8), unit_rows(rng, 6, 8)
    without = rng.choice(400, 150, replace=False)
    kept = np.setdiff1d(np.arange(400), without)
    for k in (5, 250, 300):
        distances, rows = ExactIndex(gallery, "cpu", engine).search(query, k, np.sort(without))
        expected, order = brute_force(gallery[kept], query, k)
        np.testing.assert_array_equal(rows, kept[order])
        np.testing.assert_allclose(distances, expected, rtol=1e-6)


def test_only_some_rows_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ROWS_READ_AT_ONCE", 30)
    rng = np.random.default_rng(6)
    gallery, query = unit_rows(rng, 400, 8), unit_rows(rng, 1, 8)
    rows = np.sort(rng.choice(400, 100, replace=False))
    read: list[NDArray[np.int64]] = []

    def read_rows(some: NDArray[np.int64]) -> NDArray[np.float32]:
        read.append(some)
        return gallery[some]

    distances, found = search.search_rows(query, rows, read_rows, 20)
    expected, order = brute_force(gallery[rows], query, 20)
    np.testing.assert_array_equal(found, rows[order])
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate(read), rows)  # nothing else is read
    assert [part.shape for part in search.search_rows(query, rows[:0], gallery.__getitem__, 5)] == [(1, 0), (1, 0)]


def test_foreign_queries_are_refused() -> None:
    index = ExactIndex(np.zeros((3, 4), np.float32))
    with pytest.raises(GalleryError, match=r"shape \(1, 5\), expected \(Q, 4\)"):
        index.search(np.zeros((1, 5), np.float32), 1)
    with pytest.raises(GalleryError, match="NaN or infinite"):
        index.search(np.full((1, 4), np.nan, np.float32), 1)
