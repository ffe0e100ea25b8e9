"""Writing a segment batch by batch, so that a killed build goes on after its last finished batch.

``NNNN.partial/`` holds the segment's files as far as they are written and two more: ``plan.json``, which
identifies source and model, and ``journal.jsonl``, to which a line is appended once a batch is on the disk. The
next run cuts off what lies beyond the journal. A finished segment is renamed to ``NNNN`` before the manifest names
it.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.local import LOCAL_FEATURES, Form, compress_local_features, layout
from geowarp_ros.gallery.manifest import (
    DESCRIPTORS,
    IMAGES,
    PLACES,
    POSITIONS_FILE,
    StoredFile,
    checksum,
    sync,
)
from geowarp_ros.gallery.places import Row, table_of
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped

PLAN = "plan.json"
JOURNAL = "journal.jsonl"
_SYNCS = 16  # file systems write out what waits together in one go


class SegmentWriter:
    """Appends batches to a segment.

    Attributes:
        folder: ``NNNN.partial``.
        done: Number of the source's images that are dealt with, skipped ones included.
        rows: Rows written.
        skipped: Images that could not be read.
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

    def append(
        self,
        rows: Sequence[Row],
        skipped: Sequence[Skipped],
        descriptors: NDArray[np.float32],
        local_features: NDArray[np.float16],
    ) -> None:
        """Append a batch whose images are written already.

        Args:
            rows: B rows.
            skipped: Images of the batch that could not be read.
            descriptors: (B, D).
            local_features: (B, C, 15, 15).
        """
        self._arrays[0].append(descriptors)
        self._arrays[1].append(local_features)
        self._take(rows, skipped)
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
        """Complete the files and wait until they are on the disk.

        Args:
            form: Storage form of the local features; :func:`forget_journal` deletes the half-precision ones.
            codebook: Codebook of the gallery's earlier segments, for ``pq``; None learns one.
            progress: Shows the images stored.

        Returns:
            Size and checksum of each file but the images, by name.
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
        names = (DESCRIPTORS, *layout(form, len(self.rows), self._channels), PLACES, POSITIONS_FILE)
        files = {name: StoredFile.of(self.folder / name) for name in names}
        sync(self.folder / IMAGES)
        sync(self.folder)
        return files

    def _take(self, rows: Sequence[Row], skipped: Sequence[Skipped]) -> None:
        self.done += len(rows) + len(skipped)
        self.rows += rows
        self.skipped += skipped

    def _read_journal(self) -> None:
        journal = self.folder / JOURNAL
        if not journal.is_file():
            return
        whole = b""
        for line in journal.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
                rows = [Row.from_text(values) for values in entry["rows"]]
                skipped = [Skipped(name, reason) for name, reason in entry["skipped"]]
            except (ValueError, TypeError, KeyError):
                break  # rubbish
            arrays_hold_it = all(array.holds(len(self.rows) + len(rows)) for array in self._arrays)
            if not line.endswith(b"\n") or not arrays_hold_it or not all(map(self._is_there, rows)):
                break  # half a line, or a batch of which a power cut took a part
            whole += line
            self._take(rows, skipped)
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
    """Delete what only an unfinished segment needs: everything but its ``files`` and its images."""
    for path in folder.iterdir():
        if path.name not in files and path.name != IMAGES:
            path.unlink()


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
        os.truncate(self._path, self._size(rows))

    def holds(self, rows: int) -> bool:
        return self._path.is_file() and self._path.stat().st_size >= self._size(rows)

    def append(self, values: NDArray[Any]) -> None:
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(values, self._dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def close(self, rows: int) -> None:
        with self._path.open("r+b") as file:
            file.write(self._header(rows))

    def _size(self, rows: int) -> int:
        return len(self._header(0)) + rows * self._row_size

    def _header(self, rows: int) -> bytes:
        buffer = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()
