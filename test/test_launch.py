"""What the launch files start, told by stand-ins of ``launch`` and ``launch_ros`` that note what they are given.

There are no wheels of those two; where ROS 2 is installed the files run with the real ones.
"""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from geowarp_ros.cli import main
from geowarp_ros.ros.parameters import node_parameters

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))

STANDINS = {
    "launch": ("LaunchDescription",),
    "launch.actions": (
        "DeclareLaunchArgument",
        "EmitEvent",
        "ExecuteProcess",
        "IncludeLaunchDescription",
        "OpaqueFunction",
        "RegisterEventHandler",
    ),
    "launch.event_handlers": ("OnProcessExit",),
    "launch.events": ("Shutdown",),
    "launch.launch_description_sources": ("PythonLaunchDescriptionSource",),
    "launch_ros": (),
    "launch_ros.actions": ("Node",),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
    "launch_ros.substitutions": ("ExecutableInPackage",),
}


class Noted:
    """Something of ``launch`` with the words it was made with."""

    def __init__(self, kind: str, words: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.kind, self.words, self.named = kind, words, named


class Argument:
    """``LaunchConfiguration``: the value that the launch was given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Noted]]:
    def noting(kind: str) -> Callable[..., Noted]:
        return lambda *words, **named: Noted(kind, words, named)

    for module, names in STANDINS.items():
        standin = ModuleType(module)
        for name in names:
            setattr(standin, name, noting(name))
        monkeypatch.setitem(sys.modules, module, standin)
    substitutions = SimpleNamespace(LaunchConfiguration=Argument)
    monkeypatch.setitem(sys.modules, "launch.substitutions", substitutions)
    index = SimpleNamespace(get_package_share_directory=lambda package: str(tmp_path / package))
    monkeypatch.setitem(sys.modules, "ament_index_python", ModuleType("ament_index_python"))
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", index)

    def start(file: str, /, **given: str) -> list[Noted]:
        """Return all actions of a launch file with these arguments, included files left unread."""
        module = runpy.run_path(str(ROOT / "launch" / file))
        (entities,) = module["generate_launch_description"]().words
        declared = {e.words[0]: e.named["default_value"] for e in entities if e.kind == "DeclareLaunchArgument"}
        assert set(given) <= set(declared)
        actions: list[Noted] = []
        for entity in entities:
            actions += entity.named["function"](declared | given) if entity.kind == "OpaqueFunction" else [entity]
        return actions

    return start


def only(actions: list[Noted], kind: str) -> Noted:
    (found,) = [action for action in actions if action.kind == kind]
    return found


def executables() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    points = next(node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "entry_points")
    return {line.split(" = ")[0] for line in ast.literal_eval(points.value)["console_scripts"]}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_has_a_meaning_and_a_textual_default(
    path: Path, launch: Callable[..., list[Noted]]
) -> None:
    declared = [action for action in launch(path.name) if action.kind == "DeclareLaunchArgument"]
    assert declared
    for action in declared:
        assert isinstance(action.named["default_value"], str)
        assert action.named["description"].endswith(".")


@pytest.mark.parametrize("cameras", ["", "front rear"])
def test_what_is_given_reaches_the_node_and_what_is_not_is_left_to_the_file(
    cameras: str, launch: Callable[..., list[Noted]], tmp_path: Path
) -> None:
    node = only(launch("localizer.launch.py", cameras=cameras), "Node").named
    assert node["package"] == "geowarp_ros" and node["executable"] in executables()
    file, parameters = node["parameters"]
    assert file == str(tmp_path / "geowarp_ros" / "config" / "localizer.yaml")
    assert parameters == {"use_sim_time": False, "autostart": True}
    assert node["remappings"] == [("image", "image")]

    given = {
        "gallery": "5",
        "image": "/cam",
        "camera_info": "/lab/info",
        "camera_info_url": "file:///camera.yaml",
        "image_transport": "compressed",
        "params_file": "~/p.yaml",
        "respawn": "True",
    }
    node = only(launch("localizer.launch.py", cameras=cameras, **given, use_sim_time="TRUE"), "Node").named
    file, parameters = node["parameters"]
    assert file == str(Path.home() / "p.yaml")
    assert parameters["use_sim_time"] is True
    assert parameters["gallery"].words == ("5",)
    assert parameters["gallery"].named == {"value_type": str}  # a folder named 5 is no number
    assert set(parameters) - {"use_sim_time"} <= {parameter.name for parameter in node_parameters()}
    assert parameters["camera_info_url"].words == ("file:///camera.yaml",)
    assert node["remappings"] == [("image", "/cam"), ("camera_info", "/lab/info")]
    assert node["respawn"] is True


def test_one_camera_has_a_name_and_a_namespace(launch: Callable[..., list[Noted]]) -> None:
    node = only(launch("localizer.launch.py", name="loc", namespace="front"), "Node").named
    assert (node["name"], node["namespace"]) == ("loc", "front")
    assert node["ros_arguments"] == ["--log-level", "front.loc:=info"]  # the logger's name
    node = only(launch("localizer.launch.py", namespace="/a/b"), "Node").named
    assert node["ros_arguments"] == ["--log-level", "a.b.geowarp_localizer:=info"]


def test_several_cameras_are_the_arguments_of_one_process(launch: Callable[..., list[Noted]]) -> None:
    node = only(launch("localizer.launch.py", cameras=" front  rear left ", log_level="debug"), "Node").named
    assert (node["executable"], node["arguments"]) == ("localizers", ["front", "rear", "left"])
    assert "name" not in node and "namespace" not in node  # which would rename all of them alike
    assert node["ros_arguments"] == ["--log-level", "debug"]


def test_several_cameras_are_started_by_the_launch_file_of_one(launch: Callable[..., list[Noted]]) -> None:
    include = only(launch("localizers.launch.py", cameras="front rear left"), "IncludeLaunchDescription")
    (source,) = include.words[0].words
    assert Path(source) == ROOT / "launch" / "localizer.launch.py"
    ((name, value),) = include.named["launch_arguments"]
    assert (name, value.name) == ("cameras", "cameras")


def test_a_replay_starts_the_localizer_in_the_bags_time_and_ends_with_the_bag(
    launch: Callable[..., list[Noted]],
) -> None:
    actions = launch("replay.launch.py", bag="drive", also="/gps:=/prior_fix /odom", loop="true", rate="2")
    include = only(actions, "IncludeLaunchDescription")
    (source,) = include.words[0].words
    assert Path(source) in FILES
    arguments = dict(include.named["launch_arguments"])
    assert arguments["use_sim_time"] == "true"
    assert set(arguments) <= {a.words[0] for a in launch(Path(source).name) if a.kind == "DeclareLaunchArgument"}
    player = only(actions, "ExecuteProcess")
    executable, *words = player.named["cmd"]
    assert executable.words[0] in executables()
    assert words == [
        *("play", "drive", "--clock", "--patience", "120", "--to", "/camera/image_raw", "--rate", "2"),
        *("--also", "/gps:=/prior_fix", "/odom", "--loop"),
    ]
    handler = only(actions, "RegisterEventHandler").words[0]
    assert handler.named["target_action"] is player
    assert handler.named["on_exit"][0].named["event"].kind == "Shutdown"


def test_the_player_knows_the_words_that_it_is_given(
    launch: Callable[..., list[Noted]], capsys: pytest.CaptureFixture[str]
) -> None:
    actions = launch(
        "replay.launch.py", bag="/nowhere/drive", bag_image="/cam", also="/gps:=/prior_fix", loop="true"
    )
    _, *words = only(actions, "ExecuteProcess").named["cmd"]
    assert main(words) == 1  # it has no such bag, and no quarrel with the words
    assert "/nowhere/drive" in capsys.readouterr().err
