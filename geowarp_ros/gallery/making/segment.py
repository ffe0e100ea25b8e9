"""Writing a segment batch by batch, so that a killed build goes on after its last finished batch.

``NNNN.partial/`` holds the segment's files as far as they are written and two more: ``plan.json``, which
identifies source and model, and ``journal.jsonl``, to which a line is appended once a batch is on the disk. The
next run cuts off what lies beyond the journal. A finished segment is renamed to ``NNNN`` before the manifest names
it. Keypoints, cameras and what another model makes can be written into a finished segment in the same way while no
manifest names them.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError
from geowarp_ros.gallery import photographs
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
from geowarp_ros.gallery.photographs import CAMERA_FILES, KEYPOINT_FILES, NO_CAMERA, camera_list
from geowarp_ros.gallery.places import Row, table_of
from geowarp_ros.keypoints.detector import KeypointConfig, Keypoints
from geowarp_ros.model import GRID
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped

PLAN = "plan.json"
JOURNAL = "journal.jsonl"
_SYNCS = 16  # file systems write out what waits together in one go


class Journal:
    """Lines of JSON about batches that are on the disk, appended one by one.

    Args:
        folder: Folder of the segment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / JOURNAL

    def start(self, plan: dict[str, Any], take: Callable[[Mapping[str, Any]], bool]) -> None:
        """Begin, or go on where a run with the same plan stopped.

        Args:
            plan: Identifies what is being made.
            take: Takes over one batch of that run; returns False, or fails, where the disk does not hold it whole.
                It and all that follow are forgotten.
        """
        if read_plan(self._folder) != plan:
            self._path.unlink(missing_ok=True)
            (self._folder / PLAN).write_text(json.dumps(plan), encoding="utf-8")
            sync(self._folder / PLAN)
        elif self._path.is_file():
            whole = b""
            for line in self._path.read_bytes().splitlines(keepends=True):
                try:
                    if not line.endswith(b"\n") or not take(json.loads(line)):
                        break  # half a line, or a batch of which a power cut took a part
                except (ValueError, TypeError, KeyError, CameraError):
                    break  # rubbish
                whole += line
            self._path.write_bytes(whole)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append a batch, after its content is on the disk."""
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())


class KeypointWriter:
    """Appends the keypoints of photographs to the files of a segment.

    Attributes:
        counts: Number of keypoints of each photograph.
    """

    def __init__(self, folder: Path, descriptor_dim: int) -> None:
        self._folder = folder
        self.counts: list[int] = []
        self._total = 0
        self._arrays = (
            _GrowingArray(folder / photographs.POINTS, np.dtype("<f4"), (2,)),
            _GrowingArray(folder / photographs.DESCRIPTORS, np.dtype("u1"), (descriptor_dim,)),
        )

    def take(self, counts: Sequence[int]) -> bool:
        """Take over photographs with so many keypoints; False if the files do not hold them."""
        total = self._total + sum(counts)
        if not all(array.holds(total) for array in self._arrays):
            return False
        self.counts += counts
        self._total = total
        return True

    def cut(self) -> None:
        """Cut off what lies beyond the keypoints counted; makes the files."""
        for array in self._arrays:
            array.cut(self._total)

    def append(self, keypoints: Sequence[Keypoints]) -> list[int]:
        """Append the keypoints of a batch of photographs; returns their numbers, for the journal."""
        if some := [one for one in keypoints if len(one)]:
            self._arrays[0].append(np.concatenate([one.points for one in some]))
            self._arrays[1].append(np.concatenate([one.descriptors for one in some]))
        counts = [len(one) for one in keypoints]
        self.counts += counts
        self._total += sum(counts)
        return counts

    def finish(self) -> tuple[str, ...]:
        """Complete the files; returns their names."""
        for array in self._arrays:
            array.close(self._total)
        np.save(self._folder / photographs.STARTS, np.cumsum([0, *self.counts], dtype="<i8"), allow_pickle=False)
        return KEYPOINT_FILES


class DescriptionWriter:
    """Appends what a model makes of photographs, descriptors and local features, to files in a folder."""

    def __init__(self, folder: Path, descriptor_dim: int, channels: int) -> None:
        self._folder = folder
        self._channels = channels
        self._arrays = (
            _GrowingArray(folder / DESCRIPTORS, np.dtype("<f4"), (descriptor_dim,)),
            _GrowingArray(folder / LOCAL_FEATURES, np.dtype("<f2"), (channels, GRID, GRID)),
        )

    def holds(self, rows: int) -> bool:
        """Whether the files hold so many photographs."""
        return all(array.holds(rows) for array in self._arrays)

    def cut(self, rows: int) -> None:
        """Keep the first ``rows`` photographs; makes the files."""
        for array in self._arrays:
            array.cut(rows)

    def append(self, descriptors: NDArray[np.float32], local_features: NDArray[np.float16]) -> None:
        """Append a batch of photographs: (B, D) and (B, C, 15, 15)."""
        self._arrays[0].append(descriptors)
        self._arrays[1].append(local_features)

    def finish(
        self, rows: int, form: Form, codebook: NDArray[np.float32] | None, progress: Progress
    ) -> tuple[str, ...]:
        """Complete the files of so many photographs; returns their names. See SegmentWriter.finish."""
        for array in self._arrays:
            array.close(rows)
        if form != "half":
            compress_local_features(self._folder, form, codebook, progress)
        return (DESCRIPTORS, *layout(form, rows, self._channels))


def write_cameras(folder: Path, cameras: Sequence[Camera | None]) -> tuple[str, ...]:
    """Write the camera of each photograph of a segment; returns the files' names, none if no camera is known."""
    different = {camera: number for number, camera in enumerate(dict.fromkeys(filter(None, cameras)))}
    if not different:
        return ()
    numbers = [NO_CAMERA if camera is None else different[camera] for camera in cameras]
    (folder / photographs.CAMERAS).write_bytes(camera_list.dump_json(list(different), indent=1))
    np.save(folder / photographs.CAMERA_NUMBERS, np.array(numbers, "<i4"), allow_pickle=False)
    return CAMERA_FILES


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of B photographs whose images are written already.

    Attributes:
        rows: B rows.
        skipped: Images of the batch that could not be read.
        descriptors: (B, D).
        local_features: (B, C, 15, 15).
        keypoints: Keypoints of each; empty where none are stored.
        cameras: Camera of each at working resolution; None where unknown.
    """

    rows: Sequence[Row]
    skipped: Sequence[Skipped]
    descriptors: NDArray[np.float32]
    local_features: NDArray[np.float16]
    keypoints: Sequence[Keypoints]
    cameras: Sequence[Camera | None]


class SegmentWriter:
    """Appends batches to a segment.

    Attributes:
        folder: ``NNNN.partial``.
        done: Number of the source's images that are dealt with, skipped ones included.
        rows: Rows written.
        skipped: Images that could not be read.
    """

    def __init__(self, folder: Path, descriptor_dim: int, channels: int, keypoints: KeypointConfig | None) -> None:
        self.folder = folder
        self.done = 0
        self.rows: list[Row] = []
        self.skipped: list[Skipped] = []
        self._cameras: list[Camera | None] = []
        self._journal = Journal(folder)
        self._keypoints = KeypointWriter(folder, keypoints.descriptor_dim) if keypoints else None
        self._descriptions = DescriptionWriter(folder, descriptor_dim, channels)

    def start(self, plan: dict[str, Any]) -> None:
        """Make the folder, or take over what a run with the same plan left in it."""
        (self.folder / IMAGES).mkdir(parents=True, exist_ok=True)
        self._journal.start(plan, self._take_over)
        self._descriptions.cut(len(self.rows))
        if self._keypoints:
            self._keypoints.cut()

    def append(self, batch: Batch) -> None:
        """Append a batch whose images are written already."""
        self._descriptions.append(batch.descriptors, batch.local_features)
        counts = self._keypoints.append(batch.keypoints) if self._keypoints else []
        self._take(batch.rows, batch.skipped, batch.cameras)
        self._journal.append(
            {
                "rows": [row.to_text() for row in batch.rows],
                "skipped": [[skip.name, skip.reason] for skip in batch.skipped],
                "keypoints": counts,
                "cameras": camera_list.dump_python(list(batch.cameras), mode="json"),
            }
        )

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
        described = self._descriptions.finish(len(self.rows), form, codebook, progress)
        keypoints = self._keypoints.finish() if self._keypoints else ()
        cameras = write_cameras(self.folder, self._cameras)
        table, positions = table_of(self.rows)
        (self.folder / PLACES).write_bytes(table)
        np.save(self.folder / POSITIONS_FILE, positions, allow_pickle=False)
        images = list((self.folder / IMAGES).iterdir())
        with ThreadPoolExecutor(_SYNCS) as pool:
            for _ in progress(pool.map(sync, images), len(images), "storing images"):
                pass
        names = (*described, PLACES, POSITIONS_FILE, *keypoints, *cameras)
        files = {name: StoredFile.of(self.folder / name) for name in names}
        sync(self.folder / IMAGES)
        sync(self.folder)
        return files

    def _take(self, rows: Sequence[Row], skipped: Sequence[Skipped], cameras: Sequence[Camera | None]) -> None:
        self.done += len(rows) + len(skipped)
        self.rows += rows
        self.skipped += skipped
        self._cameras += cameras

    def _take_over(self, entry: Mapping[str, Any]) -> bool:
        rows = [Row.from_text(values) for values in entry["rows"]]
        skipped = [Skipped(name, reason) for name, reason in entry["skipped"]]
        cameras = camera_list.validate_python(entry["cameras"])
        if not self._descriptions.holds(len(self.rows) + len(rows)) or not all(map(self._is_there, rows)):
            return False
        if self._keypoints and not self._keypoints.take(entry["keypoints"]):
            return False
        self._take(rows, skipped, cameras)
        return True

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
        own = [name.partition("/")[2] for name in files if name.startswith(f"{path.name}/")]
        if own:
            forget_journal(path, own)
        elif path.name not in files and path.name != IMAGES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


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
