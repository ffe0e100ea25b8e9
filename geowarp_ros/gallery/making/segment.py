"""A segment being written, batch by batch, so that a killed build goes on after its last finished batch.

``NNNN.partial/`` holds the segment's files as far as they are and two more: ``plan.json``, from what and by what
it is made, and ``journal.jsonl``, one line per finished batch, written after the batch is on the disk. What lies
in the files beyond the journal is cut off by the next run. A finished segment is renamed to ``NNNN``; only then
does the manifest name it.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.local import LOCAL_FEATURES, Form, compress_local_features, layout
from geowarp_ros.gallery.manifest import StoredFile, checksum, sync
from geowarp_ros.gallery.places import Row, table_of
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped

DESCRIPTORS = "descriptors.npy"
PLACES = "places.csv"
POSITIONS_FILE = "places.npy"
IMAGES = "images"
PLAN = "plan.json"
JOURNAL = "journal.jsonl"
_SYNCS = 16  # file systems write out what waits together in one go


class SegmentWriter:
    """Appends batches to a segment.

    Attributes:
        folder: ``NNNN.partial``.
        done: How many images of the source are dealt with, skipped ones included.
        rows: The images that are in it.
        skipped: The images that could not be read.
    """

    def __init__(self, folder: Path, descriptor_dim: int, channels: int, grid: int) -> None:
        self.folder = folder
        self._channels = channels
        self.done = 0
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self._arrays = (
            _GrowingArray(folder / DESCRIPTORS, np.dtype("<f4"), (descriptor_dim,)),
            _GrowingArray(folder / LOCAL_FEATURES, np.dtype("<f2"), (channels, grid, grid)),
        )

    def start(self, plan: dict[str, Any]) -> None:
        """Make the folder, or take over what a run with the same plan left in it."""
        (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
        if read_plan(self.folder) == plan:
            self._read_journal()
        else:
            (self.folder / JOURNAL).unlink(missing_ok=True)
            (self.folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")
            sync(self.folder / PLAN)
        for array in self._arrays:
            array.cut(len(self.rows))

    def image_path(self, row: int) -> Path:
        """Return where the image of that row goes."""
        return self.folder / IMAGES / f"{row:06d}.jpg"

    def append(
        self,
        rows: Sequence[Row],
        skipped: Sequence[Skipped],
        descriptors: NDArray[np.float32],
        local_features: NDArray[np.float16],
    ) -> None:
        """Write one batch whose images are there already."""
        self._arrays[0].append(descriptors)
        self._arrays[1].append(local_features)
        self.done += len(rows) + len(skipped)
        self.rows += rows
        self.skipped += skipped
        entry = {
            "rows": [row.to_text() for row in rows],
            "skipped": [[skip.name, skip.reason] for skip in skipped],
        }
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def finish(
        self, form: Form = "half", codebook: NDArray[np.float32] | None = None, progress: Progress = silent
    ) -> dict[str, StoredFile]:
        """Close the arrays, write the places and put everything on the disk; returns the files' checksums.

        Args:
            form: Of the local features; what they were gathered in stays until the manifest names the segment.
            codebook: For ``pq``, where one is there already.
            progress: Shows the images stored.
        """
        for array in self._arrays:
            array.close(len(self.rows))
        if form != "half":
            compress_local_features(self.folder, form, codebook, progress)
        table, positions = table_of(self.rows)
        (self.folder / PLACES).write_bytes(table)
        np.save(self.folder / POSITIONS_FILE, positions, allow_pickle=False)
        images = list((self.folder / IMAGES).iterdir())
        with ThreadPoolExecutor(_SYNCS) as pool:
            for _ in progress(pool.map(sync, images), len(images), "storing images"):
                pass
        files = {}
        for name in (DESCRIPTORS, *layout(form, len(self.rows), self._channels), PLACES, POSITIONS_FILE):
            path = self.folder / name
            sync(path)
            files[name] = StoredFile(size=path.stat().st_size, blake2b=checksum(path))
        sync(self.folder / IMAGES)
        sync(self.folder)
        return files

    def _read_journal(self) -> None:
        journal = self.folder / JOURNAL
        if not journal.is_file():
            return
        whole = b""
        for line in journal.read_bytes().splitlines(keepends=True):
            batch = _parse(line)
            if batch is None:
                break  # half a line, or rubbish
            arrays_hold_it = all(array.holds(len(self.rows) + len(batch.rows)) for array in self._arrays)
            if not arrays_hold_it or not all(self._is_there(row) for row in batch.rows):
                break  # a batch of which a power cut took a part
            whole += line
            self.done += len(batch.rows) + len(batch.skipped)
            self.rows += batch.rows
            self.skipped += batch.skipped
        journal.write_bytes(whole)

    def _is_there(self, row: Row) -> bool:
        path = self.folder / row.image  # an absolute one stays itself
        # of the right size is not enough: after a power cut it may be full of zeros
        return path.is_file() and path.stat().st_size == row.image_size and checksum(path) == row.image_blake2b


def read_plan(folder: Path) -> Any:
    """Return the plan of an unfinished segment, or None."""
    try:
        return json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def forget_journal(folder: Path, files: Collection[str]) -> None:
    """Drop what only an unfinished segment needs: all but its ``files`` and images."""
    for path in folder.iterdir():
        if path.name not in files and path.name != IMAGES:
            path.unlink()


@dataclass(frozen=True, slots=True)
class _Batch:
    """A line of the journal."""

    rows: list[Row]
    skipped: list[Skipped]


def _parse(line: bytes) -> _Batch | None:
    """Read a line of the journal; None where it is something else."""
    try:
        entry = json.loads(line)
        rows = [Row.from_text(values) for values in entry["rows"]]
        skipped = [Skipped(name, reason) for name, reason in entry["skipped"]]
    except (ValueError, TypeError, KeyError):
        return None
    return _Batch(rows, skipped) if line.endswith(b"\n") else None


class _GrowingArray:
    """An .npy file that grows by rows; its header is written last, into the room that NumPy leaves for it."""

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = dtype
        self._row_shape = row_shape
        self._row_size = dtype.itemsize * math.prod(row_shape)

    def cut(self, rows: int) -> None:
        """Keep the first ``rows`` rows; makes the file."""
        self._path.touch()
        os.truncate(self._path, len(self._header(0)) + rows * self._row_size)

    def holds(self, rows: int) -> bool:
        return self._path.is_file() and self._path.stat().st_size >= len(self._header(0)) + rows * self._row_size

    def append(self, values: NDArray[Any]) -> None:
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(values, self._dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def close(self, rows: int) -> None:
        with self._path.open("r+b") as file:
            file.write(self._header(rows))

    def _header(self, rows: int) -> bytes:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (rows, *self._row_shape),
            },
        )
        return buffer.getvalue()
