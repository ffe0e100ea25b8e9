"""A build by several processes, as ``torchrun`` starts them: each describes its part of the source into a segment.

They share the gallery's folder and nothing else, so they may run on several machines. Each leaves a note beside
its finished segment, and the last one to finish writes the manifest with all of them. A killed process is started
again, alone or with the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.errors import GalleryError, SourceError
from geowarp_ros.files import write_whole
from geowarp_ros.gallery.manifest import SEGMENTS, Segment
from geowarp_ros.readers import Source

SHARD = "shard.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a build that this process does.

    Attributes:
        index: Number of the part, 0 to count - 1.
        count: Number of processes.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """Return the part that ``torchrun`` names (RANK, WORLD_SIZE); the whole without it.

        Raises:
            GalleryError: The variables contradict each other or are no numbers.
        """
        index, count = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise GalleryError(f"RANK = {index!r} of WORLD_SIZE = {count!r}: expected 0 to WORLD_SIZE - 1")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index + 1} of {self.count}"

    def part(self, source: Source, batch_size: int) -> Source:
        """Return the images of this part: whole batches, the same that one process would make.

        Raises:
            SourceError: There are fewer batches than processes.
        """
        if self.count == 1:
            return source
        batches = -(-len(source.images) // batch_size)
        if batches < self.count:
            raise SourceError(
                f"{source.description}: {len(source.images)} images in batches of {batch_size} are too few for"
                f" {self.count} processes"
            )
        first, end = (batches * index // self.count * batch_size for index in (self.index, self.index + 1))
        skipped = source.skipped if self.index == 0 else ()
        return replace(source, images=source.images[first:end], skipped=skipped)


ALONE = Shard()
"""The whole build."""


class _Note(Section):
    """Note beside a finished segment."""

    build: str = Field(description="Identity of the whole build.")
    index: int = Field(ge=0, description="Number of the part.")
    segment: Segment


def note_finished(gallery: Path, build: str, shard: Shard, segment: Segment) -> None:
    """Leave a note that the segment of ``shard`` is finished."""
    note = _Note(build=build, index=shard.index, segment=segment)
    path = gallery / SEGMENTS / segment.name / SHARD
    write_whole(path, note.model_dump_json().encode(), GalleryError)


def finished_shards(gallery: Path, build: str) -> dict[int, Segment]:
    """Return the finished segments of a build by the number of their part."""
    found = {}
    for path in sorted((gallery / SEGMENTS).glob(f"*/{SHARD}")):
        if path.parent.suffix:
            continue  # taken up again by a second run
        note = _Note.model_validate_json(path.read_bytes())
        if note.build == build:
            found[note.index] = note.segment
    return found
