"""What a shell expects of every verb: paths, help, misspelt words, wrong paths at once, and standard output."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

import geowarp_ros.cli
from geowarp_ros.cli import VERBS, main
from geowarp_ros.cli.evaluate import EVALUATIONS
from geowarp_ros.cli.parser import Existing, NewPicture, Parser, image_files
from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.verbs.train import TRAININGS
from test.cli.walking import complete, every_parser, is_path

PARSERS = list(every_parser())
NAMES = [" ".join(words) for words, _ in PARSERS]

TEXTS = {
    "split", "gallery_split", "query_split", "queries", "hold_out", "prefix", "names",
    "image_topic", "fix_topic", "truth_topic", "prior_topic", "odometry_topic", "imu_topic", "to", "also",
    "utm_zone", "every", "every_picture", "set", "kinds", "sizes", "size", "methods", "encoders", "rerank",
    "method", "device", "runtime", "node", "host", "tile_url", "name",
}  # fmt: skip
"""Arguments that take a text which is no path."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a folder that is taken for a gallery, and a file; the process is elsewhere."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "gallery.json").touch()
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


# ---- paths


def test_every_verb_is_walked() -> None:
    assert {words[0] for words, _ in PARSERS} == set(VERBS)
    assert {words[1] for words, _ in PARSERS if words[0] == "evaluate"} == set(EVALUATIONS)
    assert {words[1] for words, _ in PARSERS if words[0] == "train"} == set(TRAININGS)
    assert ["gallery", "build"] in [words for words, _ in PARSERS]


@pytest.mark.parametrize(("words", "parser"), PARSERS, ids=NAMES)
def test_every_path_may_begin_with_the_home(words: list[str], parser: Parser, home: Path) -> None:
    for action in parser._actions:
        if not is_path(action):
            generated = action.metavar in ("INT", "FLOAT", "STR")  # of a section, whose fields are no paths
            text = action.type in (None, str) and not action.choices and action.nargs != 0 and not generated
            assert not text or action.dest in TEXTS or words[-1] == "ablation", f"{action.dest} is no path?"
            continue
        assert action.type is not Path or action.dest in ("output", "keep", "images"), (
            f"{action.dest} is not read?"
        )
        name = "file" if isinstance(action.type, Existing) and action.type.file else "folder"
        weights = ("keypoint_weights", "matcher_weights")
        name = "file" if action.dest in ("model", "models", "init", "warp", *weights) else name
        name = "picture.png" if isinstance(action.type, NewPicture) else name
        for path in (f"~/{name}", f"$HOME/{name}", f"${{HOME}}/{name}"):
            line = complete(parser, {action.dest: path}, home / "folder", home / "file")
            found = getattr(parser.parse_args(line), action.dest)
            assert str(found[0] if isinstance(found, list) else found) == str(home / name), action.dest


def test_a_parameters_model_may_begin_with_the_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "elsewhere" / "a.png").touch()
    (home / "node.yaml").write_text("n: {ros__parameters: {model: ~/absent}}")
    for more in (["--set", "model=~/absent"], ["--params-file=~/node.yaml"], ["--model=~/absent"]):
        assert main(["localize", "a.png", "--gallery=~/folder", *more]) == 1
        assert capsys.readouterr().err == (
            f"geowarp localize: {home}/absent: does not exist, expected a model file\n"
        )


IMPORTS_NOTHING_HEAVY = """
import sys
from pathlib import Path
from typing import IO
from geowarp_ros.cli import main
from geowarp_ros.cli.parser import Existing, NewFolder
from test.cli.walking import complete, every_parser
folder, file = Path("folder").resolve(), Path("file").resolve()
for words, parser in every_parser():
    for action in parser._actions:
        if isinstance(action.type, Existing):
            print(*words, action.dest, flush=True)
            wrong = file / "x" if isinstance(action.type, NewFolder) else "nowhere/x"  # it could be made there
            line = [*words, *complete(parser, {action.dest: str(wrong)}, folder, file)]
            assert main(line) == 1, line
assert main(["localize", "nowhere/x", "--gallery", "folder"]) == 1
heavy = {"torch", "scipy", "sklearn", "matplotlib", "plotly", "kornia", "onnxruntime", "rclpy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_wrong_path_is_one_line_before_anything_heavy_is_imported(home: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_NOTHING_HEAVY], cwd=home, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, said = done.stdout.splitlines(), done.stderr.splitlines()
    assert len(asked) > 40 and len(said) == len(asked) + 1
    for verb, line in zip([*asked, "localize images"], said, strict=True):
        assert re.match(
            rf"geowarp {verb.split()[0]}: (nowhere|{home}/file)/x: (does not exist|cannot be read: No such file|"
            "cannot be written: (No such file|Not a directory))",
            line,
        )


def test_a_gallery_says_what_it_holds_without_torch(model: str, tmp_path: Path) -> None:
    script = "import sys; from geowarp_ros.cli import main; status = main(sys.argv[1:]);"
    script += "assert not {'torch', 'scipy', 'sklearn'} & set(sys.modules); sys.exit(status)"
    gallery = small_gallery(tmp_path, model)
    for words, status in (
        (["gallery", "info", gallery, "--json"], 0),
        (["gallery", "list", gallery], 0),
        (["gallery", "build", tmp_path, "--output", gallery], 1),  # which would replace it
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    assert "has a gallery of 2 images already" in done.stderr


def small_gallery(folder: Path, model: str) -> Path:
    """Two photographs."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for name in "ab":
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (64, 80, 3), np.uint8))
    (folder / "positions.csv").write_text("filename,latitude,longitude\na.png,45,9\nb.png,45.001,9\n")
    words = ["build", str(folder), "--model", model, "--device", "cpu", "--output", str(folder / "g")]
    assert main(["gallery", *words]) == 0
    return folder / "g"


def test_an_empty_path_and_no_number_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--camera", ""], "an empty path, expected a ROS calibration file"),
        (["--fix-offset", "nan"], "nan: expected a finite number"),
        (["--track-offset=-inf"], "-inf: expected a finite number"),
        (["--batch-size", "many"], "'many'"),
    ):
        with pytest.raises(SystemExit):
            main(["gallery", "build", str(home), "--output", "g", *words])
        error = capsys.readouterr().err.splitlines()[-1]
        assert said in error and "_count" not in error
    with pytest.raises(SystemExit):
        main(["gallery", "build", "", "--output", "g"])  # an unset variable is not the folder that one is in
    assert "an empty path, expected a folder of images" in capsys.readouterr().err


# ---- folders and globs where image files are expected


def test_a_folder_or_a_glob_is_the_images_in_it(tmp_path: Path) -> None:
    shown = ["a.jpg", "b.PNG", "deep/c.jpeg", "deep/er/d.webp"]
    for name in (*shown, "notes.txt", ".hidden.jpg", ".thumbnails/e.jpg", "@eaDir/f.jpg", "deep/.git/g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    every = [tmp_path / name for name in shown]
    assert image_files([tmp_path]) == every
    assert image_files([tmp_path / "*.jpg", tmp_path / "deep"]) == [every[0], *every[2:]]
    assert image_files([tmp_path / "**" / "*.webp"]) == [every[3]]
    assert image_files([tmp_path / "notes.txt", tmp_path / "absent"]) == [
        tmp_path / "notes.txt",
        tmp_path / "absent",
    ]
    (tmp_path / "a[1].jpg").touch()
    assert image_files([tmp_path / "a[1].jpg"]) == [tmp_path / "a[1].jpg"]  # a file of that name goes first
    for nothing in ("empty", "*.gif"):
        with pytest.raises(ConfigError, match=rf"{re.escape(nothing)}: no images in it, expected \.jpg"):
            image_files([tmp_path / "a.jpg", tmp_path / nothing])
    with pytest.raises(ConfigError, match="absent: cannot be read: No such file or directory, expected an image"):
        image_files([tmp_path / "absent"])


# ---- help


@pytest.mark.parametrize(("words", "parser"), PARSERS, ids=NAMES)
def test_a_default_is_said_once_and_says_something(words: list[str], parser: Parser) -> None:
    told = " ".join(parser.format_help().split())
    assert "default: default" not in told
    assert not re.search(r"default: (None|True|False|\[|\(|\)|==)", re.sub(r"--\S+, --no-\S+", "", told)) or (
        "--no-" in told
    )
    for action in parser._actions:
        whole = parser._get_formatter()._expand_help(action) if action.help else ""
        assert whole.lower().count("default") <= 1 + whole.count("default: the model that ships"), whole


def test_numbers_and_lists_are_told_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "bag", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "distances of recall (m) (default: 2 5 10 25 50)" in told
    assert "maximum number of images; 0: all (default: 0)" in told
    assert "model file (default: the one that made the gallery)" in told


@pytest.mark.parametrize("words", [[], ["gallery"], ["evaluate"], ["train"]], ids=" ".join)
def test_alone_it_prints_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    alone = capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert alone.out == capsys.readouterr().out and "usage: geowarp" in alone.out and alone.err == ""


# ---- misspelt


@pytest.mark.parametrize(("words", "parser"), PARSERS, ids=NAMES)
def test_the_nearest_option_is_named(
    words: list[str], parser: Parser, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*words, *complete(parser, {}, home / "folder", home / "file")]
    for option in (o for o in parser._option_string_actions if len(o) > 6):
        misspelt = option[:-2] + option[-1]
        if misspelt in parser._option_string_actions:
            continue
        several = any(action.nargs in ("+", "?") and not action.option_strings for action in parser._actions)
        for given in (misspelt, misspelt[1:], *([] if several else ["–" + misspelt[2:]])):
            with pytest.raises(SystemExit) as ended:
                main([*line, f"{given}=1"])
            assert ended.value.code == 2
            assert re.search(rf"{given} \(did you mean '--[\w-]+'\?\)", capsys.readouterr().err), given


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["localise"], "localize"), (["gallery", "biuld"], "build"), (["evaluate", "bags"], "bag"),
        (["train", "retreival"], "retrieval"), (["match", "a", "b", "--device", "cdua"], "cuda"),
        (["localize", "a.png", "--galery", "g"], "--gallery"),
    ],
)  # fmt: skip
def test_the_nearest_word_is_named(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"(did you mean {meant!r}?)" in capsys.readouterr().err


# ---- standard output


def test_an_ascii_terminal_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "1 ± 2 m, 3 × 4, 5°, ≈ 6, é, caf\udce9.jpg\n"
    monkeypatch.setattr(geowarp_ros.cli, "run_verb", lambda *_: sys.stdout.write(text))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    main(["match"])
    assert written.getvalue() == b"1 +- 2 m, 3 x 4, 5 deg, ~ 6, \\xe9, caf\xe9.jpg\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "name"), [([], "geowarp"), (["--help"], "geowarp"), (["match", "--help"], "geowarp match"),
                        (["gallery", "info", "g"], "geowarp gallery")]
)  # fmt: skip
def test_a_full_disk_and_a_reader_that_has_gone_are_one_line(
    words: list[str], name: str, unbuffered: str, run: Callable[..., tuple[int, str]]
) -> None:
    with Path("/dev/full").open("w") as full:
        assert run(words, full, PYTHONUNBUFFERED=unbuffered) == (
            1, f"{name}: standard output: cannot be written: No space left on device\n"
        )  # fmt: skip
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        assert run(words, pipe, PYTHONUNBUFFERED=unbuffered) == (
            141, f"{name}: standard output: its reader has closed it\n"
        )  # fmt: skip


@pytest.fixture(scope="module")
def run(model: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, str]]:
    """Run the command beside a gallery g; returns the exit status and what it says on standard error."""
    folder = tmp_path_factory.mktemp("shell")
    small_gallery(folder, model)

    def run(words: list[str], stdout: IO[str], **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "geowarp_ros.cli", *words], cwd=folder, stdout=stdout, stderr=subprocess.PIPE,
            text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        )  # fmt: skip
        return done.returncode, done.stderr

    return run


def test_the_whole_command_on_an_ascii_terminal(run: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        assert run(["gallery", "info", "g", "--json"], out, PYTHONIOENCODING="ascii") == (0, "")
        assert run(["train", "preview", "--help"], out, PYTHONIOENCODING="ascii") == (0, "")
    assert json.loads((tmp_path / "out").read_text().splitlines()[0])["images"] == 2
