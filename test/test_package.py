"""The package's files agree with the code and with one another."""

from __future__ import annotations

import ast
import datetime
import re
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import geowarp_ros
from geowarp_ros.config import flatten
from geowarp_ros.ros.parameters import node_parameters, parse_parameters
from test.reference import yaml_file

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup_arguments() -> dict[str, Any]:
    """The keyword arguments of setup(), as far as they are literals."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup")
    found = {}
    for keyword in call.keywords:
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return {str(name): value for name, value in found.items()}


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def test_versions_and_words_agree(manifest: ElementTree.Element, setup_arguments: dict[str, Any]) -> None:
    assert manifest.findtext("version") == setup_arguments["version"] == geowarp_ros.__version__
    assert manifest.findtext("description") == setup_arguments["description"]
    assert manifest.findtext("license") == setup_arguments["license"]
    maintainer = manifest.find("maintainer")
    assert maintainer is not None
    assert (maintainer.text, maintainer.get("email")) == (
        setup_arguments["maintainer"],
        setup_arguments["maintainer_email"],
    )


def test_manifest_is_an_ament_python_package_of_format_3(manifest: ElementTree.Element) -> None:
    assert manifest.get("format") == "3"
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (ROOT / "resource" / str(manifest.findtext("name"))).is_file()


def test_every_ros_package_that_is_imported_is_declared(manifest: ElementTree.Element) -> None:
    declared = {element.text for element in manifest.findall("exec_depend")}
    assert "cv_bridge" in declared
    for path in [*(ROOT / "geowarp_ros" / "ros").glob("*.py"), *(ROOT / "launch").rglob("*.py")]:
        for name in imported(path):
            package = name.split(".")[0]
            if of_ros(package):
                assert package in declared, f"{path.name} imports {package}"


DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "pillow_heif": "pillow-heif",
    "pillow_jxl": "pillow-jxl-plugin",
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Import name -> distribution, where they differ."""


def requirements(setup_arguments: dict[str, Any]) -> tuple[set[str], dict[str, set[str]]]:
    """What the robot installs, and what each extra adds: names of distributions."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    extras = next(n for n in ast.walk(tree) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "EXTRAS")
    found = {name: {bare(r) for r in listed} for name, listed in ast.literal_eval(extras.value).items()}
    return {bare(r) for r in setup_arguments["install_requires"]}, found


def bare(requirement: str) -> str:
    return re.split(r"[<>=\[;]", requirement)[0].strip()


def of_ros(top: str) -> bool:
    known = ("rclpy", "cv_bridge", "ament_index_python", "launch", "launch_ros")
    return top.endswith(("_msgs", "_srvs", "_interfaces")) or top in known


def third_party() -> dict[str, set[str]]:
    """Distribution -> the modules that import it, ROS packages left aside."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "geowarp_ros").rglob("*.py"):
        for full in imported(path):
            top = full.split(".")[0]
            if top and not of_ros(top) and top != "geowarp_ros" and top not in sys.stdlib_module_names:
                found.setdefault(DISTRIBUTIONS.get(top, top), set()).add(str(path.relative_to(ROOT)))
    found.setdefault("tensorboard", set()).add("torch.utils.tensorboard")
    return found


def test_imports_and_requirements_agree_both_ways(setup_arguments: dict[str, Any]) -> None:
    robot, extras = requirements(setup_arguments)
    used, declared = third_party(), robot.union(*extras.values())
    assert not {name: modules for name, modules in used.items() if name not in declared}
    assert not declared - used.keys()
    assert not robot & set().union(*extras.values())


def keys(manifest: ElementTree.Element) -> set[str]:
    return {str(element.text) for element in manifest if element.tag.endswith("depend")}


def test_rosdep_installs_every_key_without_pip(manifest: ElementTree.Element) -> None:
    """Ubuntu 24.04 refuses pip outside a virtual environment, and a key without a rule ends rosdep at once."""
    known = yaml.safe_load((ROOT / "test" / "rosdep_keys.yaml").read_text())
    assert isinstance(known["date"], datetime.date)
    names = [name for kind in ("ros", "apt", "pip", "absent") for name in known[kind]]
    assert len(names) == len(set(names))
    assert keys(manifest) <= {*known["ros"], *known["apt"]}


def test_a_requirement_that_rosdep_does_not_install_is_named_in_the_manifest(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any]
) -> None:
    others = {"opencv-python": "python3-opencv", "pillow": "python3-pil", "pyyaml": "python3-yaml"}
    names = [bare(requirement) for requirement in setup_arguments["install_requires"]]
    by_pip = {name for name in names if others.get(name, f"python3-{name}") not in keys(manifest)}
    text = (ROOT / "package.xml").read_text()
    (said,) = re.findall(r"as README.md says: ([\w\s,-]+)\.", text)
    assert set(re.split(r",\s+", said)) == by_pip


def test_what_the_tests_import_is_declared(manifest: ElementTree.Element) -> None:
    """By test_depend or, with what the package itself imports, by the extras of pip."""
    own = {"pytest": "python3-pytest", "hypothesis": "python3-hypothesis", "evo": ""}
    needed = set(third_party()) | set(own)
    for path in (ROOT / "test").rglob("*.py"):
        for full in imported(path):
            top = full.split(".")[0]
            if (
                top
                and not of_ros(top)
                and top not in ("geowarp_ros", "test")
                and top not in sys.stdlib_module_names
            ):
                assert DISTRIBUTIONS.get(top, top) in needed, f"{path.name} imports {top}"
    declared = {element.text for element in manifest.findall("test_depend")}
    assert {key for key in own.values() if key} <= declared


def test_launch_files_recipes_and_layouts_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", given.update)
    runpy.run_path("setup.py")
    where = {Path(file).name: folder for folder, files in given["data_files"] for file in files}
    for path in (ROOT / "launch").rglob("*.*"):
        folder = path.parent.relative_to(ROOT).as_posix()
        assert "__pycache__" in folder or where[path.name] == f"share/geowarp_ros/{folder}"
    for name in ("geowarp.rviz", "geowarp.foxglove.json"):
        assert where[name] == "share/geowarp_ros/layouts"


def test_parameter_file_is_the_codes() -> None:
    text = (ROOT / "config" / "localizer.yaml").read_text()
    assert text == yaml_file(), "run: python -m test.reference"


def test_parameter_file_reads_as_every_default() -> None:
    parameters = yaml.safe_load((ROOT / "config" / "localizer.yaml").read_text())["/**"]["ros__parameters"]
    given = dict(dotted(parameters))
    assert given == {parameter.name: parameter.default for parameter in node_parameters()}
    assert flatten(parse_parameters(given)) == given


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def dotted(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
