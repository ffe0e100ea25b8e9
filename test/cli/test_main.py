"""The command itself: its verbs are there, mistakes are one line and status 1, other errors keep a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import geowarp_ros.cli
from geowarp_ros import __version__
from geowarp_ros.cli import VERBS, main
from geowarp_ros.cli.evaluate import EVALUATIONS
from geowarp_ros.lab.verbs.train import TRAININGS

EVERY = [[verb] for verb in VERBS]
EVERY += [["evaluate", name] for name in EVALUATIONS] + [["train", name] for name in TRAININGS]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_verb_says_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"usage: geowarp {' '.join(words)}")
    assert printed.err == ""


def test_every_verb_has_a_module_and_every_module_a_verb() -> None:
    package = Path(geowarp_ros.cli.__file__).parents[1]
    folders = (package / "cli", package / "lab" / "verbs")
    modules = {path.stem for folder in folders for path in folder.glob("*.py")}
    modules -= {"__init__", "__main__", "verbs", "options", "alignment", "parser", "sources", "gallery_table"}
    modules -= {"next_step", "selfcalibration"}
    named = {verb.replace("-", "_") for verb in VERBS}
    named |= {f"evaluate_{name}" for name in EVALUATIONS} | {f"train_{name}" for name in TRAININGS}
    assert modules == named


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"geowarp {__version__}\n"


def test_an_unknown_verb_is_usage_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["galery"])
    assert ended.value.code == 2
    assert "did you mean 'gallery'?" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery", "info", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("geowarp gallery: ") and str(tmp_path) in line


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(geowarp_ros.cli, "run_verb", fail)
    with pytest.raises(ZeroDivisionError):
        main(["match"])


def test_an_interruption_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(geowarp_ros.cli, "run_verb", interrupt)
    assert main(["match"]) == 130
    assert capsys.readouterr().err == "geowarp match: interrupted\n"


@pytest.mark.parametrize(
    ("words", "library"),
    [
        (["evaluate", "bag", "g", "--gallery", "g", "--output", "OUT"], "plotly"),
        (["evaluate", "dataset", "g", "--output", "OUT"], "matplotlib"),
        (["evaluate", "integrity", "g/gallery.json", "--output", "OUT"], "matplotlib"),
        (["calibrate", "g", "--gallery", "g"], "sklearn"),
    ],
)
def test_a_missing_extra_is_said_before_the_work(
    words: list[str],
    library: str,
    g: None,  # which holds nothing: the work would end at its first step
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert main(words) == 1
    assert f"needs {library}, which is not installed: pip install" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(geowarp_ros.cli, "run_verb", lambda *_: Path("/dev/null/x").mkdir())
    assert main(["match"]) == 1
    assert capsys.readouterr().err == "geowarp match: [Errno 20] Not a directory: '/dev/null/x'\n"
