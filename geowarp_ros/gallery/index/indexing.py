"""The index in a gallery's folder: made from the rows that are there, opened with those that came later.

``index/NNNN/`` holds ``index.faiss`` where the kind is not exact, and where descriptors are whitened the
whitening and the whitened descriptors. It belongs to the rows that it numbers: their segments' checksums stand
with it, and it is refused where they differ. Segments that were added later are searched exactly beside it;
removed rows are left out of its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.files import check_size, map_array
from geowarp_ros.gallery.index.compressed import (
    IN_MEMORY_ROWS,
    SHORTLIST,
    CompressedIndex,
    Kind,
    choose_kind,
    exact_index,
    read_index,
    train_index,
    tune,
    write_index,
)
from geowarp_ros.gallery.index.search import Index, MergedIndex
from geowarp_ros.gallery.making.segment import DESCRIPTORS
from geowarp_ros.gallery.manifest import (
    INDEX,
    IndexedSegment,
    Segment,
    StoredFile,
    StoredIndex,
    checksum,
    sync,
)
from geowarp_ros.gallery.rows import RowNumbers, Stacked
from geowarp_ros.gallery.whitening import Whitening, train_whitening
from geowarp_ros.progress import Progress, silent

INDEX_FILE = "index.faiss"
WHITENING = "whitening.npy"

_ROWS_AT_ONCE = 65_536


class IndexOptions(Section):
    """What index a gallery is to have."""

    kind: Kind | None = Field(None, description="None: by the gallery's size.")
    whitened: int = Field(0, ge=0, description="Dimensions that PCA-whitening keeps; 0: not whitened.")
    on_disk: bool | None = Field(
        None, description="Whether inverted lists stay on the disk; None: by the gallery's size."
    )


@dataclass(frozen=True)
class Searched:
    """What a gallery is searched with.

    Attributes:
        descriptors: (N, K) of all stored rows, whitened where they are.
        whitening: Of queries; None: none.
        index: Over the stored rows, without the removed ones.
    """

    descriptors: Stacked
    whitening: Whitening | None
    index: Index


def make_index(
    folder: Path,
    segments: Sequence[Segment],
    descriptors: Stacked,
    numbers: RowNumbers,
    options: IndexOptions,
    progress: Progress = silent,
) -> StoredIndex | None:
    """Write an index of all stored rows into a new folder under ``index/``; None where none is needed.

    Args:
        folder: The gallery's, locked.
        segments: In the manifest's order.
        descriptors: (N, D) of all stored rows, as the model made them.
        numbers: Which of them are removed.
        options: Which index.
        progress: Shows what takes long.

    Raises:
        GalleryError: Too few rows for this kind or so many dimensions.
    """
    rows, length = len(descriptors), options.whitened or descriptors.width
    kind = options.kind or choose_kind(rows, length)
    if kind == "exact" and not options.whitened:
        return None
    whitening = None
    if options.whitened:
        kept = numbers.stored(np.arange(len(numbers)))
        whitening = train_whitening(descriptors, kept, options.whitened)
    where = _new_folder(folder)
    effort, recall, on_disk = 0, 1.0, False
    if whitening is not None:
        np.save(where / WHITENING, whitening.to_array(), allow_pickle=False)
        descriptors = Stacked([_write_whitened(where / DESCRIPTORS, whitening, descriptors)])
    if kind != "exact":
        index = train_index(kind, descriptors, progress)
        effort, recall = tune(index, descriptors)
        on_disk = rows > IN_MEMORY_ROWS if options.on_disk is None else options.on_disk
        write_index(index, where / INDEX_FILE)
    files = {}
    for path in sorted(where.iterdir()):
        sync(path)
        files[path.name] = StoredFile(size=path.stat().st_size, blake2b=checksum(path))
    sync(where)
    return StoredIndex(
        name=where.name,
        kind=kind,
        segments=tuple(
            IndexedSegment(name=s.name, images=s.images, descriptors_blake2b=s.files[DESCRIPTORS].blake2b)
            for s in segments
        ),
        whitened=options.whitened,
        on_disk=on_disk,
        effort=effort,
        shortlist=SHORTLIST if kind != "exact" else 0,
        recall=recall,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=files,
    )


def open_index(
    folder: Path,
    stored: StoredIndex | None,
    segments: Sequence[Segment],
    descriptors: Stacked,
    numbers: RowNumbers,
    device: torch.device | str,
) -> Searched:
    """Open what a gallery is searched with.

    Raises:
        GalleryError: The index is of other rows, or one of its files is absent, truncated or foreign.
    """
    if stored is None:
        return Searched(descriptors, None, exact_index(descriptors, device, numbers.removed))
    where = folder / INDEX / stored.name
    _check_belongs(folder, stored, segments)
    for name, file in stored.files.items():
        check_size(where / name, file.size)
    whitening = None
    if stored.whitened:
        shape = (1 + descriptors.width, 1 + stored.whitened)
        whitening = Whitening.from_array(map_array(where / WHITENING, np.dtype("<f4"), shape))
        indexed = map_array(where / DESCRIPTORS, np.dtype("<f4"), (stored.rows, stored.whitened))
        later = descriptors.arrays[len(stored.segments) :]
        descriptors = Stacked([indexed, *(whitening(array) for array in later)])
    if stored.kind == "exact":
        return Searched(descriptors, whitening, exact_index(descriptors, device, numbers.removed))
    inside, beside = descriptors.split(stored.rows)
    index = read_index(where / INDEX_FILE, stored.rows, descriptors.width, stored.on_disk)
    removed = numbers.removed
    without = removed[removed < stored.rows]
    parts: list[tuple[Index, int]] = [
        (CompressedIndex(index, inside, stored.effort, stored.shortlist, without), 0)
    ]
    if len(beside):
        without = removed[removed >= stored.rows] - stored.rows
        parts.append((exact_index(beside, device, without), stored.rows))
    return Searched(descriptors, whitening, MergedIndex(parts, descriptors.width))


def _check_belongs(folder: Path, stored: StoredIndex, segments: Sequence[Segment]) -> None:
    there = [(s.name, s.images, s.files[DESCRIPTORS].blake2b) for s in segments[: len(stored.segments)]]
    if there != [(s.name, s.images, s.descriptors_blake2b) for s in stored.segments]:
        raise GalleryError(
            f"{folder}: its index {stored.name} is of other descriptors than the gallery's first"
            f" {len(stored.segments)} segments; make it again (geowarp gallery index)"
        )


def _write_whitened(path: Path, whitening: Whitening, descriptors: Stacked) -> NDArray[np.float32]:
    shape = (len(descriptors), whitening.matrix.shape[1])
    whitened = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype("<f4"), shape=shape)
    for start in range(0, len(descriptors), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(descriptors)))
        whitened[rows] = whitening(descriptors[rows])
    whitened.flush()
    return np.asarray(whitened)


def _new_folder(folder: Path) -> Path:
    """Make the next free folder under ``index/``."""
    root = folder / INDEX
    taken = [int(path.name) for path in root.glob("*") if path.name.isdecimal()]
    new = root / f"{max(taken, default=0) + 1:04d}"
    new.mkdir(parents=True)
    return new
