"""An MCAP file, record by record (mcap.dev/spec): channels of other software are let be.

A record is an opcode, a length (64 bits) and so many bytes, all little-endian; a chunk has packed records in it.
"""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.decompression import UNPACK
from geowarp_ros.readers.storage import Recorded, definition, first_line

MAGIC = b"\x89MCAP0\r\n"

_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS, _DATA_END = (
    *range(1, 7),
    *(8, 11, 15),
)
_HEAD = struct.Struct("<BQ")
_STAMPS = struct.Struct("<HIQQ")
"""Before a message's bytes: channel, number, times of recording and publishing."""
_TAIL = struct.Struct("<BQQQI8s")
"""The footer's record and the magic behind it: offset of the summary third, 0 without one."""

Record = tuple[int, memoryview]
"""Opcode and bytes."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Where a chunk is, its times of recording (ns), and the channels in it; none if nothing tells."""

    start_ns: int
    end_ns: int
    offset: int
    length: int
    channels: frozenset[int]


class _Body:
    """Reads the fields of a record one after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def bytes(self, length: str = "<I") -> memoryview:
        (size,) = self.take(length)
        self._at += size
        if self._at > len(self._data):
            raise SourceError("a record ends before its last field")
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        return str(self.bytes(), "utf-8", "replace")


class Mcap:
    """An MCAP file of any profile; one without its closing records up to the last whole record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._start = self._end = 0  # of the data
        self._schemas: dict[int, tuple[str, MessageDefinition]] = {}
        self._channels: dict[int, Connection] = {}
        self._chunks: list[_Chunk] = []
        self._counts: Counter[int] = Counter()
        self.connections: list[Connection] = []
        self.broken = ""
        self.begins_ns = 0

    def open(self) -> None:
        """Read the summary, or all records without one."""
        self._file = self._path.open("rb")
        try:
            size = self._file.seek(0, 2)
            self._file.seek(len(MAGIC))
            opcode, length = _HEAD.unpack(self._exactly(_HEAD.size))
            self._start = self._file.tell() + length
            if opcode != _HEADER or self._start > size:
                raise SourceError(f"its header claims more bytes than it has: {length:,} of {size:,}")
            try:
                self._read_summary(size)
            except Exception as error:
                self.broken = first_line(error)
                self._end = self._whole_until(size)
                self._chunks.clear()
                self._scan()
        except BaseException:
            self.close()
            raise
        self.connections = [each._replace(msgcount=self._counts[each.id]) for each in self._channels.values()]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def messages(self, connections: Sequence[Connection], start: int | None = None) -> Iterator[Recorded]:
        """Yield messages from ``start`` on; without an index as they were written."""
        if not self._chunks:
            yield from _messages(self._records(self._start, self._end), connections, start)
        chosen = (chunk for chunk in self._with(connections) if start is None or start <= chunk.end_ns)

        def of(chunk: _Chunk) -> Iterator[tuple[int, Recorded | None]]:
            yield chunk.start_ns, None  # it is unpacked once it is its turn
            records = self._records(chunk.offset, chunk.offset + chunk.length)
            found = ((message[1], message) for message in _messages(records, connections, start))
            yield from sorted(found, key=itemgetter(0))

        for _, message in heapq.merge(*map(of, chosen), key=itemgetter(0)):
            if message is not None:
                yield message

    def as_written(self, connections: Sequence[Connection]) -> Iterator[Recorded]:
        """Yield messages in the order in which they were written."""
        if not self._chunks:
            yield from self.messages(connections)
        for chunk in sorted(self._with(connections), key=lambda chunk: chunk.offset):
            yield from _messages(self._records(chunk.offset, chunk.offset + chunk.length), connections)

    def _with(self, connections: Sequence[Connection]) -> Iterator[_Chunk]:
        wanted = {connection.id for connection in connections}
        return (chunk for chunk in self._chunks if wanted and (wanted & chunk.channels or not chunk.channels))

    def _read_summary(self, size: int) -> None:
        assert self._file is not None
        self._file.seek(max(size - _TAIL.size, 0))
        opcode, _, summary, _, _, magic = _TAIL.unpack(self._exactly(_TAIL.size))
        if opcode != _FOOTER or magic != MAGIC or summary > size:
            raise SourceError("its closing records are missing")
        self._end, closing = summary or size - _TAIL.size, size - _TAIL.size
        self._file.seek(self._end)
        counted = False
        for opcode, data in _inside(self._exactly(closing - self._end)):
            self._learn(opcode, _Body(data))
            # a writer may leave the counts of the channels away; the number of all messages it tells
            counted = counted or (opcode == _STATISTICS and (bool(self._counts) or not any(data[:8])))
        if not (counted and self._schemas and self._channels):
            self._scan()

    def _scan(self) -> None:
        """Learn from the data what the summary does not tell."""
        self._counts.clear()
        times = []
        for opcode, data in self._records(self._start, self._end):
            if opcode == _MESSAGE:
                channel, _, recorded_ns, _ = _STAMPS.unpack_from(data)
                self._counts[channel] += 1
                times.append(recorded_ns)
            else:
                self._learn(opcode, _Body(data))
        self.begins_ns = min(times, default=0)

    def _learn(self, opcode: int, body: _Body) -> None:
        if opcode == _SCHEMA:
            (number,) = body.take("<H")
            name, encoding, text = body.text(), body.text(), body.text()
            self._schemas[number] = _ros2_name(name), definition(encoding, text)
        elif opcode == _CHANNEL:
            number, schema = body.take("<HH")
            topic, how = body.text(), ConnectionExtRosbag2(body.text(), [])
            kind, defined = self._schemas.get(schema, ("no type", definition("", "")))
            self._channels[number] = Connection(number, topic, kind, defined, "", 0, how, self)
        elif opcode == _CHUNK_INDEX:
            start_ns, end_ns, offset, length = body.take("<QQQQ")
            channels = frozenset(channel for channel, _ in struct.iter_unpack("<HQ", body.bytes()))
            self._chunks.append(_Chunk(start_ns, end_ns, offset, length, channels))
        elif opcode == _STATISTICS:
            *_, self.begins_ns, _ = body.take("<QHIIIIQQ")
            self._counts = Counter(dict(struct.iter_unpack("<HQ", body.bytes())))

    def _records(self, start: int, end: int) -> Iterator[Record]:
        """Yield the records of the file between two offsets, and those of chunks: all of one, or none."""
        assert self._file is not None
        while start < end:
            self._file.seek(start)
            opcode, length = _HEAD.unpack(self._exactly(_HEAD.size))
            start += _HEAD.size + length
            if start > end:
                raise SourceError("a record ends behind its section")
            if opcode == _CHUNK:
                yield from list(_inside(_unpacked(_Body(self._exactly(length)))))
            elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                yield opcode, self._exactly(length)

    def _whole_until(self, size: int) -> int:
        """Return the offset behind the last whole record of the data section."""
        assert self._file is not None
        end = self._file.seek(self._start)
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            opcode, length = _HEAD.unpack(head)
            if not 0 < opcode < _DATA_END or opcode == _FOOTER or self._file.tell() + length > size:
                break
            end = self._file.seek(length, 1)
        return end

    def _exactly(self, size: int) -> memoryview:
        assert self._file is not None
        data = self._file.read(size)
        if len(data) != size:
            raise SourceError("it ends in the middle of a record")
        return memoryview(data)


def _inside(data: memoryview) -> Iterator[Record]:
    at = 0
    while at < len(data):
        opcode, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size + length
        if at > len(data):
            raise SourceError("a record ends behind its chunk")
        yield opcode, data[at - length : at]


def _unpacked(body: _Body) -> memoryview:
    _, _, size, checksum = body.take("<QQQI")
    compression, packed = body.text(), body.bytes("<Q")
    if compression not in UNPACK:
        raise SourceError(f"a chunk is compressed by {compression!r}, expected one of {', '.join(UNPACK)}")
    data = memoryview(UNPACK[compression](packed, size))
    if len(data) != size or (checksum and crc32(data) != checksum):
        raise SourceError("a chunk is damaged: its size or checksum is wrong")
    return data


def _messages(
    records: Iterator[Record], connections: Sequence[Connection], start: int | None = None
) -> Iterator[Recorded]:
    of = {connection.id: connection for connection in connections}
    for opcode, data in records:
        if opcode == _MESSAGE:
            channel, _, recorded_ns, _ = _STAMPS.unpack_from(data)
            if channel in of and (start is None or start <= recorded_ns):
                yield of[channel], recorded_ns, bytes(data[_STAMPS.size :])


def _ros2_name(msgtype: str) -> str:
    return msgtype.replace("/", "/msg/") if msgtype.count("/") == 1 else msgtype
