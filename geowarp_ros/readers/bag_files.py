"""Opening ROS bags: ROS 2 (MCAP, SQLite) and ROS 1, whatever the files are called and metadata.yaml says.

A killed recorder leaves an MCAP file without its closing records, and a folder without metadata.yaml: these are
read as far as they go. Any other damage is refused, with the command that mends it.
"""

from __future__ import annotations

import heapq
import re
import shlex
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeAlias

import yaml
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.decompression import bound_decompression, unpack, unpacked_blocks
from geowarp_ros.readers.mcap import MAGIC, Mcap
from geowarp_ros.readers.packets import DEFINITIONS
from geowarp_ros.readers.storage import Recorded, Ros1, Sqlite, first_line

bound_decompression()

BAG_SUFFIXES = (".mcap", ".db3", ".bag")

ENCODINGS = ("cdr", "ros1")
"""How the messages that can be read are serialised."""

Storage: TypeAlias = Mcap | Sqlite | Ros1
"""A file: its connections, when it begins (ns), and what is wrong with one that is read only as far as it goes."""

STORAGES: dict[bytes, tuple[Callable[[Path], Storage], str]] = {
    MAGIC: (Mcap, ""),
    b"SQLite format 3": (
        Sqlite,
        "sqlite3 {file} 'PRAGMA writable_schema=ON' .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 mended.db3",
    ),
    b"#ROSBAG V": (Ros1, "rosbag reindex {file}"),
}
"""A file's first bytes -> its storage, and the command that mends a damaged one."""

_FILE_SUFFIX = re.compile(r"\.(mcap|db3|bag)(\.zstd?)?$", re.IGNORECASE)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SPARE_BYTES = 1 << 30
"""Room that unpacking leaves on the disk."""


def is_bag(path: Path) -> bool:
    """Return whether ``path`` is a bag's file, or a folder with one or with the metadata.yaml of one."""
    if not path.is_dir():
        return _FILE_SUFFIX.search(path.name) is not None
    return bool(_storage_files(path) or _named_files(path))


class BagFiles:
    """The files of one bag.

    Attributes:
        path: Folder or file.
        stem: Its name without suffixes.
        broken: What is wrong with a bag that is read only as far as it goes; empty for a whole one.
        missing: Names of files that metadata.yaml names and that are not there.

    Raises:
        SourceError: It is no bag, or damaged; the message says what mends it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stem = path.name if path.is_dir() else _FILE_SUFFIX.sub("", path.name)
        files = [path]
        self.missing: tuple[str, ...] = ()
        if path.is_dir():
            files = _storage_files(path)
            there, named = {_plain_name(file): file for file in files}, _named_files(path)
            self.missing = tuple(name for name in named if name.lower().removesuffix(".zstd") not in there)
            if len(self.missing) < len(named):
                files = [there[key] for name in named if (key := name.lower().removesuffix(".zstd")) in there]
        if not files:
            raise SourceError(
                f"{path}: has none of the bag's files; its metadata.yaml names {', '.join(self.missing)}"
            )
        self._files = [(file, self._plain(file)) for file in files]
        with self.reader() as reader:
            self.broken = reader.broken

    def reader(self) -> BagReader:
        """Return a reader of the bag, to be entered."""
        return BagReader(self._files)

    def _plain(self, file: Path) -> Path:
        """Return the file, or what is in it if it is compressed as a whole; that stays as long as this object."""
        if not _begins(file).startswith(_ZSTD_MAGIC):
            return file
        folder = Path(mkdtemp(prefix="geowarp-bag-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        plain = folder / re.sub(r"\.zstd?$", "", file.name, flags=re.IGNORECASE)
        with file.open("rb") as packed, plain.open("wb") as unpacked:
            for block in unpacked_blocks(packed):
                if shutil.disk_usage(folder).free < _SPARE_BYTES:
                    raise SourceError(
                        f"{file}: what is in it does not fit into {folder.parent}; unpack it to where"
                        f" there is room: zstd -d {shlex.quote(str(file))} -o FILE"
                    )
                unpacked.write(block)
        return plain


class BagReader:
    """Reads the messages of a bag while it is entered.

    Attributes:
        connections: All channels, those that cannot be read as well.
        broken: Why a file is read only as far as it goes; empty if all are whole.
    """

    def __init__(self, files: Sequence[tuple[Path, Path]]) -> None:
        self._files = files
        self._storages: list[Storage] = []
        self._opened = ExitStack()
        self._types: dict[Any, Any] = {}
        self.connections: list[Connection] = []
        self.broken = ""

    def __enter__(self) -> BagReader:
        """Open all files."""
        with ExitStack() as opened:
            for shown, file in self._files:
                self._storages.append(_open(shown, file))
                opened.callback(self._storages[-1].close)
            self._opened = opened.pop_all()
        self._storages.sort(key=lambda storage: storage.begins_ns)
        self.connections = [connection for storage in self._storages for connection in storage.connections]
        self.broken = next((storage.broken for storage in self._storages if storage.broken), "")
        return self

    def __exit__(self, *_: object) -> None:
        """Close all files, though messages are still being read."""
        self._opened.close()
        self._storages = []

    def messages(
        self, connections: Sequence[Connection], start: int | None = None, *, as_written: bool = False
    ) -> Iterator[Recorded]:
        """Yield (connection, time of recording in ns, bytes) of all messages.

        Args:
            connections: Those wanted.
            start: First time of recording (ns).
            as_written: In the order of the files instead of that of the recorder's clock, which can step back.
        """
        own = [([c for c in connections if c.owner is storage], storage) for storage in self._storages]
        if as_written:
            found: Iterator[Recorded] = chain.from_iterable(each.as_written(wanted) for wanted, each in own)
        else:
            streams = [each.messages(wanted, start) for wanted, each in own]
            found = iter(heapq.merge(*streams, key=lambda message: message[1]))
        for connection, recorded_ns, raw in found:
            # CDR begins with 00: a bag whose messages are compressed one by one
            packed = raw[:4] == _ZSTD_MAGIC and encoding(connection) == "cdr"
            yield connection, recorded_ns, unpack(raw) if packed else raw

    def deserialize(self, raw: bytes, connection: Connection) -> Any:
        """Return the message.

        Raises:
            SourceError: It is neither CDR nor ROS 1, or its definition is absent or cannot be read.
        """
        types = self.types(connection)
        ros1 = encoding(connection) == "ros1"
        return (types.deserialize_ros1 if ros1 else types.deserialize_cdr)(raw, connection.msgtype)

    def cdr(self, raw: bytes, connection: Connection) -> bytes:
        """Return the message as ROS 2 sends it."""
        if encoding(connection) == "ros1":
            return bytes(self.types(connection).ros1_to_cdr(raw, connection.msgtype))
        return bytes(raw)

    def types(self, connection: Connection) -> Any:
        """Return the types of a connection's messages: those of the bag, or the standard ones if it has none.

        Raises:
            SourceError: As :meth:`deserialize`.
        """
        key = connection.msgtype, connection.msgdef
        if key not in self._types:
            self._types[key] = _types(connection)
        return self._types[key]


def encoding(connection: Connection) -> str:
    """Return how a connection's messages are serialised: ``cdr``, ``ros1``, or as other software does."""
    return (
        "ros1" if isinstance(connection.owner, Ros1) else str(getattr(connection.ext, "serialization_format", ""))
    )


def _types(connection: Connection) -> Any:
    what = f"{connection.topic}: {connection.msgtype}"
    if encoding(connection) not in ENCODINGS:
        raise SourceError(f"{what} is serialised as {encoding(connection)!r}, expected {' or '.join(ENCODINGS)}")
    form, text = connection.msgdef
    if form == MessageDefinitionFormat.NONE:
        standard = get_typestore(Stores.ROS1_NOETIC if encoding(connection) == "ros1" else Stores.LATEST)
        if connection.msgtype in DEFINITIONS:
            standard.register(get_types_from_msg(DEFINITIONS[connection.msgtype], connection.msgtype))
        if connection.msgtype not in standard.fielddefs:
            raise SourceError(f"{what} is defined neither in the bag nor by ROS")
        return standard
    types = get_typestore(Stores.EMPTY)
    try:
        if form == MessageDefinitionFormat.MSG:
            types.register(get_types_from_msg(text, connection.msgtype))
        else:  # several, each behind a line of "=" and one "IDL: name"
            for part in re.split(r"^=+\nIDL: .*\n", text, flags=re.MULTILINE):
                types.register(get_types_from_idl(part) if part.strip() else {})
    except Exception as error:  # the parser's own, and KeyError and the like of what it made
        raise SourceError(f"{what} has a definition that cannot be read: {first_line(error)}") from None
    return types


def _open(shown: Path, file: Path) -> Storage:
    start, refusal = _begins(file), f"{shown}: cannot be read as a ROS bag"
    kind, mender = next((known for magic, known in STORAGES.items() if start.startswith(magic)), (None, ""))
    if kind is None:
        begins = "begins as no MCAP, SQLite or ROS 1 bag does" if start else "is empty"
        raise SourceError(f"{refusal}: it {begins}")
    storage: Storage = kind(file)
    try:
        storage.open()
        return storage
    except (MemoryError, OverflowError):  # before anything was read
        problem = "a record claims more bytes than there is memory"
    except Exception as error:
        problem = first_line(error)
    mend = (
        f"; if its end is missing, mend it first: {mender.format(file=shlex.quote(str(shown)))}" if mender else ""
    )
    raise SourceError(f"{refusal}: {problem}{mend}")


def _begins(file: Path, length: int = 16) -> bytes:
    try:
        with file.open("rb") as content:
            return content.read(length)
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from None


def _storage_files(folder: Path) -> list[Path]:
    """Return the files of a bag of ROS 2 in a folder; of a file and its compressed copy the former."""
    named = ((path, _FILE_SUFFIX.search(path.name)) for path in folder.iterdir())
    files = [path for path, suffix in named if suffix and suffix[1].lower() != "bag" and path.name[0] != "."]
    found: dict[str, Path] = {}
    for path in sorted(files):  # the compressed one is later
        if path.is_file():
            found.setdefault(_plain_name(path), path)
    return [path for path in found.values() if path.suffix.lower() != ".db3" or _is_bag_database(path)]


def _plain_name(path: Path) -> str:
    return re.sub(r"\.zstd?$", "", path.name.lower())


def _is_bag_database(path: Path) -> bool:
    """Return whether a database is a bag: other software's have the suffix, too. It may be damaged."""
    start = _begins(path, 1 << 16)
    return b"topics" in start and b"messages" in start


def _named_files(folder: Path) -> list[str]:
    """Return the files that a bag's metadata.yaml names; nothing if it is absent, broken or of other software."""
    try:
        read = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
        names = read["rosbag2_bagfile_information"]["relative_file_paths"]
        return [Path(str(name)).name for name in names] if isinstance(names, list) else []
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
