"""An alignment in a gallery's folder, ``alignment/NNNN/``: an array a file, ``<field>.npy``, one row a photograph.

The manifest keeps the checksums of the keypoints that it was made from; with other keypoints it is refused.
Photographs added later have no pose until the gallery is aligned again; those of deleted segments are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
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
from geowarp_ros.gallery.photographs import DESCRIPTORS

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
        AlignedSegment(name=s.name, images=s.images, keypoints_blake2b=s.files[DESCRIPTORS].blake2b)
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
    where = folder / ALIGNMENT / stored.name
    for name, file in stored.files.items():
        check_size(where / name, file.size)
    if not stored.summary.tied:
        return None
    starts, rows = {}, 0
    for known in stored.segments:
        starts[known.name] = rows
        rows += known.images
    entries = {known.name: known for known in stored.segments}
    numbers = []  # of each stored row now, the row then; -1: none
    for segment in segments:
        if segment.name not in entries:
            numbers.append(np.full(segment.images, -1))
            continue
        if DESCRIPTORS not in segment.files or aligned_segments([segment]) != (entries[segment.name],):
            raise GalleryError(
                f"{folder}: its alignment {stored.name} is of other keypoints than those of segment"
                f" {segment.name}; align it again (geowarp gallery align {folder})"
            )
        numbers.append(np.arange(segment.images) + starts[segment.name])
    return _select(_map(where, stored, rows), np.concatenate([np.empty(0, np.int64), *numbers]))


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
