"""What the documents say is there: links, commands, the README's Python, the API reference."""

from __future__ import annotations

import argparse
import contextlib
import html
import importlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from geowarp_ros.cli import LABORATORY, VERBS
from geowarp_ros.cli.evaluate import EVALUATIONS
from geowarp_ros.cli.evaluate import LABORATORY as STUDIES
from geowarp_ros.cli.options import session_config, settings
from geowarp_ros.config import NodeConfig, leaves
from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.verbs.train import TRAININGS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 200


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / unquote(file)).resolve() if file else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for path in DOCUMENTS:
        relative = path.relative_to(ROOT / "docs") if ROOT / "docs" in path.parents else Path("..") / path.name
        assert path.name == "index.md" or f"({relative.as_posix()})" in index, relative


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_parameters_that_are_named_exist(path: Path) -> None:
    parameters = [name for name, _ in leaves(NodeConfig)]
    absent = []
    for word in re.findall(r"`([^`\n]+)`", path.read_text()):
        if re.fullmatch(r"(geowarp_ros|test|docs|config|launch)/[\w./]+", word) and not (ROOT / word).exists():
            absent.append(word)
        named = re.fullmatch(r"((?:rerank|position|tracking|prior)\.[a-z_.]+)(?:[=:].*)?", word)
        name = named[1] if named and not named[1].endswith(".py") else ""
        if name and not any(known == name or known.startswith(f"{name}.") for known in parameters):
            absent.append(word)
    assert [word for word in absent if word != "rerank.build_reranker"] == []


def anchors(path: Path) -> set[str]:
    """Anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def expanded(line: str, variables: dict[str, str]) -> str:
    """The line with the values of the variables that are known."""
    return re.sub(r"\$(\w+)", lambda found: variables.get(found[1], found[0]), line)


def commands(path: Path) -> Iterator[list[str]]:
    """Words of every ``geowarp`` command in a document's shell blocks."""
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", path.read_text(), re.S):
        lines = block.replace("\\\n", " ").splitlines()
        variables = dict(re.findall(r"^(\w+)=[\"']?([^\"'\n]*)", "\n".join(lines), re.M))
        variables |= dict(re.findall(r"\bfor (\w+) in (\S+)", block))
        for line in lines:
            line = re.sub(r"\$\([^)]*\)", "X", line)
            line = expanded(line, variables)
            for command in re.split(r";|&&|\bdo\b", line):
                words = shlex.split(command, comments=True)
                if "geowarp" in words and "…" not in command:
                    yield words[words.index("geowarp") + 1 :]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_one_that_the_tool_takes(path: Path) -> None:
    refused = []
    for words in commands(path):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                given = vars(parser_of(words).parse_args(rest_of(words)))
                values = settings(argparse.Namespace(set=given.get("set", ())))
                session_config({name: value for name, value in values.items() if name != "baselines"})
            except SystemExit:
                refused.append((" ".join(words), said.getvalue().strip().splitlines()[-1]))
            except ConfigError as error:
                refused.append((" ".join(words), str(error)))
    assert not refused


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """Build the parser of a command as ``cli.verbs.run_verb`` does."""
    verb = words[0]
    module = f"{'lab.verbs' if verb in LABORATORY else 'cli'}.{verb.replace('-', '_')}"
    if verb == "evaluate":
        module = f"{'lab.verbs' if words[1] in STUDIES else 'cli'}.evaluate_{words[1]}"
    elif verb == "train":
        module = f"lab.verbs.train_{words[1]}"
    parser = argparse.ArgumentParser(allow_abbrev=False)
    importlib.import_module(f"geowarp_ros.{module}").add_arguments(parser)
    return parser


def rest_of(words: list[str]) -> list[str]:
    assert words[0] in VERBS
    if words[0] in ("evaluate", "train"):
        assert words[1] in (EVALUATIONS if words[0] == "evaluate" else TRAININGS)
        return words[2:]
    return words[1:]


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    """With a gallery and a query in the working folder, as the lines before it make them."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(block.splitlines()) <= 10
    rows = ["filename,latitude,longitude"]
    for number in range(3):
        blocks = np.random.default_rng(number).integers(0, 256, (12, 16, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.resize(blocks, (320, 240), interpolation=cv2.INTER_CUBIC))
        rows.append(f"{number}.png,{45 + number * 1e-3},7.0")
    (tmp_path / "positions.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "query.jpg").write_bytes((tmp_path / "1.png").read_bytes())
    script = "import geowarp_ros as gw\ngw.build_gallery('positions.csv', 'gallery')\n" + block
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"(Fix 45\.00100, 7\.00000|NoFix)", done.stdout.splitlines()[-2])


def test_the_api_reference_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    """What ``make docs`` does."""
    would = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    _, *words = shlex.split(next(line for line in would.splitlines() if "-m pdoc" in line))
    words = [sys.executable, *(str(tmp_path) if word == "site" else word for word in words)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert (tmp_path / "geowarp_ros" / "localizer.html") in pages
    assert not [path for path in pages if "lab" in path.relative_to(tmp_path).parts]
    broken = set()
    for path, text in pages.items():
        for target in re.findall(r'href="([^"#:]+\.html)(?:#[^"]*)?"', text):
            if not (path.parent / unquote(html.unescape(target))).resolve().is_file():
                broken.add((path.name, target))
    assert not broken
