"""Downloads from a server on loopback: every byte, or a refusal that says why."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pytest

from geowarp_ros.catalogue import download as downloading
from geowarp_ros.catalogue.download import UnreachableError, download
from geowarp_ros.errors import DownloadError
from geowarp_ros.files import sha256_of
from test.catalogue.serving import Site

T = TypeVar("T")

BODY = bytes(range(256)) * 10_000  # 2.56 MB: three chunks
OTHER = BODY[::-1]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_file_arrives_whole_and_what_the_server_says_of_it(site: Site, target: Path) -> None:
    version = download(site.put("a.pth", BODY, etag='"abc"'), target)
    assert target.read_bytes() == BODY
    assert (version.size_bytes, version.etag) == (len(BODY), '"abc"')
    assert left(target) == [target.name]
    assert sha256_of(target) == hashlib.sha256(BODY).hexdigest()
    assert site.asked[0][1]["User-Agent"].startswith("geowarp_ros/")


def test_progress_counts_the_megabytes_that_are_missing(site: Site, target: Path) -> None:
    seen: list[tuple[int, int, str]] = []

    def count(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        found = list(items)
        seen.append((len(found), total, label))
        return found

    download(site.put("a.pth", BODY), target, progress=count)
    assert seen == [(3, 3, "a.pth, megabytes")]


def test_a_connection_that_breaks_is_resumed_where_it_broke(site: Site, target: Path) -> None:
    url = site.put("a.pth", BODY, cut=[1_000_000, 500_000])
    download(url, target)
    assert target.read_bytes() == BODY
    assert site.ranges == ["", "bytes=1000000-", "bytes=1500000-"]
    assert all(headers.get("If-Range", '"1"') == '"1"' for _, headers in site.asked)


def test_a_server_that_always_breaks_off_is_given_up_and_the_next_call_goes_on(site: Site, target: Path) -> None:
    url = site.put("a.pth", BODY, cut=[1000, 0])
    with pytest.raises(DownloadError, match=r"broke off after 1,000 bytes; they are kept, and the same command"):
        download(url, target)
    assert not target.exists()
    download(url, target)
    assert target.read_bytes() == BODY
    assert site.ranges == ["", "bytes=1000-", "bytes=1000-"]


def test_a_truncated_file_is_not_taken_for_whole(site: Site, target: Path) -> None:
    """Its Content-Length promises more than ever comes, however often it is asked for."""
    headers = {"Content-Length": str(len(BODY) + 1), "Content-Type": "application/octet-stream"}
    url = site.put("a.pth", BODY, headers=headers, cut=[len(BODY)] * 10)
    with pytest.raises(DownloadError, match=r"broke off after 2,560,000 bytes"):
        download(url, target)
    assert not target.exists()


def test_a_killed_download_keeps_its_part_and_resumes(site: Site, target: Path) -> None:
    stall = threading.Event()
    url = site.put("a.pth", BODY, cut=[2_000_000], stall=stall)
    script = "import sys, pathlib\nfrom geowarp_ros.catalogue.download import download\n"
    script += "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", script, url, str(target)])
    part = target.with_name("weights.pth.part")
    try:
        while not part.exists() or part.stat().st_size < 1_000_000:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        stall.set()
    have = part.stat().st_size
    assert BODY.startswith(part.read_bytes())
    download(url, target)
    assert target.read_bytes() == BODY
    assert site.ranges[-1] == f"bytes={have}-"


def test_without_ranges_it_starts_anew(site: Site, target: Path) -> None:
    headers = {"ETag": '"1"', "Content-Type": "application/octet-stream"}
    download(site.put("a.pth", BODY, headers=headers, cut=[1_000_000]), target)
    assert target.read_bytes() == BODY
    assert site.ranges == ["", "bytes=1000000-"]


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_strong_validator_it_starts_anew(site: Site, target: Path, etag: str) -> None:
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    download(site.put("a.pth", BODY, headers=headers, cut=[1_000_000], blind=True), target)
    assert target.read_bytes() == BODY
    assert site.ranges == ["", ""]


@pytest.mark.parametrize("blind", [False, True])
def test_a_file_that_changed_between_its_parts_starts_anew(site: Site, target: Path, blind: bool) -> None:
    """Also where the server ignores If-Range and sends the rest of the new one."""
    url = site.put("a.pth", BODY, etag='"1"', cut=[1_000_000, 0])
    with pytest.raises(DownloadError, match="broke off"):
        download(url, target)
    site.put("a.pth", OTHER + b"more", etag='"2"', blind=blind)
    version = download(url, target)
    assert target.read_bytes() == OTHER + b"more"
    assert version.etag == '"2"'


def test_a_part_longer_than_the_file_starts_anew(site: Site, target: Path) -> None:
    url = site.put("a.pth", BODY)
    target.with_name("weights.pth.part").write_bytes(BODY + b"x")
    known = {"url": url, "size_bytes": len(BODY), "etag": '"1"'}
    target.with_name("weights.pth.part.json").write_text(json.dumps(known))
    download(url, target)
    assert target.read_bytes() == BODY
    assert site.ranges == [f"bytes={len(BODY) + 1}-", ""]


def test_a_part_that_does_not_say_where_it_belongs_is_refused(site: Site, target: Path) -> None:
    with pytest.raises(DownloadError, match="sends a part of the file, unasked"):
        download(site.put("a.pth", BODY, status=206), target)
    assert left(target) == []


def test_a_part_of_another_address_is_not_gone_on_with(site: Site, target: Path) -> None:
    with pytest.raises(DownloadError, match="broke off"):
        download(site.put("a.pth", BODY, cut=[1000, 0]), target)
    download(site.put("b.pth", OTHER), target)  # of the same size and entity tag
    assert target.read_bytes() == OTHER


def test_a_damaged_note_beside_a_part_is_none(site: Site, target: Path) -> None:
    url = site.put("a.pth", BODY)
    target.with_name("weights.pth.part").write_bytes(OTHER[:5])
    target.with_name("weights.pth.part.json").write_text("{")
    download(url, target)
    assert target.read_bytes() == BODY


def test_a_length_that_is_not_known_is_no_obstacle(site: Site, target: Path) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    version = download(site.put("a.pth", BODY, headers=headers), target)
    assert target.read_bytes() == BODY
    assert version.size_bytes == len(BODY)


def test_chunks_that_break_off_are_not_the_end(site: Site, target: Path) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    download(site.put("a.pth", BODY, headers=headers, cut=[1_000_000]), target)
    assert target.read_bytes() == BODY


def test_another_size_than_published_is_refused_before_anything_is_written(site: Site, target: Path) -> None:
    with pytest.raises(DownloadError, match=r"has 2,560,000 bytes, expected 7"):
        download(site.put("a.pth", BODY), target, size_bytes=7)
    assert left(target) == []


def test_another_size_is_refused_where_the_server_tells_none(site: Site, target: Path) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    with pytest.raises(DownloadError, match=r"sent 2,560,000 bytes, expected 7"):
        download(site.put("a.pth", BODY, headers=headers), target, size_bytes=7)
    assert not target.exists()


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"\n <!DOCTYPE html><title>Sign in</title>", "application/octet-stream", "a web page"),
        (b"<HTML>", "application/octet-stream", "a web page"),
        (b"anything", "text/html; charset=utf-8", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "text/plain", "a Git LFS pointer"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_by_name(
    site: Site, target: Path, body: bytes, kind: str, said: str
) -> None:
    url = site.put("a.pth", body, headers={"Content-Type": kind})
    with pytest.raises(DownloadError, match=rf"a\.pth: is {said}.*, expected a file of weights"):
        download(url, target)
    assert left(target) == []


def test_a_page_in_between_does_not_cost_what_has_arrived(site: Site, target: Path) -> None:
    """As the portal of a train's network sends one."""
    url = site.put("a.pth", BODY, cut=[1_000_000, 0])
    with pytest.raises(DownloadError, match="broke off"):
        download(url, target)
    page = site.pages["/a.pth"]
    site.put("a.pth", b"<html>pay here", headers={"Content-Type": "text/html"})
    with pytest.raises(DownloadError, match="a web page"):
        download(url, target)
    site.pages["/a.pth"] = page
    download(url, target)
    assert target.read_bytes() == BODY
    assert site.ranges[-1] == "bytes=1000000-"


def test_redirects_are_followed_and_resumed(site: Site, target: Path) -> None:
    site.put("real.pth", BODY, cut=[1_000_000])
    for name, to in (("a.pth", "/b.pth"), ("b.pth", site.url("real.pth"))):
        site.put(name, b"", headers={"Location": to}, status=302)
    download(site.url("a.pth"), target)
    assert target.read_bytes() == BODY
    assert [path for path, _ in site.asked] == ["/a.pth", "/b.pth", "/real.pth"] * 2
    assert site.ranges[-1] == "bytes=1000000-"


def test_a_redirect_to_a_login_page_is_refused_with_its_address(site: Site, target: Path) -> None:
    site.put("login", b"<!doctype html>", headers={"Content-Type": "text/html"})
    site.put("a.pth", b"", headers={"Location": "/login"}, status=302)
    with pytest.raises(DownloadError, match=r"/login: is a web page, perhaps one that asks for a login"):
        download(site.url("a.pth"), target)


def test_redirects_without_end_are_an_error(site: Site, target: Path) -> None:
    site.put("a.pth", b"", headers={"Location": "/a.pth"}, status=302)
    with pytest.raises(UnreachableError, match="the server answers 302"):
        download(site.url("a.pth"), target)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    redirects = downloading._SafeRedirects()
    request = urllib.request.Request("https://weights.example/a.pth")

    def follow(to: str) -> urllib.request.Request | None:
        return redirects.redirect_request(request, BytesIO(), 302, "Found", http.client.HTTPMessage(), to)

    onward = follow("https://other.example/a.pth")
    assert onward is not None and onward.full_url == "https://other.example/a.pth"
    with pytest.raises(DownloadError, match=r"redirects to http://other\.example/a\.pth, which is not encrypted"):
        follow("http://other.example/a.pth")


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (404, "Not Found"), (503, "Service Unavail")])
def test_a_servers_refusal_is_said(site: Site, target: Path, status: int, reason: str) -> None:
    url = site.put("a.pth", b"no", status=status)
    with pytest.raises(UnreachableError, match=rf"a\.pth: the server answers {status} {reason}"):
        download(url, target)
    assert left(target) == []


def test_nobody_there_is_one_line(target: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"cannot be reached: .*refused"):
        download(f"http://127.0.0.1:{port}/a.pth", target)
    assert left(target) == []


def test_a_server_that_hangs_up_is_one_line(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        with pytest.raises(UnreachableError, match="cannot be reached"):
            download(f"http://127.0.0.1:{listener.getsockname()[1]}/a.pth", target)
        thread.join()


def test_a_silent_server_is_not_waited_for(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_S", 0.05)
    said = pytest.raises(UnreachableError, match=r"cannot be reached: .*timed out")
    with socket.create_server(("127.0.0.1", 0)) as listener, said:
        download(f"http://127.0.0.1:{listener.getsockname()[1]}/a.pth", target)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.pth", "file:///etc/hostname", "http:// /a", "http://[x/a"])
def test_other_addresses_are_refused(target: Path, url: str) -> None:
    with pytest.raises(DownloadError, match=r"is no address of http or https|cannot be reached"):
        download(url, target)


def test_a_full_disk_is_said_before_the_download(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(target.parent)._replace(free=2 * len(BODY) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used)
    url = site.put("a.pth", BODY)
    with pytest.raises(DownloadError, match=r"5,119,999 bytes are free, 5,120,000 are needed"):
        download(url, target, copies=1)
    assert left(target) == []
    download(url, target)
    assert target.read_bytes() == BODY


def test_a_server_that_sends_without_end_is_cut_off(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "LARGEST_BYTES", 2_000_000)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    with pytest.raises(DownloadError, match="sends more than 2,000,000 bytes"):
        download(site.put("a.pth", BODY, headers=headers), target)


def test_two_processes_do_not_write_one_file(site: Site, target: Path) -> None:
    said = pytest.raises(DownloadError, match="another process is fetching it")
    with downloading._held(target.with_name("weights.pth.part")), said:
        download(site.put("a.pth", BODY), target)
    download(site.url("a.pth"), target)
    assert target.read_bytes() == BODY
