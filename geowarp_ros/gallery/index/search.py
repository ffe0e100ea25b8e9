"""The nearest descriptors, exactly: FAISS on the CPU, torch on CUDA, one ranking.

A compressed index (:mod:`geowarp_ros.gallery.index.compressed`) can stand in wherever an :class:`Index` is
expected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.errors import GalleryError

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int64]

Shortlist: TypeAlias = Callable[[FloatArray, int], IndexArray]
"""Finds the nearest rows of each query, nearest first up to rounding: (Q, D), k -> (Q, k)."""

MARGIN = 32
"""So many more than asked for are found and measured again, so that rounding decides no rank."""

_ROWS_AT_ONCE = 262_144  # of the gallery, against all queries: 1 MiB of distances a query
_ROWS_READ_AT_ONCE = 8192  # of scattered rows: larger copies leave the processor's cache
_VALUES_AT_ONCE = 8_388_608  # 64 MiB of float64 while the shortlist is measured


class Index(Protocol):
    """Finds the nearest gallery descriptors."""

    def search(self, descriptors: FloatArray, k: int, /) -> tuple[FloatArray, IndexArray]:
        """Return squared Euclidean distances (Q, k) and gallery rows (Q, k), nearest first.

        Args:
            descriptors: (Q, D).
            k: At most so many; fewer columns where the gallery is smaller.
        """


class ExactIndex:
    """Compares with every descriptor.

    FAISS and torch round differently (and expand ‖a - b‖², which cancels for near ones), so each only finds a
    shortlist; its distances are measured in float64 from the descriptors themselves. Equal distances rank by row.

    Args:
        descriptors: (N, D) float32; may be a memory map, and is not copied on the CPU.
        device: Where the shortlist is found.
        engine: ``auto`` is FAISS on the CPU, torch elsewhere.
        without: Rows that are not to be found; a search costs as much as with them.
    """

    def __init__(
        self,
        descriptors: FloatArray,
        device: torch.device | str = "cpu",
        engine: Literal["auto", "faiss", "torch"] = "auto",
        without: IndexArray | None = None,
    ) -> None:
        self._descriptors = np.asarray(descriptors)
        self._device = torch.device(device)
        self._engine = engine
        self._without = np.unique(np.empty(0, np.int64) if without is None else without)

    def search(self, descriptors: FloatArray, k: int, /) -> tuple[FloatArray, IndexArray]:
        """Return squared Euclidean distances (Q, k) and rows (Q, k), nearest first.

        Raises:
            GalleryError: Descriptors of another length than the gallery's, or not finite.
        """
        queries = check_queries(descriptors, self._descriptors.shape[1])
        there = len(self._descriptors) - len(self._without)
        k = min(k, there)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        wanted = min(k + MARGIN, there)
        rows = self._shortlist(queries, wanted + len(self._without))
        return measure(queries, self._without_removed(rows, wanted), self._descriptors.__getitem__, k)

    def _without_removed(self, rows: IndexArray, wanted: int) -> IndexArray:
        if not len(self._without):
            return rows
        last = np.isin(rows, self._without)
        first = np.argsort(last, axis=1, kind="stable")[:, :wanted]
        return np.take_along_axis(rows, first, axis=1)

    @cached_property
    def _shortlist(self) -> Shortlist:
        if self._engine == "faiss" or (self._engine == "auto" and self._device.type == "cpu"):
            return _faiss_shortlist(self._descriptors)
        return _torch_shortlist(self._descriptors, self._device)


class MergedIndex:
    """Several indices as one: each row of the whole lies in one of them.

    Args:
        parts: Each index and the row of the whole at which its own rows begin, by which ties are broken.
        length: D.
    """

    def __init__(self, parts: Sequence[tuple[Index, int]], length: int) -> None:
        self._parts = parts
        self._length = length

    def search(self, descriptors: FloatArray, k: int, /) -> tuple[FloatArray, IndexArray]:
        """Return squared Euclidean distances (Q, k) and rows (Q, k) of the whole, nearest first."""
        queries = check_queries(descriptors, self._length)
        distances, rows = [np.empty((len(queries), 0), np.float32)], [np.empty((len(queries), 0), np.int64)]
        for index, first in self._parts:
            distance, row = index.search(queries, k)
            distances.append(distance)
            rows.append(row + first)
        return nearest(np.concatenate(distances, axis=1), np.concatenate(rows, axis=1), k)


def check_queries(descriptors: FloatArray, length: int) -> FloatArray:
    """Return queries (Q, D) as FAISS takes them.

    Raises:
        GalleryError: Of another length, or not finite.
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != length:
        raise GalleryError(f"descriptors of shape {descriptors.shape}, expected (Q, {length})")
    if not np.isfinite(descriptors).all():
        raise GalleryError("a query's descriptor has NaN or infinite values, expected finite ones")
    return np.ascontiguousarray(descriptors, np.float32)


def measure(
    queries: FloatArray, rows: IndexArray, read: Callable[[IndexArray], FloatArray], k: int
) -> tuple[FloatArray, IndexArray]:
    """Return the true distances (Q, k) and the rows (Q, k) of the k nearest of a shortlist; equals rank by row.

    Args:
        queries: (Q, D).
        rows: (Q, R) shortlists, R at least k.
        read: Returns the descriptors (…, D) of rows (…).
        k: How many are kept.
    """
    distances = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int64)
    step = max(1, _VALUES_AT_ONCE // (rows.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        found = np.sort(rows[part], axis=1)  # neighbours on the disk are read together, and equals stay in order
        offsets = queries[part, None].astype(np.float64) - read(found)
        exact = np.einsum("qkd,qkd->qk", offsets, offsets)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        distances[part] = np.take_along_axis(exact, order, axis=1)
        indices[part] = np.take_along_axis(found, order, axis=1)
    return distances, indices


def search_rows(
    query: FloatArray, rows: IndexArray, read: Callable[[IndexArray], FloatArray], k: int
) -> tuple[FloatArray, IndexArray]:
    """Compare one query with the given rows only: the cost is proportional to their number.

    Args:
        query: (1, D).
        rows: (R,) ascending.
        read: Returns the descriptors (…, D) of rows (…).
        k: At most so many.

    Returns:
        Distances (1, k) and rows (1, k), nearest first.
    """
    distances, found = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
    for start in range(0, len(rows), _ROWS_READ_AT_ONCE):
        block = rows[start : start + _ROWS_READ_AT_ONCE]
        distance, row = ExactIndex(read(block)).search(query, k)
        distances = np.concatenate([distances, distance], axis=1)
        distances, found = nearest(distances, np.concatenate([found, block[row]], axis=1), k)
    return distances, found


def nearest(distances: FloatArray, rows: IndexArray, k: int) -> tuple[FloatArray, IndexArray]:
    """Return the k smallest of distances (Q, R) with their rows, nearest first; equals rank by row."""
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _faiss_shortlist(descriptors: FloatArray) -> Shortlist:
    # what IndexFlatL2 computes, without its copy of the descriptors
    def shortlist(queries: FloatArray, k: int) -> IndexArray:
        _, rows = faiss.knn(queries, np.ascontiguousarray(descriptors, np.float32), k, metric=faiss.METRIC_L2)
        return np.asarray(rows, np.int64)

    return shortlist


def _torch_shortlist(descriptors: FloatArray, device: torch.device) -> Shortlist:
    gallery = torch.from_numpy(np.array(descriptors, np.float32)).to(device)
    squared = gallery.square().sum(dim=1)

    @torch.inference_mode()
    def shortlist(queries: FloatArray, k: int) -> IndexArray:
        on_device = torch.from_numpy(queries).to(device)
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(gallery), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            # ‖q - g‖² - ‖q‖²: the query's own length changes no rank
            distances = squared[rows] - 2 * on_device @ gallery[rows].T
            nearest = distances.topk(min(k, distances.shape[1]), largest=False)
            found = (nearest.values, nearest.indices + start)
            best = found if best is None else _merge(best, found, k)
        return np.asarray(best[1].cpu().numpy(), np.int64) if best else np.empty((len(queries), 0), np.int64)

    return shortlist


def _merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    distances, rows = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    nearest = distances.topk(min(k, distances.shape[1]), largest=False)
    return nearest.values, rows.gather(1, nearest.indices)
