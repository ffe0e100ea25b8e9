"""The house's doors: who may import whom, who may print. See README, "How it is built"."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "geowarp_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROS_SUFFIXES = ("_msgs", "_srvs", "_interfaces")
ROS_NAMES = ("rclpy", "cv_bridge", "ament_index_python", "launch", "launch_ros", "rosbag2_py", "tf2_ros")
NUMPY_ONLY = ("position.py", "tracking.py", "evaluation/metrics.py", "types.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path, *, at_load_only: bool = False) -> Iterator[str]:
    """Yield the full names of what a module imports; of ``from a import b`` both a and a.b."""
    tree = ast.parse(path.read_text())
    nodes = list(_outside_functions(tree)) if at_load_only else list(ast.walk(tree))
    for node in nodes:
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


def is_ros(imported: str) -> bool:
    top = imported.split(".")[0]
    return top.endswith(ROS_SUFFIXES) or top in ROS_NAMES


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_ros_says_ros(path: Path) -> None:
    if room(path) == "ros":
        return
    found = {imported for imported in imports(path) if is_ros(imported)}
    if room(path) == "cli":  # a verb may look whether ROS is there, inside its run()
        assert not {imported for imported in imports(path, at_load_only=True) if is_ros(imported)}
        assert found <= {"rclpy"}
    else:
        assert not found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_arrow_points_one_way(path: Path) -> None:
    inner = {imported.split(".")[1] for imported in imports(path) if imported.startswith("geowarp_ros.")}
    if room(path) not in ("ros", "cli"):
        assert not inner & {"ros", "cli"}
    if room(path) == "ros":
        assert "cli" not in inner
    if room(path) not in ("gallery",):
        assert not {imported for imported in imports(path) if imported.split(".")[0] == "faiss"}


@pytest.mark.parametrize("relative", NUMPY_ONLY)
def test_position_and_metrics_are_numpy_only(relative: str) -> None:
    third_party = {
        imported.split(".")[0]
        for imported in imports(PACKAGE / relative)
        if imported.split(".")[0] not in sys.stdlib_module_names
    }
    assert third_party <= {"numpy", "geowarp_ros"}


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "cli"], ids=name)
def test_libraries_do_not_print_exit_or_configure_logging(path: Path) -> None:
    if name(path) == "ros/process.py":  # a process is what it is about
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"), (
                f"line {node.lineno}: {called}"
            )


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_read_can_execute(path: Path) -> None:
    assert not {"cPickle", "dill", "shelve", "marshal"} & {imported.split(".")[0] for imported in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError", f"line {node.lineno}"  # which torch.load raises
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert safe.get("weights_only") == "True", f"line {node.lineno}"


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
import geowarp_ros.localizer, geowarp_ros.messages, geowarp_ros.world, geowarp_ros.cli
try:
    import geowarp_ros.ros.node
except ImportError as error:
    assert "no ROS here" in str(error)
else:
    raise AssertionError("the guard does not guard")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
