"""geowarp gallery align, and what build, add, upgrade and info say of it. The geometry is tested elsewhere."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.gallery.alignment.aligning import Suspect
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.making import align as making
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import read_image
from geowarp_ros.readers.camera_files import write_camera
from test.gallery.alignment.fakes import FakeAlign
from test.rerank.conftest import textured

DEFAULTS = AlignOptions()
Said = pytest.CaptureFixture[str]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAlign:
    fake = FakeAlign([Suspect(row, 30.0 - row) for row in range(1, 9)])
    monkeypatch.setattr(making, "align", fake)
    monkeypatch.setattr(making, "_extended", lambda *_: None)  # nothing holds of what it made up
    return fake


def photographs(folder: Path, count: int, first: int = 0, camera: bool = True) -> Path:
    folder.mkdir()
    if camera:
        write_camera(folder / "camera.yaml", Camera(96, 72, 80.0, 80.0, 47.5, 35.5))
    with (folder / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "latitude", "longitude"])
        for index in range(first, first + count):
            cv2.imwrite(str(folder / f"{index}.png"), textured(index, 72, 96)[..., ::-1])
            rows.writerow([f"{index}.png", 45 + index * 1e-4, 9])
    return folder


def geowarp(*words: object) -> int:
    return main(["gallery", *(str(word) for word in words)])


def build(source: Path, model: str, gallery: Path, *more: object, keypoints: bool = True) -> int:
    words = ("build", source, "--model", model, "--device", "cpu", "--output", gallery)
    return geowarp(*words, *(() if keypoints else ("--no-keypoints",)), *more)


def tied(words: str, said: str) -> bool:
    """Whether the alignment says so, with the time that it took."""
    return re.search(rf": {re.escape(words)}, in \d+\.\d s\n", said) is not None


def test_the_life_of_an_alignment(
    model: str, tmp_path: Path, fake: FakeAlign, terminal: None, capsys: Said
) -> None:
    gallery = tmp_path / "g"
    assert build(photographs(tmp_path / "s", 4), model, gallery, "--position-std", 3, "--free-tilt") == 0
    assert fake.options == [AlignOptions(position_std_m=3, free_tilt=True)]
    said = capsys.readouterr()
    assert tied("3 of 4 photographs tied", said.out)
    assert "\n  1.25 m off their tags in the median; standard deviation of the tags 1.50 m per axis\n" in said.out
    assert "\n  3 suspicious tags, off 1.png by 29.0 m, 2.png by 28.0 m, 3.png by 27.0 m\n" in said.out
    assert "\n  3 headings found that the tags lack; 9 points, off by 0.50 px in the median\n" in said.out
    assert "\n  a moving car in 2 photographs\n" in said.out
    assert "comparing photographs in pairs: 100%" in said.err
    picture = gallery / "alignment/0001/alignment.png"
    assert f"\n  picture: {picture}\n" in said.out
    assert read_image(picture).shape[1] == 1200

    assert geowarp("info", gallery) == 0
    line = "alignment   3 of 4 photographs tied, 1.25 m off their tags in the median, 3 suspicious tags, 9 points"
    assert f"{line}\n" in capsys.readouterr().out

    add = ("add", gallery, "--model", model, "--device", "cpu")
    assert geowarp(*add, photographs(tmp_path / "more", 5, 10), "--no-align") == 0
    assert "tied" not in capsys.readouterr().out and len(fake.options) == 1
    assert geowarp("info", gallery) == 0
    later = f"{line}; 5 added later are not aligned yet: 'geowarp gallery align {gallery}'\n"
    assert later in capsys.readouterr().out
    assert geowarp("info", gallery, "--json") == 0
    found = json.loads(capsys.readouterr().out)["alignment"]
    assert (found["tied"], found["later"], found["options"]["free_tilt"]) == (3, 5, True)
    assert found["suspicious"][0] == {"name": "1.png", "off_m": 29.0} and found["created"]

    assert geowarp(*add, photographs(tmp_path / "yet", 1, 20)) == 0
    assert fake.options[1] == fake.options[0], "as it was aligned before"
    out = capsys.readouterr().out
    assert "9 of 10 photographs tied" in out and "; 5 added" not in out
    assert "8 suspicious tags, off 1.png by 29.0 m, " in out and " by 25.0 m and 3 more\n" in out
    assert not picture.exists() and (gallery / "alignment/0002/alignment.png").exists()

    words = ("--position-std", 1.5, "--heading-std", 5, "--neighbours", 9, "--picture", tmp_path / "map.png")
    assert geowarp("align", gallery, *words) == 0
    assert fake.options[2] == AlignOptions(position_std_m=1.5, heading_std_deg=5, neighbours=9)
    assert f"picture: {tmp_path / 'map.png'}\n" in capsys.readouterr().out
    assert read_image(tmp_path / "map.png").shape[1] == 1200
    assert geowarp("align", gallery) == 0 and fake.options[3] == DEFAULTS
    assert geowarp("verify", gallery) == 0


def test_anew_aligns_all(
    model: str, tmp_path: Path, fake: FakeAlign, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    gallery = tmp_path / "g"
    assert build(photographs(tmp_path / "s", 4), model, gallery) == 0
    alignment, report = fake.alignment, replace(fake.report, lines=("2 new photographs aligned",))
    monkeypatch.setattr(making, "_extended", lambda *_: (alignment, report))
    assert geowarp("align", gallery) == 0
    assert len(fake.options) == 1 and "\n  2 new photographs aligned\n" in capsys.readouterr().out
    assert geowarp("align", gallery, "--anew") == 0
    assert len(fake.options) == 2 and "2 new" not in capsys.readouterr().out
    assert geowarp("remove", gallery, "2.png") == 0
    said = f"  the others keep their poses; 'geowarp gallery align {gallery}' adjusts their groups\n"
    assert said in capsys.readouterr().out


def test_groups_and_nothing_tied(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
    fake: FakeAlign,
) -> None:
    gallery = tmp_path / "g"
    assert build(photographs(tmp_path / "s", 6), model, gallery, "--no-align") == 0
    out = capsys.readouterr().out
    assert "align" not in out and Gallery.open(gallery).manifest.alignment is None
    assert geowarp("info", gallery) == 0
    assert f"alignment   none; 'geowarp gallery align {gallery}' makes one\n" in capsys.readouterr().out
    assert geowarp("info", gallery, "--json") == 0
    assert json.loads(capsys.readouterr().out)["alignment"] is None

    def grouped(*args: object) -> object:
        alignment, report = fake(*args)  # type: ignore[arg-type]
        return alignment, replace(report, components=(3, 2))

    monkeypatch.setattr(making, "align", grouped)
    assert geowarp("align", gallery) == 0
    assert tied("5 of 6 photographs tied in 2 groups (3, 2)", capsys.readouterr().out)

    def nothing(*args: object) -> object:
        alignment, report = fake(*args)  # type: ignore[arg-type]
        nan = float("nan")
        found = replace(report, tied=0, components=(), residual_m=nan, tag_std_m=nan, suspects=(), points=0)
        return replace(alignment, tied=np.zeros(6, bool)), replace(found, reprojection_px=nan)

    monkeypatch.setattr(making, "align", nothing)
    assert geowarp("align", gallery) == 0
    out = capsys.readouterr().out
    assert tied("0 of 6 photographs tied", out) and "\n  nothing ties its photographs: they stay tags\n" in out
    assert geowarp("info", gallery) == 0
    assert "alignment   0 of 6 photographs tied, 0 suspicious tags, 0 points\n" in capsys.readouterr().out


def test_what_stands_in_the_way_and_the_command_that_helps(
    model: str, tmp_path: Path, fake: FakeAlign, capsys: Said
) -> None:
    bare, gallery = photographs(tmp_path / "bare", 4, camera=False), tmp_path / "g"
    assert build(bare, model, gallery, keypoints=False) == 0
    why = f"it stores no keypoints; 'geowarp gallery upgrade {gallery}' makes them"
    assert f"  not aligned: {why}\n" in capsys.readouterr().out
    assert geowarp("align", gallery) == 1
    assert capsys.readouterr().err == f"geowarp gallery: {gallery}: cannot be aligned: {why}\n"

    assert geowarp("upgrade", gallery) == 0
    assert f"'geowarp gallery align {gallery}' finds where" in capsys.readouterr().out
    assert geowarp("align", gallery) == 0
    said = "focal length of 4 photographs of 96×72 px not determined by 0 pairs: give --camera (geowarp gallery"
    assert said in capsys.readouterr().out
    write_camera(tmp_path / "camera.yaml", Camera(96, 72, 80.0, 80.0, 47.5, 35.5))
    assert geowarp("upgrade", gallery, "--camera", tmp_path / "camera.yaml") == 0
    assert geowarp("align", gallery) == 0
    capsys.readouterr()

    few = tmp_path / "few"
    assert build(photographs(tmp_path / "two", 2), model, few) == 0
    assert "  not aligned: it has 2 photographs, 3 are needed; 'geowarp gallery add'" in capsys.readouterr().out
    add = ("add", few, photographs(tmp_path / "third", 1, 7), "--model", model, "--device", "cpu")
    assert geowarp(*add) == 0
    assert "align" not in capsys.readouterr().out, "a gallery that was not aligned is not by adding"


def test_without_poselib(
    model: str,
    tmp_path: Path,
    fake: FakeAlign,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    monkeypatch.setitem(sys.modules, "poselib", None)
    gallery = tmp_path / "g"
    assert build(photographs(tmp_path / "s", 3), model, gallery) == 0
    said = (
        "  not aligned: needs poselib, not installed: pip install 'geowarp_ros[map]'; then 'geowarp gallery align"
    )
    assert f"{said} {gallery}'\n" in capsys.readouterr().out
    assert geowarp("align", gallery) == 1
    error = capsys.readouterr().err
    assert error == "geowarp gallery: needs poselib, which is not installed: pip install 'geowarp_ros[map]'\n"
    assert fake.options == [] and geowarp("info", gallery) == 0


@pytest.mark.parametrize("words", [("--position-std", -1), ("--heading-std", 0), ("--neighbours", 0)])
def test_values_out_of_range(words: tuple[str, int], tmp_path: Path, g: None, capsys: Said) -> None:
    assert geowarp("align", "g", *words) == 1
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and words[0][2:].replace("-", "_") in error and "input should be greater" in error
    )
    assert geowarp("align", tmp_path / "absent") == 1
    assert "absent: does not exist, expected a gallery" in capsys.readouterr().err


def test_processes_that_build_together_leave_it_to_be_aligned(
    model: str,
    tmp_path: Path,
    fake: FakeAlign,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    source = photographs(tmp_path / "s", 4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert build(source, model, tmp_path / "g", "--batch-size", 2) == 0
    assert f"not aligned, for several processes built it: 'geowarp gallery align {tmp_path / 'g'}' does" in (
        capsys.readouterr().out
    )
    assert fake.options == []
