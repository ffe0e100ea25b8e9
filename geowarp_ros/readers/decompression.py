"""Bounded decompression of a bag's chunks.

rosbags hands a whole chunk to the decompressor and takes whatever comes out: some hundred bytes of a hostile or
damaged file can become gigabytes. The decompressors here stop at the size that the chunk claims, and no chunk may
claim more than :data:`MAX_CHUNK_BYTES`.
"""

from __future__ import annotations

import bz2
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2.storage_mcap import zstd

from geowarp_ros.errors import SourceError

MAX_CHUNK_BYTES = 256 << 20
"""Largest chunk that is read. Recorders write chunks of 1 to 16 MB, or of one message where that is larger."""


def bound_decompression() -> None:
    """Put bounded decompressors where rosbags looks for its own; a second call changes nothing."""
    rosbag1.decompressors.update({"bz2": _bounded(bz2.BZ2Decompressor), "lz4": UNPACK["lz4"]})


def _bounded(make: Callable[[], Any]) -> Callable[..., bytes]:
    """Return a decompressor of all of ``data``, from one like the standard library's that can stop."""

    def decompress(data: bytes, claimed: int = MAX_CHUNK_BYTES) -> bytes:
        if claimed > MAX_CHUNK_BYTES:
            raise SourceError(f"a chunk claims {claimed:,} bytes, expected at most {MAX_CHUNK_BYTES:,}")
        frames, size, rest = [], 0, data
        while rest:  # mostly there is one frame
            stream = make()
            # one byte more than it may have, so that too much is seen
            frames.append(stream.decompress(rest, max_length=claimed + 1 - size))
            size += len(frames[-1])
            if size > claimed:
                raise SourceError(f"a chunk of {len(data):,} bytes has more than {claimed:,} in it")
            if not stream.eof:
                raise SourceError(f"a chunk of {len(data):,} bytes ends in the middle")
            rest = stream.unused_data or b""
        return frames[0] if len(frames) == 1 else b"".join(frames)

    return decompress


unpack = _bounded(zstd.ZstdDecompressor)
"""Decompress zstd: a chunk, or a message of a bag that compresses each."""

UNPACK: dict[str, Callable[..., bytes | memoryview]] = {
    "": lambda data, _: data,
    "lz4": _bounded(LZ4FrameDecompressor),
    "zstd": unpack,
}
"""Compression of an MCAP's chunk -> what unpacks it."""


def unpacked_blocks(packed: BinaryIO) -> Iterator[bytes]:
    """Yield what is in a zstd file, some MB at a time, as far as it goes."""
    with zstd.open(packed, "rb") as content:
        try:
            while block := content.read1(1 << 22):
                yield block
        except (EOFError, zstd.ZstdError):
            return
