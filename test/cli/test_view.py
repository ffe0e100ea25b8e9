"""``geowarp view``: what it is given is found and said, it serves until interrupted, and ends with 0."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from geowarp_ros.cli import main
from geowarp_ros.cli.parser import Parser
from geowarp_ros.cli.view import _images, _still, add_arguments
from geowarp_ros.errors import GeowarpError, SourceError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.readers import read_source
from geowarp_ros.view.shown import NoPictureError, Shown
from test.gallery.conftest import ColourDescriber
from test.view.scenes import written


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six photographs with the names of the run's images, and the positions that a drive of them needs."""
    folder = tmp_path / "photographs"
    (folder / "drive").mkdir(parents=True)
    rows = ["filename,latitude,longitude"]
    for row in range(6):
        cv2.imwrite(str(folder / f"drive/{row:03}.jpg"), np.full((48, 64, 3), 40 * row, np.uint8))
        rows.append(f"drive/{row:03}.jpg,45.0,{9 + row * 1e-4}")
    (folder / "positions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def gallery(photographs: Path, tmp_path: Path) -> Path:
    return build_gallery(read_source(photographs), ColourDescriber(), tmp_path / "gallery").gallery


def still(*words: str) -> Shown:
    parser = Parser()
    add_arguments(parser)
    return _still(parser.parse_args(words))


@contextmanager
def viewing(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yields the address that it prints."""
    command = [sys.executable, "-m", "geowarp_ros.cli", "view", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Ctrl-C" in line, process.stderr and process.stderr.read()
            yield line.split()[0], process
        finally:
            if process.poll() is None:
                process.kill()


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_gallery_is_served_until_interrupted(gallery: Path, end: signal.Signals) -> None:
    with viewing(str(gallery)) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        assert b"viewer.js" in get(address)
        assert len(json.loads(get(f"{address}scene.json"))["places"]["x"]) == 6
        assert get(f"{address}picture/place/0?width=64")[:2] == b"\xff\xd8"
        process.send_signal(end)
        assert process.wait(30) == (0 if end == signal.SIGINT else -end)
        assert process.stderr is not None and process.stderr.read() == ""


def with_options(run: Path, **options: Any) -> Path:
    (run / "run.json").write_text(json.dumps({"options": options}))
    return run


def test_a_run_finds_its_drive_and_gallery_where_it_was_made(
    photographs: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    run = written(tmp_path / "runs")
    shown = still(str(with_options(run, drive=str(photographs), gallery=str(gallery))))
    assert shown.scene()["notes"] == []
    assert np.asarray(shown.picture("query", 2))[0, 0].tolist() == pytest.approx([80] * 3, abs=3)
    # as it was given on the command line, in a folder above the run's
    relative = with_options(run, drive="photographs", gallery="gallery")
    monkeypatch.chdir("/")
    assert still(str(relative)).scene()["pictures"] == ["candidate-warped", "place", "query", "query-warped"]


def test_what_a_run_lacks_is_said_with_the_option_that_helps(
    photographs: Path, gallery: Path, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    run = with_options(written(tmp_path / "r"), drive="/absent/drive", gallery="/absent/gallery")
    shown = still(str(run))
    notes = " ".join(shown.scene()["notes"])
    assert "/absent/drive is not there; --drive" in notes and "/absent/gallery is not there; --gallery" in notes
    assert shown.scene()["pictures"] == [] and len(shown.scene()["drive"]["t"]) == 6
    helped = still(str(run), "--drive", str(photographs), "--gallery", str(gallery))
    assert helped.scene()["notes"] == [] and "query" in helped.scene()["pictures"]


@pytest.mark.parametrize("options", [{}, {"drive": 7, "gallery": ["x"]}, {"drive": "", "gallery": ""}])
def test_a_damaged_run_json_leads_nowhere(tmp_path: Path, options: dict[str, Any]) -> None:
    shown = still(str(with_options(written(tmp_path), **options)))
    assert shown.scene()["pictures"] == []
    with pytest.raises(NoPictureError):
        shown.picture("query", 0)


def test_options_that_no_longer_read_a_drive_are_an_error_in_words(photographs: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read as it was evaluated"):
        _images(photographs, {"max_gap": "wide"})
    with pytest.raises(GeowarpError):
        _images(photographs, {"camera": "/absent.yaml"})
    assert (
        len(_images(photographs, {"max_gap": 2.0, "truth_datum": [-45.0, 9.0], "accept_null_island": True})) == 6
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to look at"),
        (["."], "neither a gallery (gallery.json) nor a run"),
        (["/absent"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert main(["view", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_wrong_port_or_address_is_said_before_anything_is_served(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, said in ((["--port", "70000"], "cannot listen there"), (["--tile-url", "x"], "expected an http")):
        assert main(["view", str(gallery), *more]) == 1
        assert said in capsys.readouterr().err
