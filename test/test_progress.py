"""Bars: on a terminal only, with the rate in what is counted; every label ends with that."""

from __future__ import annotations

import ast
import io
import sys

import pytest

from geowarp_ros.progress import bar
from test.test_house import MODULES, name, nodes


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", shown)
    assert list(bar(range(3), 3, "describing images")) == [0, 1, 2]
    if terminal:
        last = shown.getvalue().split("\r")[-1]
        assert last.startswith("describing images: 100%") and "| 3/3 [" in last and " images/s]" in last
    else:
        assert shown.getvalue() == ""


def test_a_process_without_stderr_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(bar(range(3), 3, "describing images")) == [0, 1, 2]


def test_every_label_ends_with_what_is_counted() -> None:
    found: dict[str, str] = {}
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.Call) and len(node.args) == 3:
                called = ast.unparse(node.func).rpartition(".")[2]
                if called in ("progress", "_progress", "bar", "show"):
                    found[f"{name(path)}:{node.lineno}"] = ast.unparse(node.args[2]).strip("'\"f}")
    assert len(found) > 20
    # label: the caller's own, found by its call or as the default of ask()
    assert not {where: text for where, text in found.items() if text != "label" and text.split()[-1][-1] != "s"}
