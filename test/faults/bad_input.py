"""Bad input of every kind, given to the real command line: what it says, and that nothing is lost by it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cli import main
from geowarp_ros.gallery.making.build import build_gallery, remove_from_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.readers import read_source
from test.faults.bombs import png
from test.gallery import bags

ROOT = Path(__file__).parents[2]
FIXED_LIMIT = 100_000
"""Bytes that a file may have where the disk is said to be full."""


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        words: After ``geowarp``.
        said: What stands in its one line on stderr or, with status 0, in its output.
        status: 1 for a mistake, 0 where the rest is good.
        prefix: What takes something away from the command: the permission to write, the room on the disk.
        kept: Galleries that are whole afterwards, each with its number of images.
    """

    words: tuple[str, ...]
    said: tuple[str, ...]
    status: int = 1
    prefix: tuple[str, ...] = ()
    kept: dict[Path, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What it says of the mistake, or of what it left out."""
        if self.status:
            return self.err.strip().splitlines()[-1]
        left_out = [line.strip() for line in self.out.splitlines() if "left out" in line]
        return left_out[0] if left_out else self.out.strip().splitlines()[-1]


CASES: dict[str, Callable[[Path], Case]] = {}


def _case(name: str) -> Callable[[Callable[[Path], Case]], Callable[[Path], Case]]:
    def register(make: Callable[[Path], Case]) -> Callable[[Path], Case]:
        CASES[name] = make
        return make

    return register


def run_here(case: Case) -> Outcome:
    """Run a case in this process, or in one of its own where it has a prefix."""
    if case.prefix:
        return run_apart(case)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(case.words)
    return Outcome(status, out.getvalue(), err.getvalue())


def run_apart(case: Case) -> Outcome:
    """Run a case as a user would."""
    command = [*case.prefix, sys.executable, "-m", "geowarp_ros.cli", *case.words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def check(case: Case, outcome: Outcome) -> None:
    """Hold an outcome to what the case expects; AssertionError where it differs."""
    assert outcome.status == case.status, outcome
    where = outcome.err if case.status else outcome.out + outcome.err
    assert all(text in where for text in case.said), outcome
    assert "Traceback" not in outcome.err, outcome
    if case.status:
        said = [line for line in outcome.err.splitlines() if line.startswith("geowarp ")]
        assert len(said) == 1 and "describing" not in said[0], outcome
    for gallery, images in case.kept.items():
        opened = Gallery.open(gallery)
        assert (len(opened), opened.verify()) == (images, []), gallery


# ---- what the cases are made of


def _picture(index: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(index)
    return cv2.resize(rng.integers(0, 256, (8, 10, 3), np.uint8), (80, 64))


def _table(folder: Path, rows: list[str], header: str = "filename,latitude,longitude") -> str:
    """Write three images and a CSV; returns the CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), _picture(index))
    (folder / "positions.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(folder / "positions.csv")


GOOD = ["0.png,45.0,9.0", "1.png,45.001,9.0", "2.png,45.002,9.0"]


def _gallery(folder: Path, rows: list[str] = GOOD) -> Path:
    source = read_source(Path(_table(folder / "street", rows)))
    return build_gallery(source, Describer(load_model("default"), "cpu"), folder / "gallery").gallery


def _build(source: str | Path, output: Path, *more: str) -> tuple[str, ...]:
    return ("gallery", "build", str(source), "--output", str(output), "--device", "cpu", *more)


def _localize(folder: Path, *images: Path, gallery: Path | None = None) -> tuple[str, ...]:
    where = gallery or _gallery(folder)
    return ("localize", *map(str, images), "--gallery", str(where), "--device", "cpu", "--rerank", "none")


# ---- images


def _image(name: str, content: Callable[[], bytes], said: tuple[str, ...], status: int = 1) -> None:
    def make(folder: Path) -> Case:
        path = folder / "query.png"
        path.write_bytes(content())
        return Case(_localize(folder, path), ("query.png: ", *said), status)

    CASES[name] = make


def _encoded(pixels: NDArray[Any], suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1].tobytes())


def _cmyk() -> bytes:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(_picture()).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


_image("image truncated", lambda: _encoded(_picture(), ".jpg")[:900], ("is truncated",))
_image("image empty", lambda: b"", ("is empty (0 bytes), expected an image",))
_image("image of 1×1", lambda: _encoded(_picture()[:1, :1]), ("is 1×1 px, expected at least 16",))
_image("image 20 000 px wide", lambda: png(20_000, 32), ("is 20000×32 px, expected at most 16384",))
_image(
    "image of 60 000×60 000",
    lambda: png(60_000, 60_000),
    ("far more pixels than the 100,000,000 expected", "3600000000 pixels"),
)
_image("image that is text", lambda: b"not a picture\n" * 9, ("is no image that can be decoded, expected one of",))
_image("image of 16 bits", lambda: _encoded(_picture().astype(np.uint16) * 257), (), 0)
_image("image in CMYK", _cmyk, (), 0)


@_case("image absent")
def _(folder: Path) -> Case:
    return Case(
        _localize(folder, folder / "absent.jpg"), ("absent.jpg: cannot be read: No such file or directory",)
    )


@_case("one bad image among good ones")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    bad, good = folder / "bad.jpg", folder / "street" / "1.png"
    bad.write_bytes(b"\xff\xd8 no more")
    return Case(_localize(folder, bad, good, gallery=gallery), ("bad.jpg: is no image",))


# ---- tables


def _csv(name: str, rows: list[str], said: tuple[str, ...], status: int = 1, **options: str) -> None:
    def make(folder: Path) -> Case:
        return Case(_build(_table(folder / "street", rows, **options), folder / "gallery"), said, status)

    CASES[name] = make


_csv(
    "CSV without a column",
    ["0.png,45.0,9.0"],
    ("positions.csv: no column 'latitude'", "expected filename, latitude"),
    header="filename,latitud,longitude",
)
_csv(
    "CSV with NaN",
    ["0.png,nan,9.0"],
    ("positions.csv, row 2: latitude = 'nan', expected a number from -90 to 90",),
)
_csv(
    "CSV with latitude 91",
    [GOOD[0], "1.png,91,9.0"],
    ("row 3: latitude = '91', expected a number from -90 to 90",),
)
_csv("CSV with a file twice", [GOOD[0], GOOD[0]], ("row 3: filename '0.png' stands in row 2 already",))
_csv("CSV with a file absent", [*GOOD, "9.png,45.0,9.0"], ("1 left out: 1 absent", "3 images, 3 added"), 0)
_csv("CSV with every file absent", ["9.png,45.0,9.0"], ("no usable image: 1 absent",))
_csv("CSV without rows", [], ("has a header and no rows, expected one row per image",))
_csv("CSV with a row cut off", ["0.png,45.0"], ("positions.csv, row 2: has 2 values, expected 3",))


@_case("CSV with an image truncated")
def _(folder: Path) -> Case:
    table = _table(folder / "street", GOOD)
    broken = folder / "street" / "1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    output = folder / "gallery"
    return Case(_build(table, output), ("1 left out: 1 unreadable", "2 images, 2 added"), 0, kept={output: 2})


# ---- bags


def _bag(name: str, messages: Callable[[], list[bags.Message]], said: tuple[str, ...], status: int = 1) -> None:
    def make(folder: Path) -> Case:
        return Case(_build(bags.write_bag(folder / "drive", messages()), folder / "gallery"), said, status)

    CASES[name] = make


_bag(
    "bag without images",
    lambda: [bags.fix(0, 45.0), bags.fix(1, 45.001)],
    (
        "drive: no topic with messages of type",
        "to take as image_topic; the bag has /fix (sensor_msgs/msg/NavSatFix)",
    ),
)
_bag(
    "bag without a fix topic",
    lambda: [bags.image(0, 9), bags.image(1, 20)],
    ("to take as fix_topic; the bag has /camera (sensor_msgs/msg/Image)",),
)
_bag(
    "bag with no fix among its fixes",
    lambda: [bags.image(0, 9), bags.fix(0, 45.0, status=-1)],
    ("no fix on /fix: expected NavSatFix with a status >= 0 and a finite position, found 1 without",),
)
_bag(
    "bag whose receiver was at 0°, 0° at first",
    lambda: [*(bags.fix(t, 0.0, 0.0) for t in range(2)), *bags.drive()[:8], *bags.drive()[10:]],
    ("4 images, 4 added", "2 of the fixes at 0°, 0°, which receivers report without a fix"),
    0,
)
_bag(
    "bag of two clocks",
    lambda: [
        *bags.drive()[:8],
        *((topic, at - 37 * 10**9, fix) for topic, at, fix in (bags.fix(t + 37, 45.0) for t in range(5))),
    ],
    (
        "the /fix stamps run 36.830 s ahead of those of /camera (TAI against UTC: 37 s)",
        "--fix-offset -37.000 mends it",
    ),
)
_bag(
    "bag without an image near a fix",
    lambda: [bags.image(0, 9), bags.fix(60, 45.0)],
    ("none of the 1 images on /camera is within max_gap_s = 1 s of a fix on /fix; the nearest is 60.000 s away",),
)


@_case("bag without the topic asked for")
def _(folder: Path) -> Case:
    bag = bags.write_bag(folder / "drive", bags.drive())
    words = _build(bag, folder / "gallery", "--image-topic", "/camra")
    return Case(words, ("no topic '/camra' (did you mean '/camera'?)",))


@_case("bag with a broken end")
def _(folder: Path) -> Case:
    path = bags.write_bag(folder / "drive", bags.drive()) / "drive.mcap"
    os.truncate(path, path.stat().st_size - 200)  # within the index
    said = ("left out: 1 with a broken end, used as far as it goes",)
    return Case(_build(path, folder / "gallery"), said, 0)


@_case("SQLite bag with a broken end")
def _(folder: Path) -> Case:
    path = bags.write_bag(folder / "drive", bags.drive(), "sqlite3") / "drive.db3"
    os.truncate(path, path.stat().st_size - 12_000)
    said = ("drive.db3: cannot be read as a ROS bag: ", "if its end is missing, mend it first: sqlite3 ")
    return Case(_build(path, folder / "gallery"), said)


@_case("ROS 1 bag with a broken end")
def _(folder: Path) -> Case:
    path = bags.write_bag1(folder / "drive.bag", bags.drive(store=bags.ROS1))
    os.truncate(path, path.stat().st_size - 200)
    said = ("drive.bag: cannot be read as a ROS bag: ", "mend it first: rosbag reindex ")
    return Case(_build(path, folder / "gallery"), said)


@_case("bag that is no bag")
def _(folder: Path) -> Case:
    (folder / "drive.mcap").write_bytes(b"not a bag at all" * 10)
    return Case(_build(folder / "drive.mcap", folder / "gallery"), ("drive.mcap: cannot be read as a ROS bag",))


# ---- galleries


@_case("gallery of no image")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    remove_from_gallery(gallery, ["0.png", "1.png", "2.png"])
    words = _localize(folder, folder / "street" / "0.png", gallery=gallery)
    return Case(words, ("NoFix empty_gallery: the gallery has no place to compare with",), 0, kept={gallery: 0})


@_case("gallery of one image")
def _(folder: Path) -> Case:
    gallery = _gallery(folder, GOOD[:1])
    words = _localize(folder, folder / "street" / "0.png", gallery=gallery)
    return Case(words, ("street/0.png: ",), 0, kept={gallery: 1})


@_case("gallery absent")
def _(folder: Path) -> Case:
    words = ("gallery", "info", str(folder / "gallery"))
    return Case(words, ("gallery: does not exist, expected a gallery (a folder with gallery.json)",))


@_case("gallery of a newer format")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    manifest = json.loads((gallery / "gallery.json").read_text())
    (gallery / "gallery.json").write_text(json.dumps({**manifest, "format_version": 99}))
    return Case(
        _localize(folder, folder / "street" / "0.png", gallery=gallery), ("format_version is 99", "update it")
    )


@_case("gallery with a file cut off")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    os.truncate(gallery / "segments" / "0001" / "descriptors.npy", 200)
    said = ("descriptors.npy: is truncated: 200 bytes, expected",)
    return Case(_localize(folder, folder / "street" / "0.png", gallery=gallery), said)


@_case("gallery there already")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    words = _build(folder / "street" / "positions.csv", gallery)
    return Case(words, ("has a gallery of 3 images already", "--replace"), kept={gallery: 3})


def _unprivileged() -> tuple[str, ...]:
    """Take away what lets root write everywhere."""
    if os.geteuid():
        return ("env",)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError("setpriv (util-linux) is needed to make a folder that root cannot write")
    return (setpriv, "--bounding-set", "-dac_override,-dac_read_search,-fowner")


@_case("no permission for a new gallery")
def _(folder: Path) -> Case:
    table = _table(folder / "street", GOOD)
    locked = folder / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    said = (f"{locked}/gallery: cannot be written: Permission denied",)
    return Case(_build(table, locked / "gallery"), said, prefix=_unprivileged())


@_case("no permission for the gallery there")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    for path in (gallery, gallery / ".lock"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    words = ("gallery", "remove", str(gallery), "0.png")
    return Case(words, ("cannot be written: Permission denied",), prefix=_unprivileged(), kept={gallery: 3})


def _full() -> tuple[str, ...]:
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        raise RuntimeError("prlimit (util-linux) is needed to limit the size of files")
    return (prlimit, f"--fsize={FIXED_LIMIT}")


@_case("disk full during a build")
def _(folder: Path) -> Case:
    table = _table(folder / "street", GOOD)
    said = (f"{folder}/gallery: cannot be written: File too large", "a second run goes on where this one stopped")
    return Case(_build(table, folder / "gallery"), said, prefix=_full())


@_case("disk full while adding")
def _(folder: Path) -> Case:
    gallery = _gallery(folder, GOOD[:1])
    table = _table(folder / "more", GOOD[1:])
    words = ("gallery", "add", str(gallery), table, "--device", "cpu")
    return Case(
        words, ("cannot be written: ", "nothing that was there is lost"), prefix=_full(), kept={gallery: 1}
    )


# ---- models


@_case("model that is none")
def _(folder: Path) -> Case:
    (folder / "m.safetensors").write_bytes(b"weights?" * 9)
    table = _table(folder / "street", GOOD)
    words = _build(table, folder / "gallery", "--model", str(folder / "m.safetensors"))
    return Case(words, ("m.safetensors: is truncated or no safetensors file",))


# ---- cameras


def _calibration(
    name: str, said: str, model: str = "plumb_bob", d: str = "0.1, 0, 0, 0, 0", focal: str = "60"
) -> None:
    def make(folder: Path) -> Case:
        table = _table(folder / "street", GOOD)
        (folder / "street" / "camera.yaml").write_text(
            f"image_width: 64\nimage_height: 48\ndistortion_model: {model}\n"
            f"distortion_coefficients: {{rows: 1, cols: 5, data: [{d}]}}\n"
            f"camera_matrix: {{rows: 3, cols: 3, data: [{focal}, 0, 31.5, 0, {focal}, 23.5, 0, 0, 1]}}\n"
        )
        return Case(_build(table, folder / "gallery"), ("street/camera.yaml: ", said))

    CASES[name] = make


_calibration("calibration without a focal length", "fx is 0 px, expected a focal length above 0", focal="0")
_calibration("calibration with NaN", "camera_matrix holds nan, expected finite numbers", focal=".nan")
_calibration("calibration of an unknown lens", "distortion model 'plumbob' (did you mean 'plumb_bob'?)", "plumbob")
_calibration(
    "calibration with a coefficient too many",
    "5 distortion coefficients for equidistant",
    "equidistant",
    d="0.1, 0, 0, 0, 0.1",
)


@_case("calibration of another camera")
def _(folder: Path) -> Case:
    gallery = _gallery(folder)
    file = folder / "front.yaml"
    file.write_text(
        "image_width: 64\nimage_height: 36\ncamera_matrix: {data: [60, 0, 31.5, 0, 60, 17.5, 0, 0, 1]}\n"
    )
    words = (*_localize(folder, folder / "street" / "0.png", gallery=gallery), "--camera", str(file))
    return Case(words, ("front.yaml: is of images of 64×36 px, the image has ", "another aspect ratio"))


@_case("calibration that is a parameter file")
def _(folder: Path) -> Case:
    table, file = _table(folder / "street", GOOD), folder / "front.yaml"
    file.write_text("/**:\n  ros__parameters: {image_width: 640}\n")
    words = _build(table, folder / "gallery", "--camera", str(file))
    return Case(words, ("front.yaml: no 'image_width', expected a ROS calibration file",))


# ---- settings


def _parameters(name: str, text: str, said: tuple[str, ...]) -> None:
    def make(folder: Path) -> Case:
        (folder / "node.yaml").write_text(text)
        (folder / "g").mkdir()
        (folder / "g" / "gallery.json").write_text("{}")
        (folder / "0.png").touch()
        given = ("localize", folder / "0.png", "--gallery", folder / "g", "--params-file", folder / "node.yaml")
        return Case(tuple(map(str, given)), said)

    CASES[name] = make


_parameters(
    "parameter file with an unknown name",
    "/**:\n  ros__parameters:\n    rerank:\n      metod: none\n",
    ("unknown parameter 'rerank.metod' (did you mean 'rerank.method'?)",),
)
_parameters(
    "parameter file with a value out of range",
    "/**:\n  ros__parameters:\n    rerank.candidates: 0\n",
    ("rerank.candidates = 0: input should be greater than or equal to 1",),
)
_parameters(
    "parameter file of two nodes",
    "a:\n  ros__parameters: {}\nb:\n  ros__parameters: {}\n",
    ("node.yaml: is no parameter file of one node, expected NODE: ros__parameters",),
)
_parameters("parameter file that is no YAML", "/**: [", ("node.yaml: is not YAML: ",))
_parameters(
    "parameter file that needs the images before",
    "/**:\n  ros__parameters:\n    tracking:\n      method: hmm\n",
    ("tracking.method = 'hmm': localize answers each image on its own", "'geowarp evaluate bag' honours it"),
)
