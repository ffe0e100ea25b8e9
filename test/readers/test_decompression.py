"""Chunks that hold more than they should: refused where the memory would be taken."""

from __future__ import annotations

import bz2

import lz4.frame
import pytest
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2.storage_mcap import zstd

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.decompression import MAX_CHUNK_BYTES, UNPACK, bound_decompression

bound_decompression()

TEXT = b"a chunk of messages " * 50
DECOMPRESSORS = {
    "mcap zstd": (zstd.compress, UNPACK["zstd"]),
    "mcap lz4": (lz4.frame.compress, UNPACK["lz4"]),
    "bag bz2": (bz2.compress, rosbag1.decompressors["bz2"]),
    "bag lz4": (lz4.frame.compress, rosbag1.decompressors["lz4"]),
}


@pytest.mark.parametrize("kind", DECOMPRESSORS)
def test_what_was_compressed_comes_back(kind: str) -> None:
    compress, decompress = DECOMPRESSORS[kind]
    assert decompress(compress(TEXT), len(TEXT)) == decompress(compress(TEXT)) == TEXT
    assert decompress(compress(b"")) == decompress(b"") == b""
    assert decompress(compress(TEXT) + compress(b"and more")) == TEXT + b"and more"  # two frames, as some write


@pytest.mark.parametrize("kind", DECOMPRESSORS)
def test_more_than_claimed_cut_off_or_too_much_is_refused(kind: str) -> None:
    compress, decompress = DECOMPRESSORS[kind]
    with pytest.raises(SourceError, match=r"^a chunk of \d+ bytes has more than 999 in it$"):
        decompress(compress(TEXT), len(TEXT) - 1)
    with pytest.raises(SourceError, match="has more than 999 in it"):
        decompress(compress(b"x" * 900) + compress(b"y" * 100), 999)
    with pytest.raises(SourceError, match="ends in the middle"):
        decompress(compress(TEXT)[:-9])
    with pytest.raises(SourceError, match=r"claims 268,435,457 bytes, expected at most 268,435,456"):
        decompress(compress(TEXT), MAX_CHUNK_BYTES + 1)
