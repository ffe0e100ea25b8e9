"""The files of a bag, opened for reading: MCAP, SQLite and ROS 1.

rosbags reads the records of MCAP and ROS 1. It refuses a whole bag for one channel of other software; here a
channel is judged when its messages are asked for.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2 import storage_mcap as mcap

from geowarp_ros.errors import SourceError

MCAP_MAGIC = b"\x89MCAP0\r\n"

_HEADER, _FOOTER, _DATA_END = 0x01, 0x02, 0x0F
_TAIL = struct.Struct("<BQQQI8s")
"""The footer's record and the magic behind it (mcap.dev/spec): offset of the summary third, 0 without one."""

Recorded = tuple[Connection, int, bytes]
"""Connection, time of recording (ns) and bytes of a message."""

_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


class Storage(Protocol):
    """One file.

    Attributes:
        connections: Its channels.
        broken: What is wrong with a file that is read only as far as it goes; empty for a whole one.
        begins_ns: Time of the first recording; 0 without one.
    """

    connections: list[Connection]
    broken: str
    begins_ns: int

    def open(self) -> None:
        """Read what the file is about."""

    def close(self) -> None:
        """Close the file, though messages are still being read."""

    def messages(self, connections: Sequence[Connection], start: int | None = None) -> Iterator[Recorded]:
        """Yield messages from ``start`` (ns) on, in the order of recording times; unsorted without an index."""

    def as_written(self, connections: Sequence[Connection]) -> Iterator[Recorded]:
        """Yield messages in the order in which they were written, whatever the recorder's clock said."""


def first_line(error: Exception) -> str:
    """Return an error in one line. rosbags has no exception of its own for every kind of damage."""
    return str(error).split("\n")[0] or type(error).__name__


def _definition(encoding: str, text: str) -> MessageDefinition:
    found = _FORMATS.get(encoding, MessageDefinitionFormat.NONE)
    return MessageDefinition(found, "" if found == MessageDefinitionFormat.NONE else text)


def _string_of_ros1(header: Any, name: str) -> str:
    if name not in header:
        raise rosbag1.ReaderError(f"Could not read string field {name!r}.")
    return str(header[name].decode(errors="replace"))


# rosbags reads the definitions and QoS profiles of all channels, and fails with those of other software
setattr(rosbag1.Header, "get_string", _string_of_ros1)  # noqa: B010
setattr(mcap, "get_msgdef", lambda schema: _definition(*(schema[2:] if schema else ("", ""))))  # noqa: B010
setattr(mcap, "read_string", lambda file: mcap.read_bytes(file).decode(errors="replace"))  # noqa: B010
setattr(mcap, "get_qos", lambda metadata: [])  # noqa: B010


class Mcap(mcap.McapReader):  # type: ignore[misc]
    """An MCAP file of any profile; one without its closing records up to the last whole record."""

    connections: list[Connection]
    broken = ""
    begins_ns = 0

    def _open(self) -> None:
        assert self.bio is not None
        size = self.bio.seek(0, 2)
        self.bio.seek(len(MCAP_MAGIC))
        opcode, length = struct.unpack("<BQ", mcap.read_exact(self.bio, 9))
        self.data_start = self.bio.tell() + length
        if opcode != _HEADER or self.data_start > size:
            raise SourceError(f"its header claims more bytes than it has: {length:,} of {size:,}")
        self.broken = ""
        try:
            self._read_summary(size)
        except Exception as error:
            self.broken = first_line(error)
            for found in (self.schemas, self.channels, self.chunks, self.connections):
                found.clear()
            self.data_end = self._whole_until(size)
            self.meta_scan()
        counts = self.statistics.channel_message_counts if self.statistics else {}
        self.begins_ns = self.statistics.start_time if self.statistics else 0
        self.connections = [
            c._replace(msgcount=counts.get(c.id, 0), msgtype=_ros2_name(c.msgtype)) for c in self.connections
        ]

    def _read_summary(self, size: int) -> None:
        assert self.bio is not None
        self.bio.seek(max(size - _TAIL.size, 0))
        opcode, _, summary, _, _, magic = _TAIL.unpack(mcap.read_exact(self.bio, _TAIL.size))
        if opcode != _FOOTER or magic != MCAP_MAGIC or summary > size:
            raise SourceError("its closing records are missing")
        self.data_end = summary or size - _TAIL.size
        if summary:
            self.read_index()
        if self.statistics is None or not self.schemas or not self.channels:
            self.connections.clear()
            self.meta_scan()

    def _whole_until(self, size: int) -> int:
        """Return the offset behind the last whole record of the data section."""
        assert self.bio is not None
        end: int = self.bio.seek(self.data_start)
        while len(head := self.bio.read(9)) == 9:
            opcode, length = struct.unpack("<BQ", head)
            if not 0 < opcode < _DATA_END or opcode == _FOOTER or self.bio.tell() + length > size:
                break
            end = self.bio.seek(length, 1)
        return end

    def messages(
        self, connections: Any, start: int | None = None, stop: int | None = None
    ) -> Any:  # rosbags refuses unsorted files without an index
        """Yield messages from ``start`` on; without an index as they were written."""
        return (
            super().messages(connections, start, stop) if self.chunks else self.messages_scan(connections, start)
        )

    def as_written(self, connections: Sequence[Connection]) -> Iterator[Recorded]:
        """Yield messages in the order in which they were written."""
        if not self.chunks:
            yield from self.messages_scan(connections)
        section = self.data_start, self.data_end
        for chunk in sorted(self.chunks, key=lambda chunk: chunk.chunk_start_offset):
            if any(chunk.channel_count.get(connection.id) for connection in connections):
                self.data_start = chunk.chunk_start_offset
                self.data_end = self.data_start + chunk.chunk_length
                try:
                    whole = list(self.messages_scan(connections))  # or none of it, as messages() does
                finally:
                    self.data_start, self.data_end = section
                yield from whole


def _ros2_name(msgtype: str) -> str:
    return msgtype.replace("/", "/msg/") if msgtype.count("/") == 1 else msgtype


class Sqlite:
    """A file of rosbag2's SQLite storage, of any of its versions."""

    broken = ""
    begins_ns = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connections: list[Connection] = []
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Read topics and definitions. Immutable: nothing is made beside a bag on a read-only disk."""
        where = f"file:{quote(str(self._path.absolute()))}?immutable=1"
        self._database = sqlite3.connect(where, uri=True, check_same_thread=False)
        self._database.text_factory = lambda text: text.decode(errors="replace")
        try:
            self._rows("PRAGMA trusted_schema=OFF")
            tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"topics", "messages"} <= tables:
                raise SourceError("is a database without the tables topics and messages")
            definitions: dict[str, MessageDefinition] = {}
            if "message_definitions" in tables:
                query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
                definitions = {name: _definition(encoding, text) for name, encoding, text in self._rows(query)}
            counts = dict(self._rows("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
            self.begins_ns = self._rows("SELECT min(timestamp) FROM messages")[0][0] or 0
            self.connections = [
                Connection(
                    number, topic, kind, definitions.get(kind, _definition("", "")), "", counts.get(number, 0),
                    ConnectionExtRosbag2(encoding, []), self,
                )
                for number, topic, kind, encoding in self._rows(
                    "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
                )
            ]  # fmt: skip
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database; statements that still run end."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def messages(self, connections: Sequence[Connection], start: int | None = None) -> Iterator[Recorded]:
        """Yield messages from ``start`` (ns) on, in the order of recording times."""
        return self._select(connections, "timestamp >= ? ORDER BY timestamp", -(2**63) if start is None else start)

    def as_written(self, connections: Sequence[Connection]) -> Iterator[Recorded]:
        """Yield messages in the order in which they were written."""
        return self._select(connections, "id >= ? ORDER BY id", -(2**63))

    def _select(self, connections: Sequence[Connection], which: str, start: int) -> Iterator[Recorded]:
        assert self._database is not None
        of = {connection.id: connection for connection in connections}
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({','.join('?' * len(of))})"
        for number, recorded_ns, data in self._database.execute(f"{query} AND {which}", (*of, start)):
            yield of[number], recorded_ns, data

    def _rows(self, query: str) -> list[Any]:
        assert self._database is not None
        return self._database.execute(query).fetchall()


class Ros1(rosbag1.Reader):  # type: ignore[misc]
    """A bag of ROS 1."""

    broken = ""
    begins_ns = 0

    def open(self) -> None:
        """Read the index."""
        super().open()
        self.begins_ns = self.start_time

    def messages(
        self, connections: Any = (), start: int | None = None, stop: int | None = None
    ) -> Any:  # rosbags takes no connections as all
        """Yield messages from ``start`` (ns) on, in the order of recording times."""
        return super().messages(connections, start, stop) if connections else iter(())

    def as_written(self, connections: Sequence[Connection]) -> Iterator[Recorded]:
        """Yield messages in the order in which they were written."""
        if not connections:
            return iter(())
        entries = chain.from_iterable(self.indexes[connection.id] for connection in connections)
        # as one more connection, whose index is in the order of the file
        self.indexes[-1] = sorted(entries, key=lambda entry: (entry.chunk_pos, entry.offset))
        found: Iterator[Recorded] = super().messages([connections[0]._replace(id=-1)])
        return found


STORAGES: dict[bytes, tuple[type[Mcap] | type[Sqlite] | type[Ros1], str]] = {
    MCAP_MAGIC: (Mcap, ""),
    b"SQLite format 3": (
        Sqlite,
        "sqlite3 {file} 'PRAGMA writable_schema=ON' .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 mended.db3",
    ),
    b"#ROSBAG V": (Ros1, "rosbag reindex {file}"),
}
"""A file's first bytes -> its storage, and the command that mends a damaged one."""
