"""The files of a bag, opened for reading: SQLite and ROS 1 (MCAP: :mod:`geowarp_ros.readers.mcap`).

A channel of other software is let be: it is judged when its messages are asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag1 import reader as rosbag1
from rosbags.typesys.msg import normalize_msgtype

from geowarp_ros.errors import SourceError

Recorded = tuple[Connection, int, bytes]
"""Connection, time of recording (ns) and bytes of a message."""

_FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros1msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}


def first_line(error: Exception) -> str:
    """Return an error in one line. rosbags has no exception of its own for every kind of damage."""
    return str(error).split("\n")[0] or type(error).__name__


def definition(encoding: str, text: str) -> MessageDefinition:
    """Return a definition as rosbags has it; of an encoding that nobody reads it is none."""
    found = _FORMATS.get(encoding, MessageDefinitionFormat.NONE)
    return MessageDefinition(found, "" if found == MessageDefinitionFormat.NONE else text)


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
                definitions = {name: definition(encoding, text) for name, encoding, text in self._rows(query)}
            counts = dict(self._rows("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
            self.begins_ns = self._rows("SELECT min(timestamp) FROM messages")[0][0] or 0
            self.connections = [
                Connection(
                    number, topic, kind, definitions.get(kind, definition("", "")), "", counts.get(number, 0),
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

    def read_connection(self) -> Connection:
        """Read a channel, whatever its texts are encoded in."""
        assert self.bio is not None
        head = rosbag1.Header.read(self.bio, rosbag1.RecordType.CONNECTION)
        body = rosbag1.Header.read(self.bio)
        if not {"type", "message_definition"} <= body.keys():
            raise SourceError("a channel has no type or definition")
        texts = {name: value.decode(errors="replace") for name, value in (body | head).items()}
        kind = normalize_msgtype(texts["type"])
        message = MessageDefinition(MessageDefinitionFormat.MSG, texts["message_definition"])
        topic = rosbag1.normalize(texts["topic"])
        how = ConnectionExtRosbag1(None, None)
        return Connection(head.get_uint32("conn"), topic, kind, message, "", 0, how, self)

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
