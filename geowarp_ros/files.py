"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from geowarp_ros.errors import GeowarpError


def write_whole(path: Path, data: bytes, error: type[GeowarpError]) -> None:
    """Replace ``path`` by ``data`` in one stroke, after they are safely on the disk.

    Whatever goes wrong, and whenever the process ends, the previous file stays.

    Args:
        path: Where to.
        data: All of it.
        error: What to raise where the disk fails.

    Raises:
        GeowarpError: Of the kind ``error``: the file cannot be written.
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
