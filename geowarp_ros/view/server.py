"""The page's server: Starlette on uvicorn. It reads, and answers only who asks this machine by its own name.

Nothing here takes a path: assets are those of the package, by name, and pictures are numbered. A page elsewhere
can make a browser ask 127.0.0.1, also by a name of its own that leads there (DNS rebinding): the Host header is
checked, and the headers of every answer keep it from being embedded or read by others.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from geowarp_ros.errors import ConfigError, GeowarpError
from geowarp_ros.evaluation.scene import ASSETS, SCRIPTS, STYLES
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.view.shown import Shown

if TYPE_CHECKING:
    from starlette.applications import Starlette

PORT = 8460
"""Port, if it is free and none is asked for."""

OPEN_STREET_MAP = "https://tile.openstreetmap.org/{z}/{x}/{y}.png"
ATTRIBUTION = {"attribution": "© OpenStreetMap contributors", "link": "https://www.openstreetmap.org/copyright"}

LOOPBACK = ("127.0.0.1", "localhost", "::1")
WIDTHS_PX = (64, 1600)
"""Least and greatest width of a picture."""

PICTURES_KEPT = 256

_OWN = Path(__file__).parent / "assets"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html"}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def application(shown: Shown, hosts: Sequence[str] = LOOPBACK, tiles: str = "") -> Starlette:
    """Return the application.

    Args:
        shown: What to show.
        hosts: Names by which it may be asked for; ``*``: also any address in digits, and this machine's name.
        tiles: Address of map tiles, with {z}, {x} and {y}; empty: none, and no network.

    Raises:
        ConfigError: ``tiles`` is no such address.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    files = {name: (ASSETS / name).read_bytes() for name in (*STYLES, *SCRIPTS)}
    files |= {path.name: path.read_bytes() for path in _OWN.iterdir()}
    look = _tile_options(tiles)
    session = secrets.token_hex(8)  # in every picture's address: a browser may keep another gallery's

    def page(_: Request) -> Response:
        return Response(files["page.html"], media_type="text/html")

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return PlainTextResponse("no such file", 404)
        return Response(files[name], media_type=_TYPES[Path(name).suffix])

    def scene(_: Request) -> Response:
        content = {**shown.scene()}
        # a drive that begins anew counts its rows from 0 again: they are other pictures
        content |= {"tiles": look, "session": f"{session}-{content.get('run', 0)}"}
        return Response(json.dumps(content, separators=(",", ":"), allow_nan=False), media_type="application/json")

    def news(request: Request) -> Response:
        return JSONResponse(shown.news(_number(request.query_params.get("after", ""), 0)))

    @lru_cache(PICTURES_KEPT)
    def jpeg(kind: str, row: int, width_px: int, of: str) -> bytes:
        found = shown.picture(kind, row)
        return found if isinstance(found, bytes) else encode_jpeg(found, 85, width_px)

    def picture(request: Request) -> Response:
        least, most = WIDTHS_PX
        width = min(max(_number(request.query_params.get("width", ""), most), least), most)
        row, of = _number(request.path_params["row"], -1), request.query_params.get("of", "")[:64]
        try:
            data = jpeg(request.path_params["kind"], row, width, of)
        except (GeowarpError, OSError) as error:
            return PlainTextResponse(f"no picture: {error}", 404)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    routes = [
        Route("/", page),
        Route("/assets/{name}", asset),
        Route("/scene.json", scene),
        Route("/news.json", news),
        Route("/picture/{kind}/{row}", picture),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts, tiles=tiles)])


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else otherwise


def _tile_options(tiles: str) -> dict[str, str] | None:
    if not tiles:
        return None
    if not tiles.startswith(("http://", "https://")) or not all(part in tiles for part in ("{z}", "{x}", "{y}")):
        raise ConfigError(f"--tile-url {tiles}: expected an http(s) address with {{z}}, {{x}} and {{y}}")
    return {"url": tiles, **(ATTRIBUTION if tiles == OPEN_STREET_MAP else {"attribution": urlsplit(tiles).netloc})}


class Guard:
    """Refuses who asks for another host, and puts what keeps a page to itself onto every answer."""

    def __init__(self, app: Any, hosts: Sequence[str], tiles: str = "") -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        parts = urlsplit(tiles)
        elsewhere = f" {parts.scheme}://{parts.netloc}" if tiles else ""
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
            f" img-src 'self' data:{elsewhere}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = {
            "content-security-policy": policy,
            "cross-origin-resource-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "x-content-type-options": "nosniff",
            "referrer-policy": "origin" if tiles else "no-referrer",  # OpenStreetMap wants to know who asks
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = {name.lower() for name, _ in message.get("headers", ())}
                added = [*self._headers.items(), ("cache-control", "no-store")]
                more = [(name.encode(), value.encode()) for name, value in added if name.encode() not in headers]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(given) == 1 and self.knows(given[0]):
            await self._app(scope, receive, sent)
            return
        from starlette.responses import PlainTextResponse

        refusal = PlainTextResponse("this page is asked for by another name than it has here", 421)
        await refusal(scope, receive, sent)

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        with suppress(ValueError):
            name = (urlsplit(f"//{host}").hostname or "").lower()
            return name in self._hosts or ("*" in self._hosts and _is_own(name))
        return False


def _is_own(name: str) -> bool:
    """Return whether a name can only be this machine: an address in digits, which no one else's name is."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    return True


def hosts_of(host: str) -> tuple[str, ...]:
    """Return by which names a server that listens on ``host`` may be asked for."""
    if host in LOOPBACK:
        return LOOPBACK
    return (*LOOPBACK, "*" if host in ("0.0.0.0", "::", "") else host)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; with None on PORT, or on any free one.

    Raises:
        ConfigError: The address is not this machine's, or the port is taken.
    """
    for number in (PORT, 0) if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, number), family=family)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            if port is None and number and not isinstance(error, socket.gaierror):
                continue
            said = f"{host}, port {number}: cannot listen there: {problem}"
            raise ConfigError(f"{said}; another --port, or 0 for any free one") from None
    raise AssertionError("a free port is tried last")


def address_of(listening: socket.socket, host: str) -> str:
    """Return the address to open in a browser on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answer until interrupted (SIGINT, SIGTERM)."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="none", lifespan="off", server_header=False
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
