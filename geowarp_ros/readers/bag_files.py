"""Opening ROS bags with rosbags: ROS 2 (MCAP, SQLite) and ROS 1.

A killed recorder leaves an MCAP file without its closing records, and a folder without metadata.yaml: these are
read as far as they go. Any other damage is refused, with the command that mends it.
"""

from __future__ import annotations

import io
import shlex
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.decompression import bound_decompression

bound_decompression()

BAG_SUFFIXES = (".mcap", ".db3", ".bag")

_MENDERS = {
    b"#ROSBAG V2.0": "rosbag reindex {file}",
    b"SQLite format 3": "sqlite3 {file} 'PRAGMA writable_schema=ON' .dump | sed 's/^ROLLBACK.*/COMMIT;/'"
    " | sqlite3 mended.db3",
}
"""Command that mends a damaged file, by the file's first bytes."""

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _DATA_END = 0x02, 0x0F
_CLOSING = (
    struct.pack("<BQI", _DATA_END, 4, 0)  # no checksum of the data section
    + struct.pack("<BQQQI", _FOOTER, 20, 0, 0, 0)  # no summary: readers scan
    + _MAGIC
)


def is_bag(path: Path) -> bool:
    """Return whether ``path`` is a bag's file, or a folder with one."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix in BAG_SUFFIXES


class BagFiles:
    """The files of one bag.

    Attributes:
        path: Folder or file.
        broken: What is wrong with a bag that is read only as far as it goes; empty for a whole one.

    Raises:
        SourceError: It is no bag, or damaged; the message says what mends it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: Sequence[Any] = [path]
        self.broken = self._problem(self._files)
        if not self.broken:
            return
        self._files = [
            self._open_ended(file) if self._problem([file]) else file
            for file in (_storage_files(path) if path.is_dir() else [path])
        ]
        if self._problem(self._files):
            raise SourceError(f"{path}: cannot be read as a ROS bag: {self.broken}")

    def reader(self) -> Any:
        """Return an AnyReader; message types that the bag does not define are the standard ones."""
        return _reader(self._files)

    def _problem(self, files: Sequence[Any]) -> str:
        try:
            with _reader(files):
                return ""
        except (MemoryError, OverflowError):  # before anything was read
            return "a record claims more bytes than there is memory"
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            return str(error).split("\n")[0] or type(error).__name__

    def _open_ended(self, file: Path) -> Any:
        start = b""
        if file.is_file():
            with file.open("rb") as content:
                start = content.read(16)
        for magic, command in _MENDERS.items():
            if start.startswith(magic):
                raise SourceError(
                    f"{file}: cannot be read as a ROS bag: {self._problem([file])};"
                    f" if its end is missing, mend it first: {command.format(file=shlex.quote(str(file)))}"
                )
        return _OpenEndedMcap(file)


def _reader(files: Sequence[Any]) -> AnyReader:
    return AnyReader(files, default_typestore=get_typestore(Stores.LATEST))


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".mcap", ".db3"))


class _OpenEndedMcap:
    """An MCAP file up to its last whole record, closed by a footer without an index (mcap.dev/spec).

    Stands in for the Path that rosbags opens; nothing is copied.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path, name)

    def open(self, mode: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Closed(self._path.open(mode, buffering=0), self._end)))

    @cached_property
    def _end(self) -> int:
        """Offset behind the last whole record of the data section."""
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            end = file.seek(len(_MAGIC))
            while len(head := file.read(9)) == 9:
                opcode, length = struct.unpack("<BQ", head)
                if not 0 < opcode < _DATA_END or opcode == _FOOTER or file.tell() + length > size:
                    break
                end = file.seek(length, io.SEEK_CUR)
        return end


class _Closed(io.RawIOBase):
    """The first ``end`` bytes of a file, and behind them the closing records."""

    def __init__(self, file: Any, end: int) -> None:
        self._file = file
        self._end = end
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end + len(_CLOSING)}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        here, wanted = self._position, len(buffer)
        if here < self._end:
            self._file.seek(here)
            data = self._file.read(min(wanted, self._end - here))
        else:
            data = _CLOSING[here - self._end : here - self._end + wanted]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
