"""What the launch files start, told by stand-ins of ``launch`` and ``launch_ros`` that note what they are given.

There are no wheels of those two; where ROS 2 is installed the files run with the real ones.
"""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from geowarp_ros.cli import main
from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.parameters import node_parameters
from geowarp_ros.ros.process import NODE_NAME
from geowarp_ros.ros.topics import PUBLISHED, SUBSCRIBED

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))

STANDINS = {
    "launch": ("LaunchDescription",),
    "launch.actions": (
        "DeclareLaunchArgument",
        "EmitEvent",
        "ExecuteProcess",
        "OpaqueFunction",
        "RegisterEventHandler",
    ),
    "launch.event_handlers": ("OnProcessExit",),
    "launch.events": ("Shutdown",),
    "launch_ros": (),
    "launch_ros.actions": ("Node",),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
    "launch_ros.substitutions": ("ExecutableInPackage",),
}
SHARED = "geowarp_ros.ros.launching"


class Noted:
    """Something of ``launch`` with the words it was made with."""

    def __init__(self, kind: str, words: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.kind, self.words, self.named = kind, words, named


class Argument:
    """``LaunchConfiguration``: the value that the launch was given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: Any) -> str:
        return str(context.launch_configurations[self.name])


def noting(kind: str) -> Callable[..., Noted]:
    return lambda *words, **named: Noted(kind, words, named)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[Noted]]]:
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
    monkeypatch.setitem(sys.modules, SHARED, ModuleType(SHARED))  # restores what was there, or removes it
    del sys.modules[SHARED]

    def start(file: str, /, pushed: str = "", **given: str) -> list[Noted]:
        """Return all actions of a launch file with these arguments, perhaps below a namespace that was pushed."""
        module = runpy.run_path(str(ROOT / "launch" / file))
        (entities,) = module["generate_launch_description"]().words
        declared = {e.words[0]: e.named["default_value"] for e in entities if e.kind == "DeclareLaunchArgument"}
        assert set(given) <= set(declared)
        configurations = declared | given | ({"ros_namespace": pushed} if pushed else {})
        context = SimpleNamespace(launch_configurations=configurations)
        actions: list[Noted] = []
        for entity in entities:
            actions += entity.named["function"](context) if entity.kind == "OpaqueFunction" else [entity]
        return actions

    yield start


def arguments(launch: Callable[..., list[Noted]], file: str) -> set[str]:
    return {action.words[0] for action in launch(file) if action.kind == "DeclareLaunchArgument"}


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


def test_the_launch_files_share_their_arguments(launch: Callable[..., list[Noted]]) -> None:
    one, several, replay = (
        arguments(launch, f"{name}.launch.py") for name in ("localizer", "localizers", "replay")
    )
    assert several - one == {"cameras"} and one <= several
    assert one - replay == {"use_sim_time"}  # it has its own clock, and does not say otherwise


BOTH = pytest.mark.parametrize("file", ["localizer.launch.py", "localizers.launch.py"])


@BOTH
def test_nothing_is_passed_on_that_is_not_given(file: str, launch: Callable[..., list[Noted]]) -> None:
    """What an including launch file sets with SetParameter or SetRemap holds, and so do the code's defaults."""
    node = only(launch(file), "Node").named
    assert node["package"] == "geowarp_ros" and node["executable"] in executables()
    assert (node["parameters"], node["remappings"]) == ([], [])


@BOTH
def test_what_is_given_reaches_the_node(file: str, launch: Callable[..., list[Noted]], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").touch()
    texts = {
        "gallery": "5",
        "model": "m",
        "image_transport": "compressed",
        "camera_info_url": "file:///camera.yaml",
    }
    texts |= {"frame_id": "cam", "map_frame": "town", "base_frame": "base_link"}
    topics = {"image": "/cam", "camera_info": "/lab/info", "odometry": "/odom", "prior_fix": "/gps"}
    switches = {"map_to_odom": "true", "use_sim_time": "TRUE", "autostart": "False"}
    given = texts | topics | switches | {"params_file": str(tmp_path / "p.yaml"), "respawn": "True"}
    node = only(launch(file, **given), "Node").named
    first, parameters = node["parameters"]
    assert first == str(tmp_path / "p.yaml")
    for name, text in texts.items():
        assert parameters[name].words == (text,)
        assert parameters[name].named == {"value_type": str}  # a folder named 5 is no number
    assert {name: parameters[name] for name in switches} == {
        "map_to_odom": True,
        "use_sim_time": True,
        "autostart": False,
    }
    assert set(parameters) == set(texts | switches)
    assert dict(node["remappings"]) == topics
    assert node["respawn"] is True


def test_arguments_are_the_nodes_parameters_and_topics(launch: Callable[..., list[Noted]]) -> None:
    launch("localizer.launch.py")
    shared = sys.modules[SHARED]
    own = {parameter.name: type(parameter.default) for parameter in node_parameters()} | {"use_sim_time": bool}
    assert all(own[name] is kind for name, (kind, _) in shared.PARAMETERS.items())
    assert set(shared.TOPICS) <= set(SUBSCRIBED)
    assert {f"~/{topic}" for topic in shared.SHOWN} <= set(PUBLISHED)
    assert shared.NAME == NODE_NAME


@BOTH
def test_a_parameter_file_that_is_not_there_is_refused(
    file: str, launch: Callable[..., list[Noted]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for absent in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"params_file = .*no file {absent}$"):
            launch(file, params_file=str(absent))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.yaml").touch()
    assert only(launch(file, params_file="~/p.yaml"), "Node").named["parameters"] == [str(tmp_path / "p.yaml")]


@pytest.mark.parametrize("name", ["autostart", "map_to_odom", "use_sim_time", "respawn", "rviz"])
def test_a_switch_is_true_or_false(name: str, launch: Callable[..., list[Noted]]) -> None:
    with pytest.raises(ConfigError, match=f"{name} = 'maybe': expected true or false"):
        launch("localizer.launch.py", **{name: "maybe"})


@pytest.mark.parametrize(
    ("pushed", "namespace", "logger"),
    [
        ("", "", ""),
        ("", "front", "front."),
        ("", "/a/b", "a.b."),
        ("/robot", "", "robot."),
        ("/robot", "front/left", "robot.front.left."),
        ("/robot", "/front", "front."),
    ],
)
def test_one_camera_logs_under_its_whole_name(
    pushed: str, namespace: str, logger: str, launch: Callable[..., list[Noted]]
) -> None:
    given = {"namespace": namespace, "name": "loc"}
    assert "ros_arguments" not in only(launch("localizer.launch.py", pushed, **given), "Node").named
    node = only(launch("localizer.launch.py", pushed, log_level="debug", **given), "Node").named
    assert (node["name"], node["namespace"]) == ("loc", namespace)  # launch_ros puts it below what is pushed
    assert node["ros_arguments"] == ["--log-level", f"{logger}loc:=debug"]


def test_several_cameras_are_the_arguments_of_one_process(launch: Callable[..., list[Noted]]) -> None:
    given = {"cameras": " front  rear /sky", "log_level": "debug", "namespace": "cams"}
    node = only(launch("localizers.launch.py", "/robot", **given), "Node").named
    assert (node["executable"], node["arguments"]) == ("localizers", ["front", "rear", "/sky"])
    assert node["namespace"] == "cams" and "name" not in node
    assert node["ros_arguments"] == [
        *("-r", "__node:=geowarp_localizer"),
        *("--log-level", "robot.cams.front.geowarp_localizer:=debug"),
        *("--log-level", "robot.cams.rear.geowarp_localizer:=debug"),
        *("--log-level", "sky.geowarp_localizer:=debug"),
    ]  # and not the level of all loggers, which is DDS's and rcl's, too


def test_rviz_shows_the_node_wherever_it_is(launch: Callable[..., list[Noted]], tmp_path: Path) -> None:
    assert len(launch("localizer.launch.py", rviz="false")) == len(launch("localizer.launch.py", rviz="true")) - 1
    given = {"rviz": "true", "map_frame": "town", "use_sim_time": "true"}
    for actions, whole in [
        (launch("localizer.launch.py", "/robot", name="loc", **given), "/robot/loc"),
        (launch("localizers.launch.py", "/robot", **given), "/robot/front/geowarp_localizer"),
    ]:
        rviz = actions[-1].named
        assert (rviz["package"], rviz["executable"]) == ("rviz2", "rviz2")
        layout = tmp_path / "geowarp_ros" / "layouts" / "geowarp.rviz"
        assert rviz["arguments"] == ["-d", str(layout), "-f", "town"]
        assert rviz["parameters"] == [{"use_sim_time": True}]
        assert rviz["remappings"][0] == ("/geowarp_localizer/pose", f"{whole}/pose")
        text = (ROOT / "docs" / "layouts" / layout.name).read_text()
        assert all(f"Value: {shown}\n" in text for shown, _ in rviz["remappings"])


def test_the_systems_python_can_read_the_launch_files() -> None:
    """Without site-packages: what the node needs may be in a virtual environment, ``ros2 launch`` is not."""
    script = f"""
import runpy, sys, types
sys.path.insert(0, {str(ROOT)!r})
for module, names in {STANDINS | {"launch.substitutions": ("LaunchConfiguration",)}!r}.items():
    sys.modules[module] = standin = types.ModuleType(module)
    for name in names:
        setattr(standin, name, lambda *words, **named: None)
sys.modules["ament_index_python"] = types.ModuleType("ament_index_python")
sys.modules["ament_index_python.packages"] = index = types.ModuleType("packages")
index.get_package_share_directory = None
for path in {[str(path) for path in FILES]!r}:
    runpy.run_path(path)["generate_launch_description"]()
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_replay_starts_the_localizer_in_the_bags_time_and_ends_with_the_bag(
    launch: Callable[..., list[Noted]],
) -> None:
    actions = launch("replay.launch.py", bag="drive", also="/gps:=/prior_fix /odom", loop="true", rate="2")
    node = only(actions, "Node").named
    assert node["parameters"] == [{"use_sim_time": True}]
    assert node["remappings"] == [("image", "/camera/image_raw")]
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
