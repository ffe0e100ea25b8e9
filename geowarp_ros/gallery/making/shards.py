"""A build by several processes, as ``torchrun`` starts them: each describes its part of the source into a segment.

They do not talk to one another; all they share is the gallery's folder, so they may run on several machines. Each
finished segment lies beside the others with a note of what it is part of, and whoever finishes last puts all of
them into the manifest. A process that was killed is simply started again, alone or with the others.
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
    """Which part of a build this process does.

    Attributes:
        index: 0 to count - 1.
        count: How many processes build together.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Shard:
        """Return what ``torchrun`` says (RANK, WORLD_SIZE); without it there is one process.

        Raises:
            GalleryError: They make no sense.
        """
        index, count = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise GalleryError(f"RANK = {index!r} of WORLD_SIZE = {count!r}: expected 0 to WORLD_SIZE - 1")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index + 1} of {self.count}"

    def part(self, source: Source, batch_size: int) -> Source:
        """Return this process's images: whole batches, the same that one process would make.

        Raises:
            SourceError: Fewer batches than processes.
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
"""One process does it all."""


class _Note(Section):
    """What a finished segment is part of."""

    build: str = Field(description="Identity of the whole build.")
    index: int = Field(ge=0, description="Which shard of it.")
    segment: Segment


def note_finished(gallery: Path, build: str, shard: Shard, segment: Segment) -> None:
    """Write down that a shard's segment is whole."""
    note = _Note(build=build, index=shard.index, segment=segment)
    path = gallery / SEGMENTS / segment.name / SHARD
    write_whole(path, note.model_dump_json().encode(), GalleryError)


def finished_shards(gallery: Path, build: str) -> dict[int, Segment]:
    """Return the segments of a build that are whole, by shard."""
    found = {}
    for path in sorted((gallery / SEGMENTS).glob(f"*/{SHARD}")):
        if path.parent.suffix:
            continue  # taken up again by a second run
        note = _Note.model_validate_json(path.read_bytes())
        if note.build == build:
            found[note.index] = note.segment
    return found
