"""The house's doors: who may import whom, who may print. See docs/architecture.md."""

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
    "motion/consistency.py",
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
        if room(path) in (
            "cli",
            "lab",
        ):  # when they are called, a verb may ask for rclpy, the laboratory show a drive
            found = of_ros(imports(path, at_load_only=True)) | (
                found - {"rclpy"} if room(path) == "cli" else set()
            )
        if found and room(path) != "ros":
            problems.append(f"{name(path)}: {', '.join(sorted(found))}")
    assert not problems


FLOORS = (
    {"errors", "progress", "memory", "provenance", "threads"},
    {"files", "output", "config", "cameras", "geodesy"},
    {"types", "catalogue"},
    {"geometry", "images", "pictures", "keypoints", "attitude"},
    {"messages"},
    {"model", "readers"},
    {"gallery"},
    {"rerank"},
    {"integrity"},
    {"pose"},
    {"position"},
    {"localizer"},
    {"motion"},
    {"evaluation"},
    {"view"},
    {"ros"},
    {"cli"},
    {"lab"},
)
"""The rooms from the ground up: a room imports those below it, never those above or beside it."""


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room(path).removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms == set().union(*FLOORS)


def test_the_arrow_points_one_way() -> None:
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    problems = []
    for path in MODULES:
        here = room(path).removesuffix(".py")
        if here == "__init__":
            continue
        lazily = here in ("types", "lab")  # an answer shows itself when a notebook asks
        for full in set(imports(path, at_load_only=lazily)):
            parts = full.split(".")
            there = parts[1] if parts[0] == "geowarp_ros" and len(parts) > 1 else here
            if there != here and floor.get(there, -1) >= floor[here]:
                problems.append(f"{name(path)}: {full}")
    assert not problems


def test_nothing_outside_the_laboratory_imports_it() -> None:
    outside = [path for path in MODULES if room(path) != "lab"]
    found = [(name(p), full) for p in outside for full in imports(p) if full.startswith("geowarp_ros.lab")]
    assert not found


OWNED = {"faiss": "gallery", "rosbags": "readers", "onnxruntime": "model"}
"""Library that could be replaced -> the room that knows it, and the laboratory."""
SHARE = {"rosbags": {"evaluation", "ros"}, "faiss": {"threads.py"}}
"""Rooms that write bags; what sets every library's threads."""


@pytest.mark.parametrize("library", OWNED)
def test_a_library_that_could_be_replaced_is_known_in_one_room(library: str) -> None:
    allowed = {OWNED[library], "lab", *SHARE.get(library, set())}
    found = {
        name(path) for path in MODULES for full in imports(path) if full.split(".")[0] == library
        and room(path) not in allowed
    }  # fmt: skip
    assert not found


def test_making_a_gallery_stands_above_reading_it() -> None:
    for below in ("store", "manifest", "local", "places", "rows", "files"):
        found = [full for full in imports(PACKAGE / "gallery" / f"{below}.py") if "gallery.making" in full]
        assert not found, below
    index = [full for path in (PACKAGE / "gallery/index").glob("*.py") for full in imports(path)]
    assert not [full for full in index if "gallery.making" in full or "gallery.store" in full]


@pytest.mark.parametrize("relative", NUMPY_ONLY)
def test_position_and_metrics_are_numpy_only(relative: str) -> None:
    tops = {imported.split(".")[0] for imported in imports(PACKAGE / relative)}
    assert tops - set(sys.stdlib_module_names) <= {"numpy", "geowarp_ros"}


def test_libraries_do_not_print_exit_or_configure_logging() -> None:
    forbidden = {"print", "exit", "quit", "sys.exit", "os._exit", "logging.basicConfig"}
    problems = [
        f"{name(path)}:{node.lineno}: {ast.unparse(node.func)}"
        for path in MODULES
        if room(path) != "cli" and "lab/verbs/" not in name(path) and name(path) != "ros/process.py"
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


def test_every_module_but_ros_imports_where_ros_is_not_installed() -> None:
    """Import every module outside ros/, the laboratory's too, in a process in which every ROS import fails."""
    modules = [
        "geowarp_ros." + name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path in MODULES
        if room(path) not in ("ros", "__init__.py") and path.name != "__main__.py"
    ]
    script = f"""
import sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top.endswith({ROS_SUFFIXES!r}) or top in {ROS_NAMES!r}:
            raise ImportError("no ROS here: " + name)
sys.meta_path.insert(0, NoRos())
import importlib
for module in {modules!r}:
    importlib.import_module(module)
try:
    import geowarp_ros.ros.node
except ImportError as error:
    assert "no ROS here" in str(error)
else:
    raise AssertionError("the guard does not guard")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_robot_localises_without_what_reports_and_trainings_need() -> None:
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = ("matplotlib", "plotly", "sklearn", "tensorboard", "onnx", "onnxruntime", "kornia", "starlette")
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError("absent", name=name.split(".")[0])
sys.meta_path.insert(0, Absent())
import geowarp_ros.localizer, geowarp_ros.motion.session, geowarp_ros.gallery.making.build, geowarp_ros.ros.node
import geowarp_ros.evaluation.answers
from geowarp_ros.cli import main
assert main(["evaluate", "compare", ".", ".", "--output", "c"]) == 1
assert main(["view", "."]) == 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for library, extra in (("plotly", "report"), ("starlette", "view")):
        assert f"needs {library}, which is not installed: pip install 'geowarp_ros[{extra}]'" in done.stderr
