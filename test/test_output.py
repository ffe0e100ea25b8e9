"""Colours on a real terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from geowarp_ros.output import COLOURS, coloured

GREEN = "\x1b[32mfix\x1b[0m"


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the one who runs the tests has set."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown_on(descriptors: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a green word to the second descriptor as standard output; what the first one reads."""
    reader, writer = descriptors
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        stream.write(coloured("fix", "green"))
        stream.flush()
        read = os.read(reader, 100).decode()
    os.close(reader)
    return read


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, GREEN),
        ({"NO_COLOR": "1"}, "fix"),
        ({"NO_COLOR": "0"}, "fix"),  # regardless of its value …
        ({"NO_COLOR": ""}, GREEN),  # … unless it is empty
        ({"TERM": "dumb"}, "fix"),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, GREEN),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "fix"),
    ],
)
def test_a_terminal_has_colours_unless_it_or_its_user_wants_none(
    environment: dict[str, str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert shown_on(pty.openpty(), monkeypatch) == shown


def test_a_pipe_has_none_unless_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_on(os.pipe(), monkeypatch) == "fix"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert shown_on(os.pipe(), monkeypatch) == GREEN


def test_no_two_colours_are_alike() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS)
