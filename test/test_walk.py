"""A person's first hour: photographs and a bag, and nothing typed but what the tool itself printed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image as Pillow

from geowarp_ros.lab.loopback import loopback_environment, own_domain_id
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import write_world
from geowarp_ros.lab.world.tags import PHONE, retag
from geowarp_ros.readers import read_source
from test.browser import Browser

ROOT = Path(__file__).parents[1]

STREET = WorldConfig(
    seed=1, streets=1, street_length_m=45, supersampling=1, query_passes=0, drive_speed_m_s=20, occluders=0.5
)


def degrees(value: float) -> tuple[float, float, float]:
    whole, rest = divmod(abs(value) * 60, 1)
    return whole // 60, whole % 60, rest * 60


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person has: photographs with the GPS of a phone in their EXIF, and a bag; names with spaces."""
    town = write_world(STREET, tmp_path_factory.mktemp("town") / "town")
    folder = tmp_path_factory.mktemp("my trip")
    photographs = folder / "phone photos"
    photographs.mkdir()
    for number, image in enumerate(retag(read_source(town, split="gallery").images, PHONE)):
        assert image.path is not None
        with Pillow.open(image.path) as opened:
            exif, gps = opened.getexif(), opened.getexif().get_ifd(ExifTags.IFD.GPSInfo)
            gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "N", "W"  # of the Atlantic
            gps[ExifTags.GPS.GPSLatitude] = degrees(image.place.latitude_deg)
            gps[ExifTags.GPS.GPSLongitude] = degrees(image.place.longitude_deg)
            exif[ExifTags.IFD.GPSInfo] = gps
            opened.save(photographs / f"IMG_{1000 + number}.jpg", exif=exif, quality=90)
    shutil.copy(town / "camera.yaml", photographs)
    shutil.copytree(town / "drive", folder / "the drive")
    return folder


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation as ``make install`` leaves one behind: this checkout."""
    folder = tmp_path_factory.mktemp("clone") / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "geowarp").write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m geowarp_ros.cli "$@"\n'
    )
    (folder / "bin" / "geowarp").chmod(0o755)
    (folder / "bin" / "activate").write_text(f'PATH="{folder}/bin:$PATH"\n')
    (folder / "installed").touch()
    return folder


def next_of(printed: str) -> str:
    """The command in the last line of what was printed."""
    last = printed.splitlines()[-1]
    assert last.startswith("next: "), printed
    return last.removeprefix("next: ")


@contextmanager
def started(command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command as it stands in a shell; it and what it started end with the test."""
    environment = os.environ | loopback_environment(own_domain_id())
    with subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_five_commands_from_the_clone_to_the_map_each_printed_by_the_one_before(
    trip: Path, venv: Path, tmp_path: Path
) -> None:
    made = subprocess.run(
        ["make", "-C", str(ROOT), "install", f"VENV={venv}"], capture_output=True, text=True, check=True
    )
    command = next_of("\n".join(line for line in made.stdout.splitlines() if not line.startswith("make")))
    activated, _, first = command.partition(" && ")
    ran = ["make install", first]
    while True:
        with started(command, trip) as process:
            if " view " in command:
                assert process.stdout is not None
                address = process.stdout.readline().split()[0]
                see_the_fixes(address, tmp_path)
                break
            printed, said = process.communicate(timeout=300)
            assert process.returncode == 0, f"{command}\n{printed}\n{said}"
            if "evaluate bag" in command:
                assert re.search(r"availability +[5-9]\d\.\d %|availability +100\.0 %", printed), printed
        step = next_of(said)
        ran.append(step)
        command = f"{activated} && {step}"  # the person's shell stays as it is
    assert ran == [
        "make install",
        "geowarp doctor",
        "geowarp gallery build 'phone photos' --output gallery",
        "geowarp evaluate bag 'the drive' --gallery gallery --output 'runs/the drive'",
        "geowarp view 'runs/the drive'",
    ]


def see_the_fixes(address: str, folder: Path) -> None:
    """Look at the page in Chromium: each fix is a dot in the colour of a right one, and nothing went wrong."""
    with Browser(folder) as browser:
        browser.size(1300, 850)
        browser.open(address)
        browser.until(
            "window.viewer?.map?.x0 !== undefined && !viewer.map.waiting && document.readyState === 'complete'"
        )
        browser.until("[...document.images].every(image => image.complete)")
        browser.ask("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(1))))")
        browser.until("!viewer.map.waiting")
        fixed = browser.ask("viewer.drive.fixed")
        assert sum(fixed) >= len(fixed) / 2
        assert "the drive" in browser.text("#title")
        left, top, _, _ = browser.box(".ground")
        dots = browser.ask(
            "viewer.drive.order.map(row => viewer.map.at(viewer.drive.X[row], viewer.drive.Y[row]))"
        )
        browser.picture(folder / "page.png")
        assert browser.problems == []
    seen = np.asarray(Pillow.open(folder / "page.png").convert("RGB"), int)
    for x, y in dots:
        around = seen[round(top + y) - 3 : round(top + y) + 4, round(left + x) - 3 : round(left + x) + 4]
        assert (around.max(axis=2) - around.min(axis=2)).max() > 60, (x, y)  # colour, on a grey ground
