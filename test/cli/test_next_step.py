"""What every verb ends with: a command that can be run as it stands."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.cli import main
from geowarp_ros.cli.next_step import STEPS, command_line, find_drive, find_photographs, print_next_step
from geowarp_ros.evaluation.judging import figures
from geowarp_ros.evaluation.words import ON_A_DRIVE
from test.cli.walking import complete, every_parser
from test.evaluation import runs
from test.gallery import bags


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder, with a gallery in it, and what a training leaves behind; ``geowarp`` is on the PATH."""
    folder = tmp_path / "my trip"
    (folder / "made").mkdir(parents=True)
    for name in ("gallery.json", "best.safetensors", "file", "gallery-1-4/gallery.json"):
        (folder / "made" / name).parent.mkdir(exist_ok=True)
        (folder / "made" / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "geowarp").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.chdir(folder)
    return folder


def said_after(verb: str, capsys: pytest.CaptureFixture[str], **args: object) -> str:
    print_next_step(verb, argparse.Namespace(**args))
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_what_a_verb_ends_with_is_a_command_that_can_be_run(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each printed command is taken by the parser of its verb, which checks that what it reads is there."""
    monkeypatch.setattr("geowarp_ros.cli.next_step._upgraded", lambda args: ["gallery", "align", args.gallery])
    (here / "a photo.jpg").touch()
    (here / "IMG photos").mkdir()
    (here / "IMG photos" / "positions.csv").touch()
    parsers = {tuple(words): parser for words, parser in every_parser()}
    steps = dict.fromkeys(STEPS, "")
    for words, parser in parsers.items():
        key = "_".join(words).replace("-", "_")
        if (key not in steps and words[0] != "gallery") or key == "gallery_upgrade":
            continue
        args = parser.parse_args(complete(parser, {}, here / "made", here / "a photo.jpg"))
        verb = {"action": words[1]} if words[0] == "gallery" else {}
        line = said_after("gallery" if verb else key, capsys, **vars(args), **verb)
        steps[key] = line
        if key == "view":  # nothing was looked at
            continue
        program, *command = shlex.split(line.removeprefix("next: "))
        assert (line[:6], program, line.count("\n")) == ("next: ", "geowarp", 1), key
        count = 2 if tuple(command[:2]) in parsers else 1
        parsers[tuple(command[:count])].parse_args(command[count:])
    assert all(line for key, line in steps.items() if key not in ("view", "gallery_upgrade"))
    made = shlex.quote(str(here / "made"))
    assert steps["evaluate_bag"] == f"next: geowarp view {made}\n"
    assert steps["train_finish"].startswith("next: geowarp gallery build 'IMG photos' --model ")
    held = said_after(
        "train_retrieval", capsys, source=[Path("IMG photos")], output=Path("made"), hold_out=["0.2"]
    )
    assert held.endswith(" --output runs/warp --hold-out 0.2\n"), "without splits it has to be said again"
    for source, step in (("IMG photos", "gallery build 'IMG photos' --model"), ("r.yaml", "train finish r.yaml")):
        taught = {"source": [Path(source)], "data": Path(), "output": Path("made")}
        assert said_after("train_distill", capsys, **taught).startswith(f"next: geowarp {step} ")
    assert steps["world"] == f"next: geowarp gallery build {made} --split gallery --output gallery\n"


def test_results_are_left_to_programs(
    tmp_path: Path, model: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), rng.integers(0, 256, (64, 80, 3), np.uint8))
    (tmp_path / "positions.csv").write_text("filename,latitude,longitude\na.png,45,9\nb.png,45.001,9\n")
    build = ["gallery", "build", str(tmp_path), "--model", model, "--device", "cpu", "--output", "the gallery"]
    assert main(build) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "next: geowarp view 'the gallery'"
    assert main(build) == 1  # it is there already
    assert "next: " not in capsys.readouterr().err
    assert main(["gallery", "info", "the gallery", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["images"] == 2 and captured.err == ""
    assert main(["gallery", "list", "the gallery"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2 and captured.err == "next: geowarp view 'the gallery'\n"
    upgrade = said_after("gallery", capsys, action="upgrade", gallery=Path("the gallery"))
    assert upgrade == "next: geowarp gallery align 'the gallery'\n"
    os.environ["RANK"] = "1"  # another process of torchrun says it
    try:
        assert said_after("evaluate_bag", capsys, output=Path("x")) == ""
    finally:
        del os.environ["RANK"]


def test_several_processes_leave_the_alignment_to_one(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    source = here / "IMG"
    assert said_after("gallery", capsys, action="build", output=here / "absent", source=source) == ""
    step = said_after("gallery", capsys, action="build", output=Path("made"), source=source)
    assert step == "next: geowarp gallery align made\n"
    monkeypatch.setenv("WORLD_SIZE", "1")
    step = said_after("gallery", capsys, action="build", output=Path("made"), source=source)
    assert step == "next: geowarp view made\n"


def test_a_drive_that_lies_here_is_replayed_with_the_topics_that_it_takes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own path, quoted; broken bags, bags without images and the source itself are none."""
    (here / "a broken one.mcap").write_bytes(b"x")
    bags.write_bag(here / "b fixes alone", [bags.fix(0.0, 45.0), bags.fix(1.0, 45.0)])
    look = "next: geowarp view gallery\n"
    assert said_after("localize", capsys, gallery=Path("gallery")) == look
    bags.write_bag(here / "c the drive", bags.drive(4))
    run = "--gallery gallery --output 'runs/c the drive'"
    assert said_after("localize", capsys, gallery=Path("gallery")) == (
        f"next: geowarp evaluate bag 'c the drive' {run}\n"
    )
    drive, replay = here / "c the drive", here / "runs" / "c the drive"
    (here / "gallery").mkdir()
    (here / "gallery" / "gallery.json").touch()
    replay.mkdir(parents=True)
    (replay / "results.json").touch()
    options = {"drive": drive.name, "gallery": "gallery"}
    (replay / "run.json").write_text(json.dumps({"options": options}))
    os.utime(here / "gallery" / "gallery.json", (1, 1))
    assert said_after("localize", capsys, gallery=Path("gallery")) == "next: geowarp view 'runs/c the drive'\n"
    (here / "gallery" / "calibration.json").touch()
    os.utime(replay / "results.json", (2, 2))  # it was calibrated since
    assert f"evaluate bag 'c the drive' {run}\n" in said_after("localize", capsys, gallery=Path("gallery"))
    (here / "gallery" / "calibration.json").unlink()
    (replay / "run.json").write_text(json.dumps({"options": {**options, "gallery": "another"}}))
    assert f"evaluate bag 'c the drive' {run}\n" in said_after("localize", capsys, gallery=Path("gallery"))
    shutil.rmtree(here / "gallery")
    # a calibration over the only drive is not judged by it
    assert said_after("calibrate", capsys, gallery=Path("gallery"), source=Path("c the drive")) == look
    found = find_drive([here])
    assert found == (here / "c the drive", [])
    bags.write_bag(here / "b two cameras", [*bags.drive(4), bags.image(0.5, 0, "/second")])
    assert find_drive([here]) == (here / "b two cameras", ["--image-topic", "/camera"])
    assert find_drive([here / "absent"]) is None


def test_doctor_finds_the_photographs_or_the_gallery(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "made" / "gallery.json").unlink()
    (here / "pictures").mkdir()
    for number in range(9):
        (here / "pictures" / f"{number}.jpg").write_bytes(b"without a position")
    assert find_photographs(here) is None
    assert (
        said_after("doctor", capsys, gallery=None) == "next: geowarp gallery build PHOTOGRAPHS --output gallery\n"
    )
    (here / "my phone" / "Camera").mkdir(parents=True)
    (here / "my phone" / "Camera" / "@500000@4982950@32@T@@@.jpg").touch()
    build = "next: geowarp gallery build 'my phone' --output gallery\n"
    assert said_after("doctor", capsys, gallery=None) == build
    (here / "my phone" / "gallery").mkdir()
    for made in (
        "gallery/gallery.json",
        "Camera/positions.csv",
    ):  # which a build of the folder would not read as one
        (here / "my phone" / made).touch()
        assert find_photographs(here) is None
        (here / "my phone" / made).unlink()
    (here / "street view").mkdir()
    (here / "street view" / "@500000@4982950@32@T@@@.jpg").touch()
    (here / "gallery").mkdir()  # something else
    assert said_after("doctor", capsys, gallery=None) == (
        "next: geowarp gallery build 'street view' --output gallery-2\n"
    )
    (here / "gallery" / "gallery.json").touch()
    assert said_after("doctor", capsys, gallery=None) == "next: geowarp view gallery\n"


def test_after_a_look_at_a_drive_comes_the_calibration_that_it_lacks(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = here / "runs" / "x"
    run.mkdir(parents=True)
    (here / "drive").mkdir()
    (run / "run.json").write_text(json.dumps({"options": {"drive": "drive", "gallery": "made"}}))
    for calibration, said in (
        ("", "next: geowarp calibrate drive --gallery made\n"),
        ("the calibration beside the model", "next: geowarp calibrate drive --gallery made\n"),
        (ON_A_DRIVE, ""),
    ):
        found = figures(runs.run([1.0] * 5, (0, 1), calibration=calibration))
        (run / "results.json").write_text(json.dumps(found))
        assert said_after("view", capsys, what=run) == said
    (run / "results.json").write_text(json.dumps(figures(runs.run([1.0] * 5, ()))))  # all are fixes, and right
    assert said_after("view", capsys, what=run) == ""
    (run / "results.json").write_text(json.dumps(figures(runs.run([1.0] * 5, (0, 1)))))
    (run / "run.json").write_text("{}")
    assert said_after("view", capsys, what=run) == ""
    assert said_after("view", capsys, what=here / "made") == ""  # a look follows a look nowhere
    assert said_after("view", capsys, what=None) == ""


def test_a_command_is_what_a_shell_reads(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = command_line(["view", Path("-gallery"), "--host", "a b"])
    assert shlex.split(command) == ["geowarp", "view", "./-gallery", "--host", "a b"]
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["/a clone/.venv/bin/geowarp", "view"])
    assert command_line(["view"]) == "'/a clone/.venv/bin/geowarp' view"
    monkeypatch.setattr(sys, "argv", ["/x/__main__.py"])
    assert command_line(["view"]) == f"{shlex.quote(sys.executable)} -m geowarp_ros.cli view"
