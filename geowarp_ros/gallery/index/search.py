"""Exact search for the nearest descriptors: FAISS on the CPU, torch on CUDA, with the same ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import faiss
import numpy as np

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.rows import NO_ROWS, FloatArray, IndexArray, among

if TYPE_CHECKING:  # torch takes a second: a gallery is opened and asked what it holds without it
    import torch
    from torch import Tensor

Found: TypeAlias = tuple[FloatArray, IndexArray]
"""Squared Euclidean distances (Q, k) and rows (Q, k), nearest first; equal distances rank by row."""

Shortlist: TypeAlias = Callable[[FloatArray, int], IndexArray]
"""Finds the nearest rows of each query, nearest first up to rounding: (Q, D), k -> (Q, k)."""

MARGIN = 32
"""Rows measured beyond those asked for, so that rounding decides no rank."""

_ROWS_AT_ONCE = 262_144  # of the gallery, against all queries: 1 MiB of distances a query
_ROWS_READ_AT_ONCE = 8192  # of scattered rows: larger copies leave the processor's cache
_VALUES_AT_ONCE = 8_388_608  # 64 MiB of float64 while the shortlist is measured


class Index(Protocol):
    """Search for the nearest descriptors of a gallery."""

    def search(self, queries: FloatArray, k: int, without: IndexArray = NO_ROWS, /) -> Found:
        """Find the k nearest rows of each query.

        Args:
            queries: (Q, D) descriptors.
            k: Number of rows to find, at least 0; all rows where there are fewer.
            without: (W,) rows to leave out, ascending, without repetition.

        Raises:
            GalleryError: The queries have another length than the gallery's descriptors, or are not finite.
        """


class ExactIndex:
    """Compares the query with every descriptor.

    FAISS and torch round differently (and expand ‖a - b‖², which cancels for near ones), so each only finds a
    shortlist, whose distances are measured in float64 from the descriptors themselves.

    Args:
        descriptors: (N, D) float32; may be a memory map, and is not copied on the CPU.
        device: Device on which the shortlist is found.
        engine: Library that finds the shortlist; ``auto``: FAISS on the CPU, torch elsewhere.
    """

    def __init__(
        self,
        descriptors: FloatArray,
        device: torch.device | str = "cpu",
        engine: Literal["auto", "faiss", "torch"] = "auto",
    ) -> None:
        self._descriptors = np.asarray(descriptors)
        self._device = device
        self._engine = engine

    def search(self, queries: FloatArray, k: int, without: IndexArray = NO_ROWS, /) -> Found:
        """Find the k nearest rows of each query; see :meth:`Index.search`."""
        queries = check_queries(queries, self._descriptors.shape[1])
        left = len(self._descriptors) - len(without)
        k = min(k, left)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        wanted = min(k + MARGIN, left)
        rows = self._shortlist(queries, wanted + len(without))
        if len(without):
            last = np.argsort(among(rows, without), axis=1, kind="stable")[:, :wanted]
            rows = np.take_along_axis(rows, last, axis=1)
        return measure(queries, rows, self._descriptors.__getitem__, k)

    @cached_property
    def _shortlist(self) -> Shortlist:
        if self._engine == "faiss" or (self._engine == "auto" and str(self._device).partition(":")[0] == "cpu"):
            return _faiss_shortlist(self._descriptors)
        return _torch_shortlist(self._descriptors, self._device)


class MergedIndex:
    """Several indices searched as one; each holds consecutive rows of the whole.

    Args:
        parts: Each index and the first of its rows, ascending.
        length: D.
    """

    def __init__(self, parts: Sequence[tuple[Index, int]], length: int) -> None:
        self._parts = parts
        self._length = length

    def search(self, queries: FloatArray, k: int, without: IndexArray = NO_ROWS, /) -> Found:
        """Find the k nearest rows of each query; see :meth:`Index.search`."""
        queries = check_queries(queries, self._length)
        distances, rows = [np.empty((len(queries), 0), np.float32)], [np.empty((len(queries), 0), np.int64)]
        later_starts = [first for _, first in self._parts[1:]]
        left_out = np.split(without, np.searchsorted(without, later_starts))
        for (index, first), here in zip(self._parts, left_out, strict=True):
            distance, row = index.search(queries, k, here - first)
            distances.append(distance)
            rows.append(row + first)
        return nearest(np.concatenate(distances, axis=1), np.concatenate(rows, axis=1), k)


def check_queries(queries: FloatArray, length: int) -> FloatArray:
    """Return queries (Q, D) as FAISS takes them: contiguous float32.

    Raises:
        GalleryError: They have another length, or are not finite.
    """
    if queries.ndim != 2 or queries.shape[1] != length:
        raise GalleryError(f"descriptors of shape {queries.shape}, expected (Q, {length})")
    if not np.isfinite(queries).all():
        raise GalleryError("a query's descriptor has NaN or infinite values, expected finite ones")
    return np.ascontiguousarray(queries, np.float32)


def measure(queries: FloatArray, rows: IndexArray, read: Callable[[IndexArray], FloatArray], k: int) -> Found:
    """Rank a shortlist by its true distances.

    Args:
        queries: (Q, D).
        rows: (Q, R) shortlists, R at least k.
        read: Returns the descriptors (…, D) of rows (…).
        k: Number of rows to keep.
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


def search_rows(query: FloatArray, rows: IndexArray, read: Callable[[IndexArray], FloatArray], k: int) -> Found:
    """Find the k nearest of some rows; the cost grows with their number.

    Args:
        query: (1, D).
        rows: (R,) ascending.
        read: Returns the descriptors (…, D) of rows (…).
        k: Number of rows to find; all where there are fewer.
    """
    distances, found = np.empty((1, 0), np.float32), np.empty((1, 0), np.int64)
    for start in range(0, len(rows), _ROWS_READ_AT_ONCE):
        block = rows[start : start + _ROWS_READ_AT_ONCE]
        distance, row = ExactIndex(read(block)).search(query, k)
        distances = np.concatenate([distances, distance], axis=1)
        distances, found = nearest(distances, np.concatenate([found, block[row]], axis=1), k)
    return distances, found


def nearest(distances: FloatArray, rows: IndexArray, k: int) -> Found:
    """Return the k smallest of distances (Q, R) with their rows, nearest first; equals rank by row."""
    order = np.lexsort((rows, distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _faiss_shortlist(descriptors: FloatArray) -> Shortlist:
    # what IndexFlatL2 computes, without its copy of the descriptors
    def shortlist(queries: FloatArray, k: int) -> IndexArray:
        _, rows = faiss.knn(queries, np.ascontiguousarray(descriptors, np.float32), k, metric=faiss.METRIC_L2)
        return np.asarray(rows, np.int64)

    return shortlist


def _torch_shortlist(descriptors: FloatArray, device: torch.device | str) -> Shortlist:
    import torch

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
    import torch

    distances, rows = (torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
    nearest = distances.topk(min(k, distances.shape[1]), largest=False)
    return nearest.values, rows.gather(1, nearest.indices)
