"""Opening a gallery's files: each has the size and form that the manifest names, or is refused by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError


def check_size(path: Path, expected: int) -> None:
    """Refuse a file whose size is not ``expected`` bytes.

    Raises:
        GalleryError: It is absent, shorter or longer.
    """
    if not path.is_file():
        raise GalleryError(f"{path}: is missing, expected {expected} bytes")
    size = path.stat().st_size
    if size != expected:
        state = "is truncated" if size < expected else "has changed"
        raise GalleryError(f"{path}: {state}: {size} bytes, expected {expected}")


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map an ``.npy`` file, read-only.

    Raises:
        GalleryError: It is no array, or has another dtype or shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python's tokens, and lets nearly anything out
        raise GalleryError(f"{path}: is no array: {str(error).splitlines()[0]}") from None
    if array.dtype != dtype or array.shape != shape:
        raise GalleryError(f"{path}: holds {array.dtype} {array.shape}, expected {dtype} {shape}")
    return np.asarray(array)


def next_folder(root: Path, named: Collection[str] = ()) -> Path:
    """Return the folder under ``root`` whose number, four digits or more, follows those there and ``named``."""
    stems = [*(path.stem for path in root.glob("*")), *named]
    taken = [int(stem) for stem in stems if stem.isdecimal()]
    return root / f"{max(taken, default=0) + 1:04d}"
