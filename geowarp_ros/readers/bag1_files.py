"""A ROS 1 bag with a broken end: its recorder was killed and never wrote the index, or the file was cut off.

Format 2.0: a header that says where the index begins, then chunks of messages, each followed by its own index for
every connection, and at the end all connections and a summary of each chunk. All of the end can be made anew from
the chunks that are whole.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from rosbags.rosbag1.reader import decompressors

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.spliced import Spliced

_MAGIC = b"#ROSBAG V2.0\n"
_BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 0x03, 0x04, 0x05, 0x06, 0x07


class MendedBag1:
    """A ROS 1 bag up to its last whole chunk, with an index made anew.

    Stands in for the Path that rosbags reads; nothing is copied.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head, self._end, self._tail = _reindex(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def open(self, mode: str) -> BinaryIO:
        """Open the mended file."""
        file = Spliced(self._path.open(mode, buffering=0), self._end, self._tail, self._head)
        return cast(BinaryIO, io.BufferedReader(file))


@dataclass(slots=True)
class _ChunkInfo:
    """One chunk: where it begins, and what its indices say."""

    position: int
    counts: dict[int, int] = field(default_factory=dict)
    times: list[bytes] = field(default_factory=list)

    def record(self) -> bytes:
        """Write it as the record that stands at a bag's end."""
        ordered = sorted(self.times, key=lambda time: struct.unpack("<II", time))
        header = {
            "op": bytes([_CHUNK_INFO]),
            "ver": struct.pack("<I", 1),
            "chunk_pos": struct.pack("<Q", self.position),
            "start_time": ordered[0],
            "end_time": ordered[-1],
            "count": struct.pack("<I", len(self.counts)),
        }
        return _record(header, b"".join(struct.pack("<II", *item) for item in self.counts.items()))


@dataclass(frozen=True, slots=True)
class _Record:
    """One record of the file: where it begins and ends, its header's fields, its data."""

    start: int
    end: int
    header: dict[str, bytes]
    data: bytes

    @property
    def op(self) -> int:
        return self.header["op"][0]


def _reindex(path: Path) -> tuple[bytes, int, bytes]:
    """Return the bag's new first bytes, where its last whole chunk ends, and the index to put there."""
    chunks: list[_ChunkInfo] = []
    connections: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path}: is no ROS 1 bag of format 2.0")
        records = _records(file)
        first = next(records, None)
        if first is None or first.op != _BAG_HEADER:
            raise SourceError(f"{path}: has no bag header")
        end = first.end
        for record in records:
            if record.op == _CHUNK:
                chunks.append(_ChunkInfo(record.start))
                (size,) = struct.unpack("<I", record.header["size"])
                data = decompressors[record.header["compression"].decode()](record.data, size)
                connections |= _connections(data)
            elif record.op == _INDEX and chunks:
                (number,) = struct.unpack("<I", record.header["conn"])
                entries = [record.data[at : at + 8] for at in range(0, len(record.data), 12)]
                chunks[-1].counts[number] = len(entries)
                chunks[-1].times += entries
                end = record.end
            else:
                break  # the index at the end begins
    whole = [chunk for chunk in chunks if chunk.times]
    tail = b"".join(connections.values()) + b"".join(chunk.record() for chunk in whole)
    header = {
        "op": bytes([_BAG_HEADER]),
        "index_pos": struct.pack("<Q", end),
        "conn_count": struct.pack("<I", len(connections)),
        "chunk_count": struct.pack("<I", len(whole)),
    }
    room = first.end - first.start - len(_record(header, b""))
    return _MAGIC + _record(header, b" " * room), end, tail


def _records(file: BinaryIO) -> Iterator[_Record]:
    """Yield the records that are whole."""
    while True:
        start = file.tell()
        header, data = _sized(file), _sized(file)
        if header is None or data is None:
            return
        fields = dict(_fields(header))
        if "op" not in fields:
            return
        yield _Record(start, file.tell(), fields, data)


def _sized(file: BinaryIO) -> bytes | None:
    """Read a length and as many bytes; None where they are not all there."""
    size = file.read(4)
    if len(size) < 4:
        return None
    (length,) = struct.unpack("<I", size)
    data = file.read(length)
    return data if len(data) == length else None


def _fields(header: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at + 4 <= len(header):
        (length,) = struct.unpack_from("<I", header, at)
        name, _, value = header[at + 4 : at + 4 + length].partition(b"=")
        yield name.decode("ascii", "replace"), value
        at += 4 + length


def _connections(chunk: bytes) -> dict[bytes, bytes]:
    """Return the connection records in a chunk, as they stand, by their number."""
    return {
        record.header["conn"]: chunk[record.start : record.end]
        for record in _records(io.BytesIO(chunk))
        if record.op == _CONNECTION
    }


def _record(header: dict[str, bytes], data: bytes) -> bytes:
    fields = [name.encode() + b"=" + value for name, value in header.items()]
    head = b"".join(struct.pack("<I", len(one)) + one for one in fields)
    return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data
