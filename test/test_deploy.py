"""What the systemd unit and the Dockerfile name is there."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
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
    given = set(re.findall(r"-p \"?(\w+):=", text))
    remapped = set(re.findall(r"-r \"?(\w+):=", text))
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
    assert set(variables) <= environment().keys()


def test_the_unit_starts_the_node_from_folders_with_spaces(tmp_path: Path) -> None:
    """By bash, with a ``ros2`` that notes its words."""
    script = shlex.split(service()["ExecStart"])[2].replace("/opt/ros", str(tmp_path / "opt ros"))
    workspace = tmp_path / "my ws"
    for folder in (tmp_path / "opt ros" / "jazzy", workspace / "install"):
        folder.mkdir(parents=True)
        (folder / "setup.bash").touch()
    (tmp_path / "ros2").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "ros2").chmod(0o755)
    given = {"WORKSPACE": str(workspace), "GALLERY": "/data/old town", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/bash", "-c", script], env=environment() | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        *("run", "geowarp_ros", "localizer", "--ros-args"),
        *("-p", "gallery:=/data/old town", "-r", "image:=/camera/image_raw"),
    ]


def test_the_unit_names_user_middleware_and_domain() -> None:
    assert service()["User"]
    assert environment()["RMW_IMPLEMENTATION"] == "rmw_fastrtps_cpp"  # Jazzy's default
    assert environment()["ROS_DOMAIN_ID"] == "0"


def environment() -> dict[str, str]:
    """The unit's environment, each variable quoted."""
    text = (DEPLOY / "geowarp-localizer.service").read_text()
    return dict(re.findall(r'^Environment="(\w+)=(.*)"$', text, re.M))


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
    assert "python3-opencv" in text and "pip uninstall -y opencv-python" in text  # one OpenCV, cv_bridge's
    assert text.count('"numpy<2"') == 1
    assert set(re.findall(r"\[(\w+)\]\"", text)) == {"fast"}
    for module in re.findall(r"import (geowarp_ros[\w.]*)|, (geowarp_ros[\w.]*)", text):
        path = ROOT / "".join(module).replace(".", "/")
        assert path.with_suffix(".py").is_file() or path.is_dir(), module


def test_the_image_is_built_from_what_it_needs() -> None:
    """Not from what git ignores, git itself or the data beside a checkout; but with all that is installed."""
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"}
    assert {".git", "shared"} < ignored
    for line in (ROOT / ".gitignore").read_text().splitlines():
        assert {line.strip("/"), f"**/{line.strip('/')}"} & ignored, line
    globs = re.findall(r'glob\("([^"]+)"', (ROOT / "setup.py").read_text())
    installed = {word.split("/")[0] for word in globs}
    assert installed and not ignored & {
        *installed,
        "geowarp_ros",
        "resource",
        "package.xml",
        "setup.py",
        "LICENSE",
    }


def test_the_workspace_is_made_as_the_image_is() -> None:
    """One OpenCV and NumPy 1 in both, the same extra; colcon builds inside the virtual environment."""
    (block,) = re.findall(r"```sh\n(cd ~/ws.*?)```", (ROOT / "docs" / "launch.md").read_text(), re.S)
    for word in ("--system-site-packages", "COLCON_IGNORE", "[fast]", '"numpy<2"', "uninstall -y opencv-python"):
        assert word in block
    assert '"setuptools<80"' in block and "python -m colcon build" in block
