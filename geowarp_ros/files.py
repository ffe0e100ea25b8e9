"""Writing files in one step; paths as people write them."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

from geowarp_ros.errors import ConfigError, GeowarpError


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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def quoted(path: Path | str) -> str:
    """Return a path as one word of a shell, in double quotes where these do: commands stand in single ones."""
    word = shlex.quote(str(path))
    plain = word.startswith("'") and not set(word[1:-1]) & set("'\"$`\\!")
    return f'"{path}"' if plain else word


def expanded(path: str) -> Path:
    """Return a path with ``~`` and ``$NAME`` replaced, as in a shell: parameters and quoted options see none.

    A name that the environment lacks stays as it is, and so does the ``~name`` of an unknown user.

    Raises:
        ConfigError: The path needs HOME, and there is none.
    """
    homely = re.search(r"^~(/|$)|\$(HOME\b|\{HOME\})", path) is not None
    if not (homely and os.environ.get("HOME", "~" if path[0] == "~" else "") == ""):
        try:
            return Path(os.path.expandvars(path)).expanduser()
        except RuntimeError:  # no such user, or one without a home
            if not homely:
                return Path(path)
    raise ConfigError(f"{path}: HOME is not set, expected the whole path")
