"""The house's doors: who may import whom, who may print. See README, "How it is built"."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "geowarp_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROS_SUFFIXES = ("_msgs", "_srvs", "_interfaces")
ROS_NAMES = ("rclpy", "cv_bridge", "ament_index_python", "launch", "launch_ros", "rosbag2_py", "tf2_ros")
NUMPY_ONLY = (
    "position.py",
    "motion/tracking.py",
    "motion/odometry.py",
    "motion/prior.py",
    "motion/map_from_odom.py",
    "motion/session.py",
    "evaluation/metrics.py",
    "evaluation/fixes.py",
    "types.py",
)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path, *, at_load_only: bool = False) -> Iterator[str]:
    """Yield the full names of what a module imports; of ``from a import b`` both a and a.b."""
    for node in _outside_functions(ast.parse(path.read_text())) if at_load_only else nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            continue
        yield node
        yield from _outside_functions(node)


def of_ros(imported: Iterable[str]) -> set[str]:
    tops = {full.split(".")[0] for full in imported}
    return {top for top in tops if top.endswith(ROS_SUFFIXES) or top in ROS_NAMES}


def test_only_ros_says_ros() -> None:
    problems = []
    for path in MODULES:
        found = of_ros(imports(path))
        if room(path) == "cli":  # a verb may ask whether ROS is there, inside its run()
            found = of_ros(imports(path, at_load_only=True)) | (found - {"rclpy"})
        if found and room(path) != "ros":
            problems.append(f"{name(path)}: {', '.join(sorted(found))}")
    assert not problems


def test_the_arrow_points_one_way() -> None:
    problems = []
    for path in MODULES:
        imported = set(imports(path))
        inner = {full.split(".")[1] for full in imported if full.startswith("geowarp_ros.")}
        forbidden = {"cli"} if room(path) == "ros" else {"ros", "cli"} if room(path) != "cli" else set()
        if inner & forbidden:
            problems.append(f"{name(path)}: {', '.join(sorted(inner & forbidden))}")
        if room(path) != "gallery" and any(full.split(".")[0] == "faiss" for full in imported):
            problems.append(f"{name(path)}: faiss")
    assert not problems


@pytest.mark.parametrize("relative", NUMPY_ONLY)
def test_position_and_metrics_are_numpy_only(relative: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(PACKAGE / relative)}
    assert tops - set(sys.stdlib_module_names) <= {"numpy", "geowarp_ros"}


def test_libraries_do_not_print_exit_or_configure_logging() -> None:
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"}
    problems = [
        f"{name(path)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in MODULES
        if room(path) != "cli" and name(path) != "ros/process.py"  # a process is what that one is about
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden
    ]
    assert not problems


def test_nothing_read_can_execute() -> None:
    problems = []
    for path in MODULES:
        if tops := {"cPickle", "dill", "shelve", "marshal"} & {full.split(".")[0] for full in imports(path)}:
            problems.append(f"{name(path)}: {tops}")
        for node in nodes(path):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                if node.attr != "UnpicklingError":  # which torch.load raises
                    problems.append(f"{name(path)}:{node.lineno}: pickle.{node.attr}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if given.get("weights_only") != "True":
                    problems.append(f"{name(path)}:{node.lineno}: torch.load without weights_only=True")
    assert not problems


def test_the_core_imports_where_ros_is_not_installed() -> None:
    """Import the localizer's rooms in a process in which every ROS import fails."""
    script = f"""
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top.endswith({ROS_SUFFIXES!r}) or top in {ROS_NAMES!r}:
            raise ImportError("no ROS here: " + name)
sys.meta_path.insert(0, NoRos())
import geowarp_ros.localizer, geowarp_ros.messages, geowarp_ros.lab.world, geowarp_ros.cli
try:
    import geowarp_ros.ros.node
except ImportError as error:
    assert "no ROS here" in str(error)
else:
    raise AssertionError("the guard does not guard")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
