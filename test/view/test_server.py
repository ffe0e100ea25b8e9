"""Who may ask, for what, and what comes with every answer. Nothing is served but what was given."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import ConfigError
from geowarp_ros.evaluation.scene import scene
from geowarp_ros.view import server
from geowarp_ros.view.shown import NoPictureError, Still
from test.view.scenes import GROUND, served

PICTURE = np.random.default_rng(1).integers(0, 255, (90, 200, 3), np.uint8)


def one_picture(row: int) -> np.ndarray:
    if row != 0:
        raise NoPictureError(f"place {row}: expected 0 to 0")
    return PICTURE


def still() -> Still:
    places = {"x": [0.0], "y": [0.0], "name": ["<img src=x onerror=alert(1)>.jpg"]}
    return Still(scene("gallery", "g", GROUND, places=places), {"place": one_picture})


@dataclass
class Answered:
    """An answer of the application."""

    status_code: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Client:
    """Asks the application itself, in the name of a host."""

    app: Any
    host: str

    def get(self, address: str) -> Answered:
        parts = urlsplit(address)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": parts.path, "raw_path": parts.path.encode(), "query_string": parts.query.encode(),
            "root_path": "", "headers": [(b"host", self.host.encode())], "client": None, "server": None,
        }  # fmt: skip
        found = Answered()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            found.status_code = message.get("status", found.status_code)
            found.headers |= {name.decode(): value.decode() for name, value in message.get("headers", ())}
            found.content += message.get("body", b"")

        asyncio.run(self.app(scope, receive, send))
        return found


def client(host: str = "127.0.0.1", hosts: tuple[str, ...] = server.LOOPBACK, tiles: str = "") -> Client:
    return Client(server.application(still(), hosts, tiles), f"{host}:8460")


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with served(still()) as url:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        yield parts.hostname, parts.port


def raw(address: tuple[str, int], target: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    """Ask exactly for this: nothing tidies the path."""
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", host or "127.0.0.1")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LocalHost"])
def test_it_answers_to_its_own_name(host: str) -> None:
    assert client(host).get("/").status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example@127.0.0.1.x", "10.0.0.7"],
)
@pytest.mark.parametrize(
    "path", ["/", "/scene.json", "/picture/place/0", "/news.json", "/assets/map.js", "/absent"]
)
def test_by_a_foreign_name_nothing_is_told(host: str, path: str) -> None:
    answer = client(host).get(path)
    assert answer.status_code == 421
    assert b"onerror" not in answer.content and len(answer.content) < 100


def test_a_request_without_a_name_or_with_a_broken_one_is_refused(address: tuple[str, int]) -> None:
    for host in ("", "[::1", "\x00"):
        assert raw(address, "/", host=host or " ")[0] in (400, 421)


def test_listening_for_others_names_in_digits_are_enough_but_other_names_are_not() -> None:
    hosts = server.hosts_of("0.0.0.0")
    assert client("10.0.0.7", hosts).get("/").status_code == 200
    assert client(socket.gethostname(), hosts).get("/").status_code == 200
    assert client("evil.example", hosts).get("/").status_code == 421
    own = server.hosts_of("robot.local")
    assert client("robot.local", own).get("/").status_code == 200
    assert client("10.0.0.7", own).get("/").status_code == 421


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../../../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%2e%2e/server.py",
        "/assets/..\\server.py",
        "/assets//etc/passwd",
        "/assets/server.py",
        "/picture/place/..%2f..%2fetc%2fpasswd",
        "/picture/place/-1",
        "/picture/place/1",
        "/picture/place/0x0",
        "/picture/place/99999999999999999999999999",
        f"/picture/place/{'9' * 5000}",
        "/picture/..%2fplace/0",
        "/picture/query/0",
        "//etc/passwd",
        "/%00",
        "/assets/page.html%00.js",
    ],
)
def test_nothing_outside_is_served(address: tuple[str, int], target: str) -> None:
    status, content = raw(address, target)
    assert status == 404
    assert b"root:" not in content and b"import" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/scene.json", "/picture/place/0"])
def test_it_only_reads(address: tuple[str, int], method: str, path: str) -> None:
    assert raw(address, path, method)[0] == 405


@pytest.mark.parametrize("path", ["/", "/scene.json", "/picture/place/0", "/picture/place/7", "/absent"])
def test_every_answer_keeps_to_itself(path: str) -> None:
    headers = client().get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == ("private, max-age=86400" if path == "/picture/place/0" else "no-store")
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("asked", "width"),
    [("", 200), ("?width=100", 100), ("?width=1", 64), ("?width=9e9", 200), (f"?width={'9' * 5000}", 200)],
)
def test_a_picture_has_the_width_that_is_asked_for(asked: str, width: int) -> None:
    answer = client().get(f"/picture/place/0{asked}")
    assert answer.headers["content-type"] == "image/jpeg"
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None and image.shape[:2] == (round(90 * width / 200), width)


def test_hostile_names_arrive_as_they_are_and_as_data() -> None:
    answer = client().get("/scene.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["places"]["name"] == ["<img src=x onerror=alert(1)>.jpg"]


def test_the_page_names_only_files_of_the_package() -> None:
    page = client()
    names = ["report.css", "viewer.css", "page.css", "map.js", "viewer.js", "page.js"]
    text = page.get("/").content.decode()
    assert [name for name in names if f'"assets/{name}"' in text] == names
    for name in names:
        assert page.get(f"/assets/{name}").status_code == 200
    assert "http" not in text  # nothing from elsewhere


def test_tiles_are_asked_for_where_the_option_says_and_only_there() -> None:
    own = "https://tiles.example/{z}/{x}/{y}.png"
    answer = client(tiles=own).get("/scene.json")
    assert answer.json()["tiles"] == {"url": own, "attribution": "tiles.example"}
    assert "img-src 'self' data: https://tiles.example;" in answer.headers["content-security-policy"]
    osm = client(tiles=server.OPEN_STREET_MAP).get("/scene.json").json()["tiles"]
    assert osm["attribution"] == "© OpenStreetMap contributors"  # their licence asks for it
    assert client().get("/scene.json").json()["tiles"] is None
    for wrong in ("file:///etc/{z}{x}{y}", "https://tiles.example/{z}/{x}.png", "javascript:{z}{x}{y}"):
        with pytest.raises(ConfigError, match="expected an http"):
            client(tiles=wrong)


def test_a_port_that_is_taken_is_named_and_the_usual_one_replaced() -> None:
    with server.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1, port {port}: cannot listen there: .*--port"):
            server.listen("127.0.0.1", port)
    with server.listen("127.0.0.1", None) as one, server.listen("127.0.0.1", None) as other:
        assert one.getsockname()[1] != other.getsockname()[1]
    for host, wrong in (("256.0.0.1", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(ConfigError, match="cannot listen there"):
            server.listen(host, wrong)


def test_a_broken_photograph_is_no_picture(tmp_path: Path) -> None:
    def broken(row: int) -> np.ndarray:
        raise OSError(f"{tmp_path}: gone")

    page = Client(server.application(Still(still().content, {"place": broken})), "localhost")
    assert page.get("/picture/place/0").status_code == 404
