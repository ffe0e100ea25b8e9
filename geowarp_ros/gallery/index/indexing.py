"""The compressed index in a gallery's folder, ``index/NNNN/index.faiss``: made from the rows there, and opened.

The manifest keeps the checksums of the segments that it indexes; with other segments it is refused. Segments added
later are searched exactly beside it, and removed rows are left out of its answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.files import check_size, next_folder
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
from geowarp_ros.gallery.manifest import (
    DESCRIPTORS,
    INDEX,
    IndexedSegment,
    Segment,
    StoredFile,
    StoredIndex,
    now,
    sync,
)
from geowarp_ros.gallery.rows import Stacked
from geowarp_ros.progress import Progress, silent

if TYPE_CHECKING:
    import torch

INDEX_FILE = "index.faiss"


class IndexOptions(Section):
    """Options for the index of a gallery."""

    kind: Kind | None = Field(None, description="Kind of index; None: chosen by the size of the descriptors.")
    on_disk: bool | None = Field(
        None, description="Leave inverted lists on the disk; None: chosen by the number of images."
    )


def make_index(
    folder: Path,
    segments: Sequence[Segment],
    descriptors: Stacked,
    options: IndexOptions,
    progress: Progress = silent,
) -> StoredIndex | None:
    """Index all stored rows in a new folder under ``index/``.

    Args:
        folder: Folder of the gallery, locked.
        segments: Segments in the manifest's order.
        descriptors: (N, D) of all stored rows.
        options: Kind of index, and where its lists lie.
        progress: Shows the rows added.

    Returns:
        The manifest's entry for the index; None where search is to be exact.

    Raises:
        GalleryError: There are too few rows for this kind of index.
    """
    kind = options.kind or choose_kind(len(descriptors), descriptors.width)
    if kind == "exact":
        return None
    index = train_index(kind, descriptors, progress)
    effort, recall = tune(index, descriptors)
    where = next_folder(folder / INDEX)
    where.mkdir(parents=True)
    write_index(index, where / INDEX_FILE)
    file = StoredFile.of(where / INDEX_FILE)
    sync(where)
    return StoredIndex(
        name=where.name,
        kind=kind,
        segments=tuple(
            IndexedSegment(
                name=s.name, images=s.images, descriptors_blake2b=s.files[s.of_model(DESCRIPTORS)].blake2b
            )
            for s in segments
        ),
        on_disk=len(descriptors) > IN_MEMORY_ROWS if options.on_disk is None else options.on_disk,
        effort=effort,
        shortlist=SHORTLIST,
        recall=recall,
        created=now(),
        files={INDEX_FILE: file},
    )


def open_index(
    folder: Path,
    stored: StoredIndex | None,
    segments: Sequence[Segment],
    descriptors: Stacked,
    device: torch.device | str,
) -> Index:
    """Open the search over all stored rows of a gallery.

    Args:
        folder: Folder of the gallery.
        stored: The manifest's entry for the index; None: exact search.
        segments: Segments in the manifest's order.
        descriptors: (N, D) of all stored rows.
        device: Device of exact search.

    Raises:
        GalleryError: The index was made from other descriptors, or its file is absent, truncated or foreign.
    """
    if stored is None:
        return exact_index(descriptors, device)
    here = [(s.name, s.images, s.files[s.of_model(DESCRIPTORS)].blake2b) for s in segments[: len(stored.segments)]]
    if here != [(s.name, s.images, s.descriptors_blake2b) for s in stored.segments]:
        raise GalleryError(
            f"{folder}: its index {stored.name} is of other descriptors than the gallery's first"
            f" {len(stored.segments)} segments; make it again (geowarp gallery index)"
        )
    where = folder / INDEX / stored.name
    for name, file in stored.files.items():
        check_size(where / name, file.size)
    indexed, later = descriptors.split(stored.rows)
    index = read_index(where / INDEX_FILE, stored.rows, descriptors.width, stored.on_disk)
    parts: list[tuple[Index, int]] = [(CompressedIndex(index, indexed, stored.effort, stored.shortlist), 0)]
    if len(later):
        parts.append((exact_index(later, device), stored.rows))
    return MergedIndex(parts, descriptors.width)
