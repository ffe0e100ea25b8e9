"""Storage of local features: half precision, int8 or product-quantised, read by memory map.

The vector of each cell has unit length (paper sec. 3.2); both compressed forms are scaled back to it when read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import faiss
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.model import GRID
from geowarp_ros.progress import Progress, silent

Form: TypeAlias = Literal["half", "int8", "pq"]
FORMS: tuple[Form, ...] = get_args(Form)

LOCAL_FEATURES = "local_features.npy"
SCALES = "local_scales.npy"
CODES = "local_codes.npy"
CODEBOOK = "local_codebook.npy"

CELLS = GRID * GRID
PER_CODE = 8
"""Channels that one byte stands for in ``pq``: 32 bytes a cell for 256 channels, 16 times less than ``half``."""

_ENTRIES = 256
_TRAINING_CELLS = 100_000
_ROWS_AT_ONCE = 64


def layout(form: Form, rows: int, channels: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return dtype and shape of the files of a form, by name."""
    codes = channels // math.gcd(channels, PER_CODE)
    if form == "half":
        return {LOCAL_FEATURES: (np.dtype("<f2"), (rows, channels, GRID, GRID))}
    if form == "int8":
        return {
            CODES: (np.dtype("i1"), (rows, channels, GRID, GRID)),
            SCALES: (np.dtype("<f2"), (rows, GRID, GRID)),
        }
    return {
        CODES: (np.dtype("u1"), (rows, GRID, GRID, codes)),
        CODEBOOK: (np.dtype("<f4"), (codes, _ENTRIES, channels // codes)),
    }


def read_local_features(form: Form, arrays: dict[str, NDArray[Any]], row: int) -> NDArray[np.float16]:
    """Return the local features (C, 15, 15) of one row from the arrays of :func:`layout`."""
    if form == "half":
        half: NDArray[np.float16] = arrays[LOCAL_FEATURES][row]
        return half
    if form == "int8":
        features = arrays[CODES][row] * arrays[SCALES][row].astype(np.float32)
    else:
        codebook, codes = arrays[CODEBOOK], arrays[CODES][row].reshape(CELLS, -1)
        parts = codebook[np.arange(len(codebook)), codes]  # (cells, codes, numbers)
        features = parts.reshape(CELLS, -1).T.reshape(-1, GRID, GRID)
    length = np.linalg.norm(features, axis=0)
    return np.asarray(features / np.maximum(length, np.finfo(np.float32).tiny), np.float16)


def compress_local_features(
    folder: Path, form: Form, codebook: NDArray[np.float32] | None = None, progress: Progress = silent
) -> None:
    """Write the files of ``form`` beside ``local_features.npy``, which stays.

    Args:
        folder: Folder of the segment.
        form: ``int8`` or ``pq``.
        codebook: Codebook of the gallery's earlier segments, for ``pq``; None learns one from this segment.
        progress: Shows the blocks of images.
    """
    features = np.load(folder / LOCAL_FEATURES, mmap_mode="r", allow_pickle=False)
    rows, channels = features.shape[:2]
    files = layout(form, rows, channels)
    arrays = {
        name: np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape)
        for name, (dtype, shape) in files.items()
    }
    if form == "pq":
        quantizer = _quantizer(features, arrays[CODEBOOK].shape, codebook)
        arrays[CODEBOOK][:] = faiss.vector_to_array(quantizer.centroids).reshape(arrays[CODEBOOK].shape)
    starts = range(0, rows, _ROWS_AT_ONCE)
    for start in progress(starts, len(starts), "compressing local features in blocks"):
        block = slice(start, start + _ROWS_AT_ONCE)
        values = np.asarray(features[block], np.float32)
        if form == "int8":
            scales = (np.abs(values).max(axis=1) / 127).astype(np.float16)
            divisor = np.maximum(scales.astype(np.float32), np.finfo(np.float16).tiny)[:, None]
            arrays[CODES][block] = np.clip(np.rint(values / divisor), -127, 127)
            arrays[SCALES][block] = scales
        else:
            arrays[CODES][block] = quantizer.compute_codes(_cells(values)).reshape(len(values), GRID, GRID, -1)
    for array in arrays.values():
        array.flush()


def _quantizer(
    features: NDArray[np.float16], shape: Sequence[int], codebook: NDArray[np.float32] | None
) -> faiss.ProductQuantizer:
    codes, _, numbers = shape
    quantizer = faiss.ProductQuantizer(codes * numbers, codes, 8)
    if codebook is not None:
        faiss.copy_array_to_vector(np.ascontiguousarray(codebook, np.float32).ravel(), quantizer.centroids)
        return quantizer
    wanted = min(len(features), max(1, _TRAINING_CELLS // CELLS))
    chosen = np.sort(np.random.default_rng(0).choice(len(features), wanted, replace=False))
    cells = _cells(np.asarray(features[chosen], np.float32))
    if len(cells) < _ENTRIES:  # one image: fewer cells than entries
        cells = np.resize(cells, (_ENTRIES, cells.shape[1]))
    quantizer.cp.min_points_per_centroid = 1
    quantizer.train(cells)
    return quantizer


def _cells(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return local features (B, C, 15, 15) as vectors (B·225, C)."""
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1).reshape(-1, values.shape[1]))
