"""A damaged file as its format's reader wants to see it, without copying it."""

from __future__ import annotations

import io
from typing import Any


class Spliced(io.RawIOBase):
    """The first ``end`` bytes of a file with another head, and then another tail.

    Args:
        file: Opened for reading bytes; closed with this.
        end: How much of it is used.
        tail: What follows.
        head: What stands in the place of its first bytes, as many of them.
    """

    def __init__(self, file: Any, end: int, tail: bytes, head: bytes = b"") -> None:
        self._file = file
        self._end = end
        self._tail = tail
        self._head = head
        self._position = 0

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset from the start, from here, or from the end of the tail."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end + len(self._tail)}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read from the one of the three parts in which we stand; fewer bytes than asked for at its end."""
        here, wanted = self._position, len(buffer)
        if here < len(self._head):
            data = self._head[here : here + wanted]
        elif here < self._end:
            self._file.seek(here)
            data = self._file.read(min(wanted, self._end - here))
        else:
            data = self._tail[here - self._end : here - self._end + wanted]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()
