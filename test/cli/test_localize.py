"""geowarp localize: the camera of each image, and images that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import geowarp_ros.localizer
from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Answer, Candidate, Frame, Header, NoFix, Place

pytestmark = pytest.mark.usefixtures("g")


class Noting:
    """Notes the frames that it is asked about."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.candidates: tuple[Candidate, ...] = ()

    def localize(self, frame: Frame) -> Answer:
        self.frames.append(frame)
        return Answer(Header(), NoFix("low_confidence"), self.candidates)


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
    Path("g/calibration.json").write_text("{}")
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
