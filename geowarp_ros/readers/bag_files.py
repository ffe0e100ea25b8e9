"""Opening a ROS bag, whole or with a broken end.

A recorder that was killed leaves a file without its index: MCAP without the closing records, SQLite shorter than
its header says, a folder without metadata.yaml, a ROS 1 bag that was never indexed. What was written before is as
good as ever.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.bag1_files import MendedBag1
from geowarp_ros.readers.decompression import bound_decompression
from geowarp_ros.readers.spliced import Spliced

bound_decompression()

BAG_SUFFIXES = (".mcap", ".db3", ".bag")

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _CHUNK, _DATA_END, _LAST_OPCODE = 0x02, 0x06, 0x0F, 0x0F
_TAIL = (
    struct.pack("<BQI", _DATA_END, 4, 0)  # no checksum of the data section
    + struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0)  # no summary: readers scan
    + _MAGIC
)


def is_bag(path: Path) -> bool:
    """Whether ``path`` is a bag's file or a folder with one."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in BAG_SUFFIXES


class BagFiles:
    """The files of one bag, mended where their end is broken.

    Attributes:
        path: As it was given.
        broken: What is wrong with it, or an empty string.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = ""
        self._files: Sequence[Any] = [path]
        self._mended = tempfile.TemporaryDirectory(prefix="geowarp-bag-", ignore_cleanup_errors=True)
        # rosbags takes a bag apart without an exception of its own for every kind of damage
        try:
            with self.reader():
                return
        except Exception as error:
            self.broken = _one_line(error)
        try:
            self._files = self._mend()
            with self.reader():
                return
        except Exception:
            raise SourceError(f"{path}: cannot be read as a ROS bag: {self.broken}") from None

    @contextmanager
    def reader(self) -> Iterator[Any]:
        """Open the bag; bags without message definitions are taken to hold the standard ones."""
        with AnyReader(self._files, default_typestore=get_typestore(Stores.LATEST)) as reader:
            yield reader

    def _mend(self) -> list[Any]:
        files = _storage_files(self.path) if self.path.is_dir() else [self.path]
        return [self._mend_file(file) for file in files]

    def _mend_file(self, file: Path) -> Any:
        try:
            with AnyReader([file], default_typestore=get_typestore(Stores.LATEST)):
                return file
        except Exception:
            if file.suffix == ".mcap":
                return _Mcap(file)
            if file.suffix == ".db3":
                return _copy_rows(file, Path(self._mended.name))
            return MendedBag1(file)


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))


def _one_line(error: BaseException) -> str:
    if isinstance(error, MemoryError | OverflowError):  # before anything was read
        return "a record claims more bytes than there is memory"
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__


class _Mcap:
    """An MCAP file up to its last whole record, closed by a footer that says there is no index.

    Stands in for the Path that rosbags reads; nothing is copied. Layout: mcap.dev/spec.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = _last_whole_record(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def open(self, mode: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(Spliced(self._path.open(mode, buffering=0), self._end, _TAIL)))


def _last_whole_record(path: Path) -> int:
    """Return the offset behind the last complete record of the data section."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path}: is no MCAP file")
        end = file.tell()
        while len(head := file.read(9)) == 9:
            opcode, length = struct.unpack("<BQ", head)
            whole = 0 < opcode < _LAST_OPCODE and opcode != _FOOTER and file.tell() + length <= size
            if not whole:
                break
            end = file.seek(length, io.SEEK_CUR)
    return end


def _copy_rows(path: Path, folder: Path) -> Path:
    """Copy what can be read of a damaged SQLite bag into a new one; returns its path."""
    copy = folder / path.name
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        target.set_authorizer(_only_rows)
        source.execute("PRAGMA writable_schema=ON")  # reads a file that is shorter than its header says
        tables = source.execute("SELECT name, sql FROM sqlite_master WHERE type='table' ORDER BY rowid").fetchall()
        for name, statement in tables:
            if name.startswith("sqlite_"):
                continue
            target.execute(statement)
            quoted = '"' + name.replace('"', '""') + '"'
            try:
                for row in source.execute(f"SELECT * FROM {quoted}"):
                    target.execute(f"INSERT INTO {quoted} VALUES ({','.join('?' * len(row))})", row)
            except sqlite3.DatabaseError:
                pass  # the rows before it are kept
        target.execute("CREATE INDEX timestamp_idx ON messages (timestamp ASC)")
        target.commit()
    return copy


_HARMLESS = (
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_REINDEX,
)


def _only_rows(action: int, *_: object) -> int:
    """Allow what makes tables and fills them: the schema is text from the bag, and could attach other files."""
    return sqlite3.SQLITE_OK if action in _HARMLESS else sqlite3.SQLITE_DENY
