"""Fetching a file by HTTP: resumed, whole or not at all, and never a web page.

What has arrived lies beside the target as ``NAME.part``, and ``NAME.part.json`` says of which version of the file
it is; the rest is asked for by ``Range`` and ``If-Range`` (RFC 9110, sections 13.1.5 and 14).
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from geowarp_ros import __version__
from geowarp_ros.errors import DownloadError
from geowarp_ros.progress import Progress, silent

TIMEOUT_S = 30.0
"""How long a server may be silent."""
LARGEST_BYTES = 8_000_000_000
"""No weights are larger: a server that sends more is cut off."""
_ATTEMPTS = 5
"""Connections that may break one after the other, each of which brought something."""
_MEGABYTE = 1_000_000
_NO_WEIGHTS = {
    b"<!doctype": "a web page, perhaps one that asks for a login",
    b"<html": "a web page, perhaps one that asks for a login",
    b"version https://git-lfs": "a Git LFS pointer",
}
"""How what is no file of weights begins, in lower case -> what it is."""


class _BrokenError(Exception):
    """The connection broke; what has arrived is kept."""


class UnreachableError(DownloadError):
    """There is no network, no such server, or it does not give the file."""


class _PastEndError(UnreachableError):
    """The server has nothing from there on (416)."""


@dataclass(frozen=True)
class Version:
    """What a server says of the file that it sends.

    Attributes:
        url: Address that was asked.
        size_bytes: Of the whole file; None: it does not say.
        etag: Its entity tag; empty: none.
        modified: When it was last modified, as the server writes it; empty: it does not say.
    """

    url: str
    size_bytes: int | None = None
    etag: str = ""
    modified: str = ""

    @property
    def validator(self) -> str:
        """What ``If-Range`` takes; a weak entity tag does not promise the same bytes."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


def download(
    url: str, target: Path, *, size_bytes: int | None = None, copies: int = 0, progress: Progress = silent
) -> Version:
    """Fetch ``url`` into ``target``, going on where an earlier call ended.

    Args:
        url: Of http or https; a redirect from https to http is refused.
        target: File to write; its folder exists. What was there is replaced once everything has arrived.
        size_bytes: Size that the file must have; None: any.
        copies: Times its size for which the disk must have room, too.
        progress: Shows how far it is, in megabytes.

    Returns:
        What the server said of the file, with the size that it has.

    Raises:
        DownloadError: The address cannot be reached, answers with an error, a page or another size, or breaks off;
            the disk is too small; another process fetches the same. What has arrived is kept for the next call.
    """
    part = target.with_name(f"{target.name}.part")
    with _held(part) as file:
        for _ in range(_ATTEMPTS):
            before = file.seek(0, os.SEEK_END)
            try:
                version = _fetch(url, part, file, size_bytes, copies, progress)
            except _BrokenError:
                if file.tell() <= before:
                    break
                continue
            part.replace(target)
            _beside(part).unlink(missing_ok=True)
            return version
        raise DownloadError(
            f"{url}: broke off after {file.tell():,} bytes; they are kept, and the same command goes on from there"
        )


def _fetch(
    url: str, part: Path, file: IO[bytes], size_bytes: int | None, copies: int, progress: Progress
) -> Version:
    """Append what is missing to ``file``, or write it anew where the server does not go on.

    Raises:
        _BrokenError: Before everything had arrived.
    """
    answer, version, start = _ask(url, file.tell(), _read_version(part, url))
    with answer:
        if size_bytes is not None and version.size_bytes not in (None, size_bytes):
            raise DownloadError(f"{url}: has {version.size_bytes:,} bytes, expected {size_bytes:,}")
        if start == 0:
            _refuse_pages(answer)
        _refuse_full_disk(part, (version.size_bytes or size_bytes or 0) * (1 + copies) - start)
        _beside(part).write_text(json.dumps(asdict(version)))
        file.truncate(start)
        file.seek(start)
        missing = (version.size_bytes or start) - start
        for chunk in progress(
            _chunks(answer), -(-missing // _MEGABYTE), f"{Path(urlsplit(url).path).name}, megabytes"
        ):
            if file.tell() + len(chunk) > LARGEST_BYTES:
                raise DownloadError(f"{url}: sends more than {LARGEST_BYTES:,} bytes, expected weights")
            file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    size = file.tell()
    if version.size_bytes not in (None, size):
        raise _BrokenError
    if size_bytes not in (None, size):
        raise DownloadError(f"{url}: sent {size:,} bytes, expected {size_bytes:,}")
    return Version(url, size, version.etag, version.modified)


def _ask(url: str, have: int, known: Version) -> tuple[http.client.HTTPResponse, Version, int]:
    """Return an answer, of which version it is, and its first byte's place in the file: ``have`` or 0."""
    if have and known.validator:
        try:
            answer = _open(url, {"Range": f"bytes={have}-", "If-Range": known.validator})
        except _PastEndError:
            return _ask(url, 0, known)
        version, start = _version(url, answer)
        if start in (0, have) and (start == 0 or version == known):
            return answer, version, start
        answer.close()  # another place than asked for, or of a file that has changed
    answer = _open(url, {})
    version, start = _version(url, answer)
    if start:
        raise DownloadError(f"{url}: sends a part of the file, unasked")
    return answer, version, 0


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    request_headers = {"User-Agent": f"geowarp_ros/{__version__}", **headers}
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise DownloadError(f"{url}: is no address of http or https")
        opener = urllib.request.build_opener(_SafeRedirects)
        answer: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=request_headers), timeout=TIMEOUT_S
        )
    except urllib.error.HTTPError as error:
        error.close()
        kind = _PastEndError if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE else UnreachableError
        raise kind(f"{url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise UnreachableError(f"{url}: cannot be reached: {error.reason}") from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise UnreachableError(f"{url}: cannot be reached: {error}") from None
    return answer


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything less."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request.

        Raises:
            DownloadError: It would be one that anybody on the way can change.
        """
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DownloadError(f"{req.full_url}: redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(url: str, answer: http.client.HTTPResponse) -> tuple[Version, int]:
    """Return what the headers say of the file, and the place in it of the answer's first byte."""
    said = answer.headers
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said.get("Content-Range", ""))
    if answer.status != http.client.PARTIAL_CONTENT:
        start, size = 0, _number(said.get("Content-Length", ""))
    else:
        start, size = (int(found[1]), _number(found[2])) if found else (-1, None)
    return Version(url, size, said.get("ETag", ""), said.get("Last-Modified", "")), start


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _refuse_pages(answer: http.client.HTTPResponse) -> None:
    try:
        begins = answer.peek(64).lstrip()[:32].lower()
    except (http.client.HTTPException, OSError):
        raise _BrokenError from None
    kinds = [what for start, what in _NO_WEIGHTS.items() if begins.startswith(start)]
    if answer.headers.get_content_type() == "text/html":
        kinds.append(_NO_WEIGHTS[b"<html"])
    if kinds:
        raise DownloadError(f"{answer.url}: is {kinds[0]}, expected a file of weights")


def _refuse_full_disk(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise DownloadError(f"{part.parent}: {free:,} bytes are free, {needed:,} are needed")


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = answer.read(_MEGABYTE)
        except (http.client.HTTPException, OSError):
            raise _BrokenError from None
        if not chunk:
            return
        yield chunk


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """Open ``part``, at its end, for this process alone."""
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"{part}: another process is fetching it") from None
        try:
            yield file
        finally:
            if not os.fstat(file.fileno()).st_size:
                for path in (part, _beside(part)):
                    path.unlink(missing_ok=True)


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_version(part: Path, url: str) -> Version:
    """Return the version of which ``part`` is; one without validator if that is not known."""
    try:
        return Version(**json.loads(_beside(part).read_text()))
    except (OSError, ValueError, TypeError):
        return Version(url)
