"""Writing files in one step."""

from __future__ import annotations

import os
from pathlib import Path

from geowarp_ros.errors import GeowarpError


def write_whole(path: Path, data: bytes, error: type[GeowarpError]) -> None:
    """Replace the content of ``path`` in one step, once the new content is on the disk.

    If anything fails or the process is killed, the previous file stays.

    Args:
        path: The file.
        data: Its new content.
        error: Kind of error to raise.

    Raises:
        GeowarpError: The file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise error(f"{path}: cannot be written: {problem.strerror}; what was there is kept") from None
