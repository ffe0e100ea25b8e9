"""geowarp localize: the camera of each image, images that cannot be used, and what is written beside the lines."""

from __future__ import annotations

import json
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import geowarp_ros.localizer
from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.integrity.calibration import Calibration
from geowarp_ros.pictures import FIGURE_PX
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Answer, Candidate, Fix, Frame, Header, NoFix, Pair, Place
from test.evaluation.test_answers import gallery

pytestmark = pytest.mark.usefixtures("g")


class Noting:
    """Notes the frames that it is asked about."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.candidates: tuple[Candidate, ...] = ()
        self.results: list[Fix | NoFix] = []
        self.gallery = gallery()
        self.calibration: Calibration | None = None

    def localize(self, frame: Frame) -> Answer:
        self.frames.append(frame)
        result = self.results[len(self.frames) - 1] if self.results else NoFix("low_confidence")
        image, none = np.full((48, 64, 3), 200, np.uint8), np.empty((0, 2))
        pair = (lambda: Pair(image, image, none, none)) if self.candidates else None
        return Answer(Header(), result, self.candidates, pair=pair)


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Noting:
    stand_in = Noting()
    monkeypatch.setattr(geowarp_ros.localizer.Localizer, "open", lambda *_: stand_in)
    return stand_in


@pytest.fixture
def street(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        Pillow.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / name / "image.png")
    (tmp_path / "positions.csv").touch()
    write_camera(tmp_path / "camera.yaml", Camera(640, 480, 500, 500, 319.5, 239.5))
    write_camera(tmp_path / "b" / "camera.yaml", Camera(640, 360, 500, 500, 319.5, 179.5))
    write_camera(tmp_path / "given.yaml", Camera(64, 48, 70, 70, 31.5, 23.5))
    return tmp_path


def test_each_image_has_the_camera_of_its_folder_and_one_of_another_is_named(
    street: Path, noting: Noting, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(street / name / "image.png") for name in "abc"]
    assert main(["localize", *images, "--gallery", "g"]) == 1
    said = capsys.readouterr()
    assert said.out.count("NoFix") == 2
    assert f"{street}/b/camera.yaml: is of images of 640×360 px, the image has 64×48" in said.err
    assert [frame.camera and frame.camera.fx for frame in noting.frames] == [50.0, 50.0]


def test_one_file_for_all(street: Path, noting: Noting, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(street / name / "image.png") for name in "abc"]
    assert main(["localize", *images, "--gallery", "g", "--camera", str(street / "given.yaml")]) == 0
    assert [frame.camera and frame.camera.fx for frame in noting.frames] == [70.0] * 3
    assert main(["localize", *images, "--gallery", "g", "--camera", str(street / "absent.yaml")]) == 1
    assert "absent.yaml: cannot be read" in capsys.readouterr().err


def test_guesses_without_a_fix_lead_to_the_calibration_unless_the_gallery_has_one(
    street: Path, noting: Noting, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["localize", str(street / "a"), str(street / "c"), "--gallery", "g"]
    assert main(words) == 0
    assert "calibrate" not in capsys.readouterr().err, "there is nothing to trust"
    noting.candidates = (Candidate(0, Place("a.png", 48.0, 11.0), 0.1),)
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.count("; best guess a.png, 48.00000, 11.00000") == 2
    assert "2 of 2 images have a best guess and no fix" in said.err
    assert "geowarp calibrate DRIVE --gallery g" in said.err
    drive = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=3.0, scatter_gain=1.0, correct_within_m=25.0,
    )  # fmt: skip
    noting.calibration = drive.model_copy(update={"title": "the model's calibration"})
    assert main(words) == 0
    assert "geowarp calibrate DRIVE --gallery g" in capsys.readouterr().err
    noting.calibration = drive
    assert main(words) == 0
    assert "calibrate" not in capsys.readouterr().err


def test_a_folder_is_all_the_images_in_it_and_a_wrong_one_is_said_before_the_model(
    street: Path, noting: Noting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--gallery", "g", "--camera", str(street / "given.yaml")]
    assert main(["localize", str(street), *given]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        str(street / name / "image.png") for name in "abc"
    ]
    assert main(["localize", str(street / "[ac]" / "*.png"), str(street / "absent.png"), *given]) == 1
    said = capsys.readouterr()
    assert said.out.count("NoFix") == 2 and len(noting.frames) == 5
    assert "absent.png: cannot be read: No such file or directory" in said.err
    monkeypatch.setattr(geowarp_ros.localizer.Localizer, "open", lambda *_: pytest.fail("opened"))
    (street / "empty").mkdir()
    for wrong in ("empty", "*.gif", "absent.png"):
        assert main(["localize", str(street / wrong), *given]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"geowarp localize: {street / wrong}: ") and error.count("\n") == 1


# ---- pictures, GeoJSON, a page

FIX = Fix(45.00001, 9.00001, 0.0, np.diag([4.0, 1.0, 9.0]), 0.98)
BEST = (Candidate(0, Place("places/a.png", 45.0, 9.0), 0.1),)


def test_one_image_has_one_figure_and_several_have_a_folder(
    street: Path, noting: Noting, capsys: pytest.CaptureFixture[str]
) -> None:
    noting.candidates, noting.results = BEST, [FIX, NoFix("low_confidence")] * 2
    given = ["--gallery", "g", "--camera", str(street / "given.yaml")]
    one, other = str(street / "a" / "image.png"), str(street / "b" / "other.png")
    (street / "b" / "image.png").rename(other)
    assert main(["localize", one, *given, "--figure", "out.png"]) == 0
    with Pillow.open("out.png") as picture:
        assert (picture.format, picture.width) == ("PNG", FIGURE_PX)
    assert main(["localize", one, other, *given, "--figure", "new/figures"]) == 0
    assert sorted(path.name for path in Path("new/figures").iterdir()) == ["image.jpg", "other.jpg"]
    with Pillow.open("new/figures/other.jpg") as picture:
        assert picture.width == FIGURE_PX
    assert main(["localize", one, *given, "--figure", "new"]) == 0  # a folder that is there
    assert Path("new/image.jpg").is_file()
    assert capsys.readouterr().out.count("Fix") == 4, "what is printed stays as it is"


def test_clashes_are_named_before_the_model_is_loaded(
    street: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(geowarp_ros.localizer.Localizer, "open", lambda *_: pytest.fail("opened"))
    a, b = (street / name / "image.png" for name in "ab")
    (street / "b" / "x.jpg").write_bytes(b.read_bytes())
    for words, said in (
        ([a, b, "--figure", "out.png"], "--figure out.png: is one picture, expected a folder for those of 2"),
        ([a, b, "--figure", "out"], f"--figure out: {a} and {b} would both be image.jpg"),
        ([a, "--figure", a], f"{a}: would overwrite an image"),
        ([street / "b" / "x.jpg", "--figure", street / "b"], f"{street}/b/x.jpg: would overwrite an image"),
        ([a, "--html", "x", "--geojson", "./x"], "x: would overwrite an image or another output"),
        ([a, "--figure", "out.gif"], "out.gif: cannot be written: expected a name that ends in .png"),
        ([a, "--figure", "absent/out.png"], "absent/out.png: cannot be written: No such file"),
        ([a, "--geojson", "absent/x"], "absent/x: cannot be written: No such file"),
        ([a, "--html", "."], ".: cannot be written: Is a directory"),
    ):  # fmt: skip
        assert main(["localize", *map(str, words), "--gallery", "g"]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_geojson_and_page_have_every_image_and_the_json_lines_are_the_same(
    street: Path, noting: Noting, capsys: pytest.CaptureFixture[str]
) -> None:
    (street / "d").mkdir()
    (street / "d" / "broken.png").write_bytes(b"no image")
    words = ["localize", *(str(street / name) for name in "acd"), "--gallery", "g", "--json"]
    noting.candidates, noting.results = BEST, [FIX, NoFix("low_confidence")] * 2
    assert main(words) == 1
    before = capsys.readouterr().out
    assert main([*words, "--geojson", "x.geojson", "--html", "x.html"]) == 1
    assert capsys.readouterr().out == before
    found = json.loads(Path("x.geojson").read_text())["features"]
    assert [each["properties"]["kind"] for each in found] == ["fix", "ellipse", "no_fix"]
    assert found[0]["geometry"]["coordinates"] == [9.00001, 45.00001]
    assert found[0]["properties"]["image"] == str(street / "a" / "image.png")
    page = Path("x.html").read_text()
    assert "2 images in town" in page and "broken.png: is no image that can be decoded" in page


def test_a_fix_is_green_and_none_amber_on_a_terminal_and_neither_in_a_pipe(
    street: Path, noting: Noting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    noting.results = [FIX, NoFix("low_confidence")] * 3
    words = ["localize", str(street / "a"), str(street / "c"), "--gallery", "g"]
    assert main(words) == 0
    assert "\x1b" not in capsys.readouterr().out
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(words) == 0
        assert main([*words, "--json"]) == 0
    data = b""
    with suppress(OSError):  # Linux's end of a terminal that nobody holds any more
        while read := os.read(master, 100_000):
            data += read
    os.close(master)
    shown = data.decode().split("\r\n")
    assert shown[0] == f"{street}/a/image.png: \x1b[32m{Answer(Header(), FIX)!r}\x1b[0m"
    assert shown[1] == f"{street}/c/image.png: \x1b[33m{Answer(Header(), NoFix('low_confidence'))!r}\x1b[0m"
    assert [json.loads(line)["status"] for line in shown[2:4]] == ["fix", "no_fix"], "no colours in JSON"
