"""Completion, typed into a real bash: by the line of docs/command_line.md."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Bash:
    """An interactive bash on a pseudo-terminal, in which ``geowarp`` is this package."""

    def __init__(self, folder: Path) -> None:
        command = folder / "bin" / "geowarp"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m geowarp_ros.cli "$@"\n')
        command.chmod(0o755)
        beside = Path(sys.executable).parent
        assert shutil.which("register-python-argcomplete", path=f"{beside}:{os.environ['PATH']}")
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
            env={
                "PATH": f"{command.parent}:{beside}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb",
                "PS1": "> ", "INPUTRC": "/dev/null", "PYTHONPATH": str(ROOT), "COLUMNS": "400",
            },
        )  # fmt: skip
        os.close(slave)

    def close(self) -> None:
        """End it."""
        os.close(self._master)
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def type(self, keys: str, shown: str) -> str:
        """Press keys and wait until something is on the screen; what came there since."""
        os.write(self._master, keys.encode())
        seen, deadline = "", time.monotonic() + PATIENCE_S
        while shown not in seen:
            assert select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0], seen
            seen += os.read(self._master, 10_000).decode().replace("\a", "")
        return seen


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "my_gallery").mkdir()
    (line,) = re.findall(r"^eval .*geowarp.*$", (ROOT / "docs" / "command_line.md").read_text(), re.MULTILINE)
    shell = Bash(folder)
    shell.type(f"bind 'set show-all-if-ambiguous on'; {line}; echo rea''dy\n", "ready")
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("geowarp loc\t", "localize "),
        ("geowarp localize --fi\t", "--figure "),
        ("geowarp localize a.jpg --gallery my_g\t", "my_gallery/"),
        ("geowarp gallery ver\t", "verify "),
        ("geowarp gallery build photos --ca\t", "--camera "),
        ("geowarp evaluate com\t", "compare "),
        ("geowarp evaluate bag --truth-t\t", "--truth-topic "),
        ("geowarp train retrieval --encoder resnet1\t", "resnet18 "),
        ("geowarp match a b --device cu\t", "cuda "),
        ("geowarp localize --set rerank.mo\t", "rerank.mode="),
    ],
)
def test_a_tab_completes(typed: str, completed: str, bash: Bash) -> None:
    bash.type(typed, completed)
    bash.type("\x15echo be''low\n", "below")  # Ctrl-U: nothing is run


def test_two_tabs_list_the_verbs(bash: Bash) -> None:
    shown = bash.type("geowarp \t", "import-weights")
    assert all(verb in shown for verb in ("demo", "match", "localize"))
    bash.type("\x15echo be''low\n", "below")


def test_who_asks_for_no_completion_pays_nothing_for_it() -> None:
    script = "import sys; from geowarp_ros.cli import main; main([]); assert 'argcomplete' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
