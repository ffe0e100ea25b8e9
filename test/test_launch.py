"""What the launch files start, told by stand-ins of ``launch`` and ``launch_ros`` that note what they are given.

There are no wheels of those two; where ROS 2 is installed the files run with the real ones.
"""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from pyproj import Transformer
from rclpy.context import Context
from rclpy.node import Node

from geowarp_ros.cli import main
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.conversions import navsatfix_from_answer, pose_from_fix
from geowarp_ros.ros.parameters import node_parameters, parse_parameters
from geowarp_ros.ros.process import NODE_NAME
from geowarp_ros.ros.topics import FIX, POSE, PUBLISHED, SUBSCRIBED
from geowarp_ros.types import Answer, Fix, Header
from test.test_package import dotted

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
RECIPES = sorted((ROOT / "launch" / "examples").glob("*.launch.py"))

STANDINS = {
    "launch": ("LaunchDescription",),
    "launch.actions": (
        "DeclareLaunchArgument",
        "EmitEvent",
        "ExecuteProcess",
        "IncludeLaunchDescription",
        "OpaqueFunction",
        "RegisterEventHandler",
        "SetLaunchConfiguration",
    ),
    "launch.conditions": ("IfCondition",),
    "launch.event_handlers": ("OnProcessExit",),
    "launch.events": ("Shutdown",),
    "launch_ros": (),
    "launch_ros.actions": ("Node", "SetParameter"),
    "launch_ros.parameter_descriptions": ("ParameterFile",),
    "launch_ros.substitutions": ("ExecutableInPackage",),
}
SUBSTITUTIONS = ("LaunchConfiguration", "NotEqualsSubstitution")
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
    substitutions = SimpleNamespace(
        LaunchConfiguration=Argument, NotEqualsSubstitution=noting("NotEqualsSubstitution")
    )
    monkeypatch.setitem(sys.modules, "launch.substitutions", substitutions)
    index = SimpleNamespace(get_package_share_directory=lambda package: str(tmp_path / package))
    monkeypatch.setitem(sys.modules, "ament_index_python", ModuleType("ament_index_python"))
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", index)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, SHARED, ModuleType(SHARED))  # restores what was there, or removes it
    del sys.modules[SHARED]

    def start(file: str, /, pushed: str = "", **given: str) -> list[Noted]:
        """Return all actions of a launch file with these arguments, perhaps below a namespace that was pushed."""
        module = runpy.run_path(str(ROOT / "launch" / file))
        (entities,) = module["generate_launch_description"]().words
        declared = {
            e.words[0]: e.named.get("default_value") for e in entities if e.kind == "DeclareLaunchArgument"
        }
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
    given = texts | topics | switches | {"params_file": str(tmp_path / "p.yaml"), "respawn": "True", "name": "loc"}
    node = only(launch(file, **given), "Node").named
    first, second = node["parameters"]
    assert first == str(tmp_path / "p.yaml")
    by_node = yaml.safe_load(Path(second).read_text())
    names = ["/loc"] if file == "localizer.launch.py" else ["/front/loc", "/rear/loc"]
    own = texts | {"map_to_odom": True, "use_sim_time": True, "autostart": False}  # a folder named 5 is no number
    assert by_node == {name: {"ros__parameters": own} for name in names}
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


def test_no_camera_is_refused(launch: Callable[..., list[Noted]]) -> None:
    with pytest.raises(ConfigError, match="cameras = '': expected their namespaces"):
        launch("localizers.launch.py", cameras=" ", rviz="true")


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
for module, names in {STANDINS | {"launch.substitutions": SUBSTITUTIONS}!r}.items():
    sys.modules[module] = standin = types.ModuleType(module)
    for name in names:
        setattr(standin, name, lambda *words, **named: None)
sys.modules["ament_index_python"] = types.ModuleType("ament_index_python")
sys.modules["ament_index_python.packages"] = index = types.ModuleType("packages")
index.get_package_share_directory = str
for path in {[str(path) for path in FILES + RECIPES]!r}:
    runpy.run_path(path)["generate_launch_description"]()
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_replay_starts_the_localizer_in_the_bags_time_and_ends_with_the_bag(
    launch: Callable[..., list[Noted]],
) -> None:
    actions = launch("replay.launch.py", bag="drive", also="/gps:=/prior_fix /odom", loop="true", rate="2")
    node = only(actions, "Node").named
    (own,) = node["parameters"]
    assert yaml.safe_load(Path(own).read_text()) == {
        "/geowarp_localizer": {"ros__parameters": {"use_sim_time": True}}
    }
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


def sections(recipe: str) -> dict[str, dict[str, Any]]:
    """The parameters of a recipe, by the name of their node."""
    text = (ROOT / "launch" / "examples" / f"{recipe}.yaml").read_text()
    return {key.removeprefix("/**/"): value["ros__parameters"] for key, value in yaml.safe_load(text).items()}


def variables(recipe: str) -> set[str]:
    return set(re.findall(r"\$\(var (\w+)\)", (ROOT / "launch" / "examples" / f"{recipe}.yaml").read_text()))


@pytest.fixture
def gallery(tmp_path: Path) -> str:
    (tmp_path / "gallery.json").write_text('{"format": "geowarp-gallery", "datum": [48.5, -2.25, 61.0]}')
    return str(tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_includes_the_localizer_with_parameters_that_it_has(
    path: Path, launch: Callable[..., list[Noted]], gallery: str, tmp_path: Path
) -> None:
    recipe = path.name.removesuffix(".launch.py")
    actions = (
        launch(f"examples/{path.name}", gallery=gallery) if recipe != "nav2" else launch("examples/nav2.launch.py")
    )
    included = only(actions, "IncludeLaunchDescription")
    assert included.words == (str(tmp_path / "geowarp_ros" / "launch" / "localizer.launch.py"),)
    declared = {a.words[0]: a.named.get("default_value") for a in actions if a.kind == "DeclareLaunchArgument"}
    assert declared["params_file"] == str(path.with_name(f"{recipe}.yaml"))
    assert declared.keys() <= arguments(launch, "localizer.launch.py") | {"firmware", "feed", "fcu_url", "pose"}
    config = parse_parameters(dict(dotted(sections(recipe)[NODE_NAME])))
    assert config.base_frame == "base_link"  # what all of them take a pose for
    assert config.autostart is (recipe != "nav2")
    assert config.map_to_odom is (recipe == "nav2")  # of the others nobody, or the filter


def test_navs_lifecycle_manager_manages_the_localizer(launch: Callable[..., list[Noted]]) -> None:
    manager = only(launch("examples/nav2.launch.py"), "Node").named
    given = sections("nav2")[manager["name"]]
    assert (manager["package"], manager["executable"]) == ("nav2_lifecycle_manager", "lifecycle_manager")
    assert given == {"autostart": True, "node_names": [NODE_NAME], "bond_timeout": 0.0}


def test_robot_localization_fuses_fix_and_heading_in_the_localizers_map_frame(
    launch: Callable[..., list[Noted]], gallery: str
) -> None:
    actions = launch("examples/robot_localization.launch.py", gallery=gallery)
    assert only(actions, "SetLaunchConfiguration").words == ("datum", "[48.5, -2.25, 0.0]")
    assert variables("robot_localization") == {"datum"}
    nodes = {action.named["name"]: action.named for action in actions if action.kind == "Node"}
    given = sections("robot_localization")
    assert nodes.keys() == given.keys() - {NODE_NAME}
    topics = dict(nodes["navsat_transform"]["remappings"])
    assert topics["gps/fix"] == FIX.replace("~", NODE_NAME)
    locally, globally = given["ekf_filter_node_odom"], given["ekf_filter_node_map"]
    assert globally["pose0"] == POSE.replace("~", NODE_NAME)
    assert topics["odometry/filtered"] == dict(nodes["ekf_filter_node_map"]["remappings"])["odometry/filtered"]
    assert globally["world_frame"] == NodeConfig().map_frame and locally["world_frame"] == locally["odom_frame"]

    def fused(of: dict[str, Any], source: str) -> list[str]:
        names = [f"{of_what}{axis}" for of_what in ("", "v") for axis in ("x", "y", "z", "roll", "pitch", "yaw")]
        names += ["ax", "ay", "az"]
        return [name for name, used in zip(names, of[f"{source}_config"], strict=True) if used]

    assert fused(globally, "odom1") == ["x", "y"] and fused(globally, "pose0") == ["yaw"]  # each once
    assert fused(globally, "odom0") == fused(locally, "odom0") == ["vx", "vy", "vyaw"]


@pytest.mark.parametrize(("firmware", "hil"), [("px4", "true"), ("apm", "false")])
def test_mavros_takes_the_pose_with_its_covariance(
    firmware: str, hil: str, launch: Callable[..., list[Noted]], gallery: str, tmp_path: Path
) -> None:
    for feed, topic in [("vision_pose", "vision_pose/pose_cov"), ("fake_gps", "fake_gps/mocap/pose_cov")]:
        actions = launch("examples/mavros.launch.py", gallery=gallery, feed=feed, firmware=firmware)
        mavros = only(actions, "Node").named
        ((source, pose),) = mavros["remappings"]
        assert (source, pose) == (topic, "/geowarp_localizer/pose")
        *_, shipped, ours = mavros["parameters"]  # ours is last, and holds
        assert shipped == str(tmp_path / "mavros" / "launch" / f"{firmware}_config.yaml")
        assert (ours.words[0].name, ours.named) == ("params_file", {"allow_substs": True})
        set_to = dict(action.words for action in actions if action.kind == "SetLaunchConfiguration")
        origin = {"datum_latitude": "48.5", "datum_longitude": "-2.25", "datum_altitude": "61.0"}
        assert set_to == origin | {"use_hil_gps": hil}
        assert variables("mavros") == set_to.keys()


@pytest.mark.parametrize(
    ("pushed", "given", "expected"),
    [
        ("/robot", {}, "/robot/geowarp_localizer/pose"),
        ("/robot", {"namespace": "cams", "name": "front"}, "/robot/cams/front/pose"),
        ("", {"namespace": "/cams"}, "/cams/geowarp_localizer/pose"),
        ("/robot", {"pose": "/other/pose"}, "/other/pose"),
    ],
)
def test_mavros_hears_the_localizer_in_any_namespace(
    pushed: str, given: dict[str, str], expected: str, launch: Callable[..., list[Noted]], gallery: str
) -> None:
    actions = launch("examples/mavros.launch.py", pushed, gallery=gallery, **given)
    assert only(actions, "Node").named["remappings"] == [("vision_pose/pose_cov", expected)]


def test_what_mavros_and_navsat_transform_make_of_an_answer_agrees_with_the_other_message() -> None:
    """Both recipes have the gallery's datum: ENU at it turns the fix into the pose, and back (by PROJ)."""
    datum = LocalFrame(48.5, -2.25, 61.0)
    fix = Fix(48.5043, -2.2417, 75.0, np.diag([4.0, 9.0, 16.0]), 0.9)
    sent = navsatfix_from_answer(Answer(Header(0, "base_link"), fix), datum, NodeConfig())
    pose = pose_from_fix(fix, 0, datum, NodeConfig()).pose.pose.position
    to_enu = Transformer.from_pipeline(
        "+proj=pipeline +step +proj=cart +ellps=WGS84"
        " +step +proj=topocentric +ellps=WGS84 +lat_0=48.5 +lon_0=-2.25 +h_0=61"
    )
    enu = to_enu.transform(sent.longitude, sent.latitude, sent.altitude)  # navsat_transform, use_local_cartesian
    assert enu == pytest.approx((pose.x, pose.y, pose.z), abs=1e-3)
    longitude, latitude, altitude = to_enu.transform(pose.x, pose.y, pose.z, direction="INVERSE")
    assert (longitude, latitude) == pytest.approx((sent.longitude, sent.latitude), abs=1e-8)
    assert altitude == pytest.approx(sent.altitude, abs=1e-3)  # mavros's fake_gps


@contextmanager
def node(name: str, namespace: str, *ros_arguments: str) -> Iterator[Node]:
    """A node of a process with these arguments."""
    context = Context()
    rclpy.init(args=["--ros-args", *ros_arguments], context=context)
    made = Node(name, namespace=namespace, context=context, automatically_declare_parameters_from_overrides=True)
    yield made
    made.destroy_node()
    context.shutdown()


@pytest.mark.ros
@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipes_parameters_reach_their_nodes_in_any_namespace(path: Path) -> None:
    recipe = path.name.removesuffix(".launch.py")
    for name, given in sections(recipe).items():
        for namespace in ("/", "/robot/left"):
            with node(name, namespace, "--params-file", str(path.with_name(f"{recipe}.yaml"))) as made:
                got = {key: parameter.value for key, parameter in made.get_parameters_by_prefix("").items()}
                assert dict(dotted(given)).items() <= got.items()


@pytest.mark.ros
@pytest.mark.usefixtures("graph")
@BOTH
def test_arguments_go_before_the_parameter_file_and_that_before_what_is_set_around(
    file: str, launch: Callable[..., list[Noted]]
) -> None:
    """By rcl, with the words that launch_ros makes: SetParameter, then the parameter files in turn."""
    given = {"params_file": str(ROOT / "launch" / "examples" / "nav2.yaml"), "autostart": "true", "frame_id": "5"}
    files = only(launch(file, "/robot", **given), "Node").named["parameters"]
    words = [word for name in files for word in ("--params-file", name)]
    namespace = "/robot" if file == "localizer.launch.py" else "/robot/rear"
    around = ("-p", "map_to_odom:=false", "-p", "lost_after:=7")
    with node(NODE_NAME, namespace, *around, *words) as made:
        got = {key: parameter.value for key, parameter in made.get_parameters_by_prefix("").items()}
    assert (got["autostart"], got["frame_id"], got["map_to_odom"], got["lost_after"]) == (True, "5", True, 7)


@pytest.mark.ros
@pytest.mark.usefixtures("graph")
@pytest.mark.parametrize("feed", ["vision_pose", "fake_gps"])
def test_mavros_plugin_subscribes_to_the_localizers_pose(
    feed: str, launch: Callable[..., list[Noted]], gallery: str
) -> None:
    """Each plugin is a node of its own, in the namespace of MAVROS; rcl resolves its private name."""
    mavros = only(launch("examples/mavros.launch.py", gallery=gallery, feed=feed), "Node").named
    ((source, _),) = mavros["remappings"]
    private = {"vision_pose": "~/pose_cov", "fake_gps": "~/mocap/pose_cov"}[feed]
    with node(feed, "/mavros", "-r", f"{source}:=/geowarp_localizer/pose") as plugin:
        assert plugin.resolve_topic_name(private) == "/geowarp_localizer/pose"
        assert plugin.resolve_topic_name("~/other") == f"/mavros/{feed}/other"


def test_a_gallery_without_a_datum_is_refused_with_what_stores_one(
    launch: Callable[..., list[Noted]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="gallery = '': expected the folder of a gallery"):
        launch("examples/mavros.launch.py", gallery="")
    for content, said in [("[]", "expected the folder"), ('{"datum": null}', "geowarp gallery datum .* --centre")]:
        (tmp_path / "gallery.json").write_text(content)
        with pytest.raises(ConfigError, match=said):
            launch("examples/robot_localization.launch.py", gallery=str(tmp_path))
