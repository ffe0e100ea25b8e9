"""Compressed indices by FAISS, for galleries too large to be compared with row by row.

An index finds a shortlist, whose distances are measured from the descriptors on the disk. So what is found has its
true distance and rank; only what the shortlist misses is lost, and :func:`tune` measures how much that is.

- ``ivf-sq``: rotated and shortened by PCA, inverted lists, four bits for each of 128 numbers: 64 bytes.
- ``ivf-pq``: the same with product-quantised codes (Jégou, Douze and Schmid, "Product quantization for nearest
  neighbor search", TPAMI 2011): 32 bytes, longer to train.
- ``hnsw``: a graph over int8 descriptors (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor
  search using hierarchical navigable small world graphs", TPAMI 2018): no training, most memory.

Inverted lists can stay on the disk, read by memory map: memory then does not grow with the gallery.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import faiss
import numpy as np

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.search import ExactIndex, Found, Index, MergedIndex, check_queries, measure
from geowarp_ros.gallery.rows import NO_ROWS, FloatArray, IndexArray, Stacked, among
from geowarp_ros.progress import Progress, silent

Kind: TypeAlias = Literal["exact", "ivf-sq", "ivf-pq", "hnsw"]
KINDS: tuple[Kind, ...] = get_args(Kind)

EXACT_BYTES = 200_000_000
"""Size of all descriptors up to which search is exact: 10⁵ of 512 numbers, about 10 ms on one core."""

IN_MEMORY_ROWS = 20_000_000
"""Number of rows above which inverted lists stay on the disk: 1.5 GB."""

SHORTLIST = 200
"""Number of rows whose distances are measured for a query, or 2·k where that is more."""

RECALL = 0.98
"""Share of the true 20 nearest that an index is tuned to find."""

_LEAST_ROWS = 256  # entries of a codebook
_DIMENSIONS = 128  # that PCA keeps
_CODE_BYTES = 32  # of a product-quantised code
_LINKS = 16  # of a node of the graph, twice as many on its lowest level
_TRAINING_ROWS_PER_LIST = 40  # FAISS warns below 39
_TRAINING_ROWS_PER_ENTRY = 64  # of a codebook; FAISS would take 256 and five times as long for the same recall
_ROUNDS = 10
_ROWS_AT_ONCE = 65_536
_NEAREST = 20
_LEAST_EFFORT = 16
_EXACT_FROM = 16  # a shortlist of more than one row in so many costs more than comparing all
_PREFETCHERS = 0  # threads that touch lists on the disk ahead: starting FAISS's 32 takes longer than a search

_FAISS: Any = faiss  # whose stubs, where it has any, know half of it
_log = logging.getLogger(__name__)


def choose_kind(rows: int, length: int) -> Kind:
    """Return the kind of index for ``rows`` descriptors of ``length`` numbers."""
    return "exact" if rows * length * 4 <= EXACT_BYTES else "ivf-sq"


def train_index(kind: Kind, descriptors: Stacked, progress: Progress = silent) -> Any:
    """Train a FAISS index and add all rows of ``descriptors`` to it.

    Args:
        kind: Any but ``exact``.
        descriptors: (N, D).
        progress: Shows the rows added.

    Raises:
        GalleryError: There are too few rows to train on.
    """
    count, length = len(descriptors), descriptors.width
    if count < _LEAST_ROWS:
        raise GalleryError(
            f"{count} images are too few for an index of kind {kind}, expected {_LEAST_ROWS}; use exact"
        )
    index = _empty_index(kind, count, length)
    wanted = max(_TRAINING_ROWS_PER_LIST * _lists(count), 256 * _TRAINING_ROWS_PER_LIST)
    chosen = np.random.default_rng(0).choice(count, min(count, wanted), replace=False)
    index.train(np.ascontiguousarray(descriptors[np.sort(chosen)], np.float32))
    starts = range(0, count, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), f"indexing {_ROWS_AT_ONCE} rows each, blocks"):
        block = np.arange(start, min(start + _ROWS_AT_ONCE, count))
        index.add(np.ascontiguousarray(descriptors[block], np.float32))
    return index


def write_index(index: Any, path: Path) -> None:
    """Write an index to a file."""
    faiss.write_index(index, str(path))


def read_index(path: Path, rows: int, length: int, on_disk: bool = False) -> Any:
    """Read a FAISS index; with ``on_disk`` its inverted lists stay on the disk.

    Raises:
        GalleryError: The file is no index, or its rows or their length differ from ``rows`` and ``length``.
    """
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if on_disk else 0)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise GalleryError(f"{path}: cannot be read as an index: {reason}; index the gallery again") from None
    if on_disk and isinstance(_FAISS.downcast_index(index), _FAISS.IndexPreTransform):
        lists = _FAISS.downcast_InvertedLists(_FAISS.extract_index_ivf(index).invlists)
        lists.prefetch_nthread = _PREFETCHERS
    if (index.ntotal, index.d) != (rows, length):
        raise GalleryError(
            f"{path}: indexes {index.ntotal} descriptors of {index.d} numbers, expected {rows} of {length};"
            " it belongs to another gallery, index this one again"
        )
    return index


class CompressedIndex:
    """Finds a shortlist by a compressed index and measures its distances.

    Args:
        index: FAISS index from :func:`train_index`.
        descriptors: (N, D) the rows it indexes.
        effort: Inverted lists visited, or graph nodes kept in view (efSearch), for each ``shortlist`` rows.
        shortlist: Number of rows to measure.
    """

    def __init__(self, index: Any, descriptors: Stacked, effort: int, shortlist: int = SHORTLIST) -> None:
        self._index = index
        self._descriptors = descriptors
        self._effort = effort
        self._shortlist = shortlist
        self._exact = exact_index(descriptors)

    def search(self, queries: FloatArray, k: int, without: IndexArray = NO_ROWS, /) -> Found:
        """Find the k nearest rows of each query; see :meth:`Index.search`.

        A query whose shortlist comes out too short is compared with every row.
        """
        queries = check_queries(queries, self._index.d)
        k = min(k, len(self._descriptors) - len(without))
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if k == 0 or len(queries) == 0:
            return distances, rows
        wanted = max(self._shortlist, 2 * k)
        asked = wanted + min(wanted // 4, len(without))
        for number, found in enumerate(self._nearest(queries, asked)):
            query, shortlist = queries[[number]], found[found >= 0]
            if len(without):
                shortlist = self._shortlist_without(query, found, k, wanted, without)
            distances[[number]], rows[[number]] = (
                measure(query, shortlist[None], self._descriptors.__getitem__, k)
                if len(shortlist) >= k
                else self._exact.search(query, k, without)
            )
        return distances, rows

    def _shortlist_without(
        self, query: FloatArray, found: IndexArray, k: int, wanted: int, without: IndexArray
    ) -> IndexArray:
        """Return the rows to measure for one query; none where comparing all of them costs less.

        Rows to leave out push the k-th of the others back in the list ``found``. The list is made longer in
        proportion, so that it misses as few of them as a list of ``wanted`` rows does with nothing to leave out.
        """
        while True:
            others = np.flatnonzero((found >= 0) & ~among(found, without))
            position = int(others[k - 1]) + 1 if len(others) >= k else len(found) + 1
            needed = wanted * position // k
            if needed <= len(found):
                return found[others[: wanted + position - k]]
            if needed > len(self._descriptors) // _EXACT_FROM:
                return NO_ROWS
            found = self._nearest(query, needed)[0]

    def _nearest(self, queries: FloatArray, count: int) -> IndexArray:
        """Return the rows (Q, count) that the index takes for nearest, -1 where it finds fewer."""
        effort = math.ceil(self._effort * count / self._shortlist)
        if isinstance(_FAISS.downcast_index(self._index), _FAISS.IndexPreTransform):
            lists = _FAISS.SearchParametersIVF(nprobe=effort)
            parameters = _FAISS.SearchParametersPreTransform(index_params=lists)
        else:
            parameters = _FAISS.SearchParametersHNSW(efSearch=effort)
        return np.asarray(self._index.search(queries, count, params=parameters)[1], np.int64)


def exact_index(descriptors: Stacked, device: Any = "cpu") -> Index:
    """Return an index that compares with every row of every array."""
    arrays = zip(descriptors.arrays, descriptors.starts.tolist(), strict=False)
    return MergedIndex([(ExactIndex(array, device), first) for array, first in arrays], descriptors.width)


def tune(index: Any, descriptors: Stacked, shortlist: int = SHORTLIST) -> tuple[int, float]:
    """Find the least effort with which the index finds :data:`RECALL` of the 20 nearest.

    Up to 200 of its own rows are the queries.

    Returns:
        Effort, and the recall measured with it; the greatest effort where none is enough.
    """
    count = len(descriptors)
    sample = min(count, 200, max(50, 100_000_000 // count))
    queries = descriptors[np.sort(np.random.default_rng(1).choice(count, sample, replace=False))]
    k = min(_NEAREST + 1, count)  # a row is its own nearest
    truth = exact_index(descriptors).search(queries, k)[1]
    effort = recall = 0.0
    for effort in _efforts(index):
        found = CompressedIndex(index, descriptors, int(effort), shortlist).search(queries, k)[1]
        recall = recall_of(found, truth)
        if recall >= RECALL:
            break
    _log.info("index: effort %d finds %.3f of the %d nearest", effort, recall, k - 1)
    return int(effort), float(recall)


def recall_of(found: IndexArray, truth: IndexArray) -> float:
    """Return the share of the true rows (Q, k) among the found ones (Q, k), 0 to 1."""
    return float(np.mean([np.isin(true, there).mean() for true, there in zip(truth, found, strict=True)]))


def _lists(count: int) -> int:
    """Return the number of inverted lists: the power of two about 2·√N."""
    return int(max(1, 2 ** round(math.log2(2 * math.sqrt(max(count, 1))))))


def _empty_index(kind: Kind, count: int, length: int) -> Any:
    if kind == "hnsw":
        index = _FAISS.IndexHNSWSQ(length, _FAISS.ScalarQuantizer.QT_8bit, _LINKS)
        index.hnsw.efConstruction = 80
        return index
    kept = min(_DIMENSIONS, length)
    lists = min(_lists(count), max(1, count // _TRAINING_ROWS_PER_LIST))
    quantizer = _FAISS.IndexFlatL2(kept)
    if kind == "ivf-sq":
        ivf = _FAISS.IndexIVFScalarQuantizer(quantizer, kept, lists, _FAISS.ScalarQuantizer.QT_4bit)
    else:
        code = math.gcd(kept, _CODE_BYTES)  # bytes, each for the same number of dimensions
        ivf = _FAISS.IndexIVFPQ(quantizer, kept, lists, code, 8)
        ivf.by_residual = False  # tables of residuals would take 32 kB a list in memory, or be made at each visit
        ivf.pq.cp.niter, ivf.pq.cp.max_points_per_centroid = _ROUNDS, _TRAINING_ROWS_PER_ENTRY
        ivf.pq.cp.min_points_per_centroid = 1  # a small gallery's codebook is as good as it can be
    ivf.cp.niter = _ROUNDS
    rotation = _FAISS.PCAMatrix(length, kept, 0, True)  # the random rotation behind it spreads the variance evenly
    index = _FAISS.IndexPreTransform(rotation, ivf)
    for part in (quantizer, rotation, ivf):
        part.this.disown()  # FAISS deletes them with the whole
    ivf.own_fields = index.own_fields = True
    return index


def _efforts(index: Any) -> Iterator[int]:
    inner = _FAISS.downcast_index(index)
    most = _FAISS.extract_index_ivf(inner).nlist if isinstance(inner, _FAISS.IndexPreTransform) else 1024
    effort = min(_LEAST_EFFORT, most)
    while effort < most:
        yield effort
        effort += effort // 2
    yield most
