"""The options of every verb that reads a source: they place its images as those of 'geowarp gallery build' do."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import geowarp_ros.readers
from geowarp_ros.cli import main
from geowarp_ros.cli.parser import IMAGES
from geowarp_ros.cli.sources import READ_AS, reading
from geowarp_ros.errors import SourceError
from test.cli.walking import every_parser

OF_BAGS = ("accept_null_island", "fix_offset", "utm_zone")
READERS = [(words, parser) for words, parser in every_parser() if any(a.type is IMAGES for a in parser._actions)]


def test_every_argument_of_a_reader_has_an_option() -> None:
    assert set(READ_AS.values()) | {"source"} == set(inspect.signature(geowarp_ros.readers.read_source).parameters)


@pytest.mark.parametrize("words", [words for words, _ in READERS if words[-1] != "preview"], ids=" ".join)
def test_a_refusal_names_an_option_that_the_verb_has(words: list[str]) -> None:
    (parser,) = [parser for of, parser in READERS if of == words]
    assert {action.dest for action in parser._actions} >= set(OF_BAGS)


def test_a_source_is_read_with_the_options_of_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, g: None
) -> None:
    asked: list[dict[str, Any]] = []

    def read_source(source: Path, **options: Any) -> None:
        asked.append(options)
        raise SourceError(f"{source}: is read")

    monkeypatch.setattr(geowarp_ros.readers, "read_source", read_source)
    monkeypatch.setattr("geowarp_ros.evaluation.sets.read_source", read_source)
    monkeypatch.setattr("geowarp_ros.lab.training.data.read_source", read_source)
    monkeypatch.setattr("geowarp_ros.localizer.Localizer.open", lambda *_, **__: None)
    opened = SimpleNamespace(keypoint_config=None, check_keypoints=lambda *_: None)
    monkeypatch.setattr("geowarp_ros.cli.gallery.unaligned", lambda _: opened)
    output = ["--output", str(tmp_path / "out")]
    verbs = (
        ["gallery", "build", str(tmp_path), *output],
        ["gallery", "add", "g", str(tmp_path)],
        ["calibrate", str(tmp_path), "--gallery", "g"],
        ["evaluate", "dataset", str(tmp_path), *output],
        ["train", "retrieval", str(tmp_path), *output],
        ["train", "warp", str(tmp_path), *output, "--model", "default"],
        ["train", "distill", str(tmp_path), *output, "--teacher", "default"],
    )
    for number, words in enumerate(verbs):
        assert main([*words, "--accept-null-island", "--fix-offset=-18", "--utm-zone", "33N"]) == 1, words
        assert len(asked) == number + 1, words
        found = {name: asked[-1][READ_AS[name]] for name in OF_BAGS}
        assert found == {"accept_null_island": True, "fix_offset": -18.0, "utm_zone": "33N"}, words


def test_options_that_a_verb_lacks_are_left_to_the_reader() -> None:
    assert reading(argparse.Namespace(split="test", gallery="g")) == {"split": "test"}
