"""Standard output as the shell gives it: colours, an encoding without ±, a full disk, a reader that has gone."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from geowarp_ros.errors import GeowarpError

PLAIN = {
    "±": "+-", "×": "x", "·": "*", "²": "^2", "°": " deg", "…": "...", "–": "-", "→": "->", "‖": "|", "≈": "~"
}  # fmt: skip
"""What is printed beyond ASCII, as a terminal that knows only ASCII shows it."""


COLOURS = {"green": "32", "amber": "33", "red": "31"}
"""Colour -> its code (ECMA-48, SGR): of a fix, of none, of what is wrong."""


def coloured(text: str, colour: str) -> str:
    """Return a line for standard output, in one of COLOURS where that is a terminal that shows any.

    NO_COLOR (no-color.org) forbids colours, FORCE_COLOR (force-color.org) wants them anywhere; the first wins.
    """
    wanted = os.environ.get("FORCE_COLOR") or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")
    if os.environ.get("NO_COLOR") or not wanted:
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


class OutputError(GeowarpError):
    """Standard output cannot be written."""

    status = 1


class ClosedOutputError(OutputError):
    """Whoever read standard output has gone, as ``head`` does."""

    status = 128 + signal.SIGPIPE
    """As a shell reports a process that SIGPIPE ended."""


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that the encoding lacks; a byte of a file's name stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if 0xDC80 <= ord(letter) <= 0xDCFF:  # PEP 383
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return PLAIN.get(letter, letter.encode("ascii", "backslashreplace").decode()), error.start + 1


codecs.register_error("geowarp", _plain)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Print whatever the encoding is, and have everything written when this ends.

    Raises:
        OutputError: It could not be written; the process's standard output leads nowhere then.
    """
    given, raw = sys.stdout, getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):  # python -u, which forgets what could not be written
        sys.stdout = os.fdopen(os.dup(raw.fileno()), "w", buffering=1, encoding=given.encoding)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="geowarp")
    try:
        try:
            yield
        finally:
            _flush()
    except BrokenPipeError:
        _lead_nowhere()
        raise ClosedOutputError("standard output: its reader has closed it") from None
    finally:
        sys.stdout = given


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _lead_nowhere()
        raise OutputError(f"standard output: cannot be written: {error.strerror}") from None


def _lead_nowhere() -> None:
    """Let the interpreter's own last flush, which would fail again and say so, succeed."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
