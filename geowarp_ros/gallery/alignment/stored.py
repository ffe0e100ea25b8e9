"""An alignment in a gallery's folder, ``alignment/NNNN/``: an array a file, ``<field>.npy``, one row a photograph.

The manifest keeps the checksums of the keypoints that it was made from; with other keypoints it is refused.
Photographs added later have no pose until the gallery is aligned again; those of deleted segments are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.files import quoted
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.files import check_size, map_array, next_folder
from geowarp_ros.gallery.manifest import (
    ALIGNMENT,
    AlignedSegment,
    AlignmentSummary,
    Segment,
    StoredAlignment,
    StoredFile,
    now,
    sync,
)
from geowarp_ros.gallery.photographs import CAMERA_FILES, DESCRIPTORS

_PER_PHOTOGRAPH: dict[str, tuple[str, tuple[int, ...], Any]] = {
    "tied": ("?", (), False),
    "position_m": ("<f8", (3,), math.nan),
    "rotation": ("<f8", (3, 3), math.nan),
    "position_std_m": ("<f8", (), math.nan),
    "heading_std_rad": ("<f8", (), math.nan),
    "component": ("<i4", (), -1),
    "camera": ("<i4", (), -1),  # absent where none was estimated
}
"""Type and shape of a row, and what a photograph that was not aligned has."""


def aligned_segments(segments: Sequence[Segment]) -> tuple[AlignedSegment, ...]:
    """Return the manifest's entry for segments with keypoints."""
    return tuple(
        AlignedSegment(
            name=s.name,
            images=s.images,
            keypoints_blake2b=s.files[DESCRIPTORS].blake2b,
            cameras_blake2b=_cameras_blake2b(s),
        )
        for s in segments
    )


def store_alignment(
    folder: Path,
    segments: Sequence[Segment],
    alignment: Alignment,
    options: dict[str, Any],
    summary: AlignmentSummary,
) -> StoredAlignment:
    """Write an alignment of all stored rows into a new folder under ``alignment/``; returns its entry.

    Args:
        folder: Folder of the gallery, locked.
        segments: Segments in the manifest's order.
        alignment: The photographs' own poses by stored row.
        options: How it was made, for people.
        summary: What it found.
    """
    where = next_folder(folder / ALIGNMENT)
    where.mkdir(parents=True)
    types = {name: dtype for name, (dtype, _, _) in _PER_PHOTOGRAPH.items()}
    if alignment.camera is None:
        del types["camera"]
    types |= {"points_m": "<f8", "starts": "<i8", "keypoint": "<i4", "point": "<i4"}
    for name, dtype in types.items():
        array = np.ascontiguousarray(getattr(alignment, name), dtype)
        np.save(where / f"{name}.npy", array, allow_pickle=False)
    files = {f"{name}.npy": StoredFile.of(where / f"{name}.npy") for name in types}
    sync(where)
    sync(where.parent)
    return StoredAlignment(
        name=where.name,
        segments=aligned_segments(segments),
        datum=alignment.datum,
        options=options,
        summary=summary,
        cameras=alignment.cameras,
        created=now(),
        files=files,
    )


def open_alignment(folder: Path, stored: StoredAlignment, segments: Sequence[Segment]) -> Alignment | None:
    """Open the alignment of a gallery by its stored rows now; None if no photograph is tied.

    Args:
        folder: Folder of the gallery.
        stored: The manifest's entry.
        segments: Segments in the manifest's order.

    Raises:
        GalleryError: It was made from other keypoints, or a file is absent, truncated or foreign.
    """
    if not stored.summary.tied:
        for name, file in stored.files.items():
            check_size(folder / ALIGNMENT / stored.name / name, file.size)
        return None
    opened = _by_rows_now(folder, stored, segments)
    for segment in segments:
        if segment.name in opened.changed:
            raise GalleryError(
                f"{folder}: its alignment {stored.name} is of other keypoints than those of segment"
                f" {segment.name}; align it again (geowarp gallery align {quoted(folder)})"
            )
    return _select(opened.then, opened.numbers)


def kept_alignment(
    folder: Path, stored: StoredAlignment, segments: Sequence[Segment], removed: NDArray[np.int64]
) -> tuple[Alignment, frozenset[int]]:
    """Return what still holds of an alignment, by stored rows now, and the groups that lost photographs.

    Photographs whose keypoints or cameras are others now are as if they had come since.

    Args:
        folder: Folder of the gallery.
        stored: The manifest's entry.
        segments: Segments in the manifest's order.
        removed: Stored rows that are removed.

    Raises:
        GalleryError: A file is absent, truncated or foreign.
    """
    opened = _by_rows_now(folder, stored, segments)
    then = {known.name: known.cameras_blake2b for known in stored.segments}
    starts = np.cumsum([0, *(segment.images for segment in segments)])
    numbers = opened.numbers.copy()
    for segment, start in zip(segments, starts, strict=False):
        if segment.name in opened.changed or then.get(segment.name) != _cameras_blake2b(segment):
            numbers[start : start + segment.images] = -1
    held = numbers.copy()
    held[removed] = -1
    gone = np.ones(len(opened.then.tied), bool)
    gone[held[held >= 0]] = False
    torn = opened.then.component[gone & opened.then.tied]
    return _select(opened.then, numbers), frozenset(torn.tolist())


@dataclass(frozen=True)
class _Opened:
    """An alignment as it was stored.

    Attributes:
        then: By the rows then.
        numbers: Of each stored row now, the row then; -1: none.
        changed: Segments whose keypoints are others now.
    """

    then: Alignment
    numbers: NDArray[np.int64]
    changed: frozenset[str]


def _by_rows_now(folder: Path, stored: StoredAlignment, segments: Sequence[Segment]) -> _Opened:
    where = folder / ALIGNMENT / stored.name
    for name, file in stored.files.items():
        check_size(where / name, file.size)
    starts, rows = {}, 0
    for known in stored.segments:
        starts[known.name] = rows
        rows += known.images
    entries = {known.name: known for known in stored.segments}
    numbers, changed = [np.empty(0, np.int64)], set()
    for segment in segments:
        known_then = entries.get(segment.name)
        if known_then is None:
            numbers.append(np.full(segment.images, -1))
            continue
        keypoints = segment.files[DESCRIPTORS].blake2b if DESCRIPTORS in segment.files else ""
        if (segment.images, keypoints) != (known_then.images, known_then.keypoints_blake2b):
            changed.add(segment.name)
        numbers.append(np.arange(segment.images) + starts[segment.name])
    return _Opened(_map(where, stored, rows), np.concatenate(numbers), frozenset(changed))


def _cameras_blake2b(segment: Segment) -> str:
    return " ".join(segment.files[name].blake2b for name in CAMERA_FILES if name in segment.files)


def _map(where: Path, stored: StoredAlignment, rows: int) -> Alignment:
    each = {
        name: map_array(where / f"{name}.npy", np.dtype(dtype), (rows, *shape))
        for name, (dtype, shape, _) in _PER_PHOTOGRAPH.items()
        if f"{name}.npy" in stored.files
    }
    starts = map_array(where / "starts.npy", np.dtype("<i8"), (rows + 1,))
    points = map_array(where / "points_m.npy", np.dtype("<f8"), (stored.summary.points, 3))
    seen = (int(starts[-1]),)
    keypoint = map_array(where / "keypoint.npy", np.dtype("<i4"), seen)
    point = map_array(where / "point.npy", np.dtype("<i4"), seen)
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise GalleryError(f"{where / 'starts.npy'}: does not ascend from 0")
    if len(point) and not 0 <= point.min() <= point.max() < len(points):
        raise GalleryError(f"{where / 'point.npy'}: names points that points_m.npy does not have")
    camera = each.get("camera", np.empty(0))
    if len(camera) and not -1 <= camera.min() <= camera.max() < len(stored.cameras):
        raise GalleryError(f"{where / 'camera.npy'}: names cameras that the manifest does not have")
    return Alignment(
        stored.datum,
        points_m=points,
        starts=starts,
        keypoint=keypoint,
        point=point,
        cameras=stored.cameras,
        **each,
    )


def _select(alignment: Alignment, numbers: NDArray[np.int64]) -> Alignment:
    """Return the alignment of other rows: of each, its number in ``alignment``, or -1."""
    if len(numbers) == len(alignment.tied) and (numbers == np.arange(len(numbers))).all():
        return alignment
    absent = numbers < 0
    kept = np.where(absent, 0, numbers)
    each: dict[str, NDArray[Any]] = {}
    for name, (_, _, nothing) in _PER_PHOTOGRAPH.items():
        if getattr(alignment, name) is None:
            continue
        each[name] = getattr(alignment, name)[kept]
        each[name][absent] = nothing
    counts = np.where(absent, 0, np.diff(alignment.starts)[kept])
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    keypoint, point = alignment.keypoint, alignment.point
    if len(point) != starts[-1] or (np.diff(numbers[~absent]) < 0).any():  # else they stay mapped: rows were added
        rows = np.repeat(alignment.starts[:-1][kept] - starts[:-1], counts) + np.arange(starts[-1])
        keypoint, point = keypoint[rows], point[rows]
    return Alignment(
        alignment.datum,
        points_m=alignment.points_m,
        starts=starts,
        keypoint=keypoint,
        point=point,
        cameras=alignment.cameras,
        **each,
    )
