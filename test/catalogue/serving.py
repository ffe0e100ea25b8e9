"""A web server on loopback that behaves as badly as it is told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What an address answers with.

    Attributes:
        body: The file.
        headers: Sent along; those without Content-Length are sent in chunks, Range is honoured with Accept-Ranges.
        cut: Bytes of the body after which each answer's connection closes, in turn; whole answers follow.
        status: Of a whole answer.
        stall: After a cut, wait for this before the connection closes.
        blind: Whether If-Range is ignored.
    """

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    status: int = 200
    stall: threading.Event | None = None
    blind: bool = False


class Site:
    """Pages by path, and who asked for them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def put(self, name: str, body: bytes, *, etag: str = '"1"', **options: Any) -> str:
        """Serve a file that can be resumed, and return its address."""
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        self.pages[f"/{name}"] = Page(body, **{"headers": headers, **options})
        return self.url(name)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    @property
    def ranges(self) -> list[str]:
        """What was asked for, request by request: the Range, or nothing for the whole file."""
        return [headers.get("Range", "") for _, headers in self.asked]


@contextmanager
def serving() -> Iterator[Site]:
    """Serve on loopback for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append((self.path, dict(self.headers)))
            page = site.pages.get(self.path, Page(status=404))
            start, asked = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = page.blind or self.headers.get("If-Range") == page.headers.get("ETag")
            if asked and same and "Accept-Ranges" in page.headers:
                start = int(asked[1])
            if start >= len(page.body) > 0:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else page.status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
            chunked = page.headers.get("Transfer-Encoding") == "chunked"
            for name, value in page.headers.items():
                self.send_header(name, value)
            body = page.body[start:]
            if not chunked and "Content-Length" not in page.headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = page.cut.pop(0) if page.cut else None
            sent = body[:cut]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent) if chunked else sent)
            if cut is not None:
                self.wfile.flush()
                if page.stall is not None:
                    page.stall.wait(30)
                self.close_connection = True
            elif chunked:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site = Site(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
