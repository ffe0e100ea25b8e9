"""What the systemd unit and the Dockerfile name is there."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from geowarp_ros.ros.parameters import node_parameters
from geowarp_ros.ros.topics import SUBSCRIBED

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"


def executables() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    points = next(node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "entry_points")
    return {line.split(" = ")[0] for line in ast.literal_eval(points.value)["console_scripts"]}


def service() -> dict[str, str]:
    """The unit's [Service]; of keys that come twice, as systemd allows, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    vars(parser)["optionxform"] = str  # keys keep their case
    parser.read_string((DEPLOY / "geowarp-localizer.service").read_text().replace("\\\n", " "))
    return dict(parser["Service"])


@pytest.mark.parametrize("name", ["geowarp-localizer.service", "Dockerfile"])
def test_parameters_and_topics_are_the_nodes(name: str) -> None:
    text = (DEPLOY / name).read_text()
    given = set(re.findall(r"-p (\w+):=", text))
    remapped = set(re.findall(r"-r (\w+):=", text))
    assert given and given <= {parameter.name for parameter in node_parameters()}
    assert remapped and remapped <= set(SUBSCRIBED)


def test_the_units_command_is_bashs_and_starts_an_executable_of_the_package() -> None:
    command = service()["ExecStart"]
    shell, flag, script = command.split(" ", 2)
    assert (shell, flag) == ("/bin/bash", "-c")
    script = script.strip().strip("'")
    subprocess.run([shell, "-n", flag, script], check=True)
    found = re.search(r"exec ros2 run geowarp_ros (\w+)", script)
    assert found and found[1] in executables()
    variables = re.findall(r"\$(\w+)", script)
    text = (DEPLOY / "geowarp-localizer.service").read_text()
    assert all(f"Environment={variable}=" in text for variable in variables)


def test_the_unit_gives_the_node_time_to_end_and_starts_it_again_after_a_failure_only() -> None:
    unit = service()
    assert unit["KillSignal"] == "SIGINT"
    assert int(unit["TimeoutStopSec"]) > 2
    assert unit["Restart"] == "on-failure"


def test_systemd_has_no_complaint() -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed here")
    done = subprocess.run(
        [analyze, "verify", str(DEPLOY / "geowarp-localizer.service")], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.splitlines() if "geowarp-localizer" in line]
    assert about_it == []


def test_the_image_starts_executables_of_the_package_and_copies_what_there_is() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (default,) = re.findall(r"^ENV EXECUTABLE=(\w+)$", text, re.M)
    assert {default, *re.findall(r"-e EXECUTABLE=(\w+)", text)} <= executables()
    (environment,) = set(re.findall(r"(/opt/geowarp)/bin/", text))
    assert f"-m venv --system-site-packages {environment} " in text
    for module in re.findall(r"import (geowarp_ros[\w.]*)|, (geowarp_ros[\w.]*)", text):
        path = ROOT / "".join(module).replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), module
