"""What the launch files share: the arguments of a localizer, and the actions that start it.

``ros2 launch`` runs in the system's Python, the node perhaps in a virtual environment that holds what the system
lacks. So nothing is imported here but the standard library, ``launch``, ``launch_ros`` and ``ament_index_python``.

Only what is given is passed on: a parameter that an including launch file sets (``SetParameter``, such as nav2's
``use_sim_time``) and the namespace that it pushes (``PushRosNamespace``) hold wherever an argument is empty.
"""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from geowarp_ros.errors import ConfigError
from geowarp_ros.files import expanded, quoted

PACKAGE, NAME = "geowarp_ros", "geowarp_localizer"

PARAMETERS: dict[str, tuple[type, str]] = {
    "gallery": (str, "Folder of the gallery"),
    "model": (str, "Model file, or default"),
    "image_transport": (str, "raw or compressed"),
    "camera_info_url": (str, "Calibration file of the images, instead of CameraInfo"),
    "frame_id": (str, "frame_id of the fixes"),
    "map_frame": (str, "Local ENU frame of the poses"),
    "base_frame": (str, "Frame of the robot whose position is published; the camera's offset is in params_file"),
    "map_to_odom": (bool, "Publish the transform from map_frame to the odometry's frame"),
    "use_sim_time": (bool, "Follow /clock"),
    "autostart": (bool, "Configure and activate at start; false: a lifecycle manager does"),
}
"""Parameter -> its type, and what its argument says; docs/node.md has the whole of it."""

TOPICS: dict[str, tuple[str, str]] = {
    "image": ("", "Topic of the camera; with image_transport:=compressed, its /compressed; empty: image."),
    "camera_info": ("", "Topic of the camera's CameraInfo; empty: camera_info beside the images."),
    "odometry": ("", "Topic of the odometry; empty: odometry."),
    "prior_fix": ("", "Topic of another source's fixes, for prior.source: fix; empty: prior_fix."),
}
"""Subscription -> default and description of its argument."""

PROCESS: dict[str, tuple[str, str]] = {
    "params_file": ("", "Parameter file; empty: the code's defaults, which config/localizer.yaml lists."),
    "namespace": ("", "Namespace, below the one that an including launch file pushes."),
    "name": (NAME, "Name of the node."),
    "respawn": ("false", "Start the process again when it ends."),
    "log_level": ("", "debug, info, warn, error or fatal, of the node alone; empty: info."),
    "rviz": ("false", "Start RViz with the layout of this package; needs the package rviz2."),
}
"""Argument -> default and description."""

SHOWN = ("pose", "candidates", "match_image/compressed")
"""What the layout for RViz shows, under the name of the node."""


def localizer_arguments(*without: str, **defaults: str) -> list[Any]:
    """Declare the arguments of a localizer.

    Args:
        *without: Those that the launch file decides itself.
        **defaults: Other defaults than the usual ones.
    """
    said = {name: ("", f"{meaning}; empty: as in params_file.") for name, (_, meaning) in PARAMETERS.items()}
    said |= TOPICS | PROCESS
    return [
        DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=description)
        for name, (default, description) in said.items()
        if name not in without
    ]


def localizer(context: Any, **fixed: str) -> list[Any]:
    """Start the node of one camera.

    Args:
        context: Of the launch.
        **fixed: Arguments that the launch file decides itself.

    Raises:
        ConfigError: ``params_file`` is no file.
    """
    given = _given(context, fixed)
    namespace = _namespace(context, given["namespace"])
    who = {"executable": "localizer", "name": given["name"], "namespace": given["namespace"]}
    return _actions(given, [f"{namespace}/{given['name']}"], [], who)


def localizers(context: Any) -> list[Any]:
    """Start the nodes of several cameras, ``cameras``, in one process: each in a namespace of its own.

    Raises:
        ConfigError: No camera, or ``params_file`` is no file.
    """
    given = _given(context, {})
    namespace = _namespace(context, given["namespace"])
    cameras = LaunchConfiguration("cameras").perform(context).split()
    if not cameras:
        raise ConfigError("cameras = '': expected their namespaces, separated by spaces")
    nodes = [posixpath.join(namespace or "/", camera, given["name"]) for camera in cameras]
    who = {"executable": "localizers", "arguments": cameras, "namespace": given["namespace"]}
    return _actions(given, nodes, ["-r", f"__node:={given['name']}"], who)


def localizer_name(context: Any) -> str:
    """Return the full name of the node of one camera, by its arguments and the namespace that was pushed."""
    namespace, name = (LaunchConfiguration(word).perform(context) for word in ("namespace", "name"))
    return f"{_namespace(context, namespace)}/{name}"


def gallery_datum(gallery: str) -> tuple[float, float, float]:
    """Return latitude (deg), longitude (deg) and altitude (m) of a gallery's map frame, for others to share.

    Raises:
        ConfigError: No gallery, or one whose datum is not stored.
    """
    manifest = expanded(f"{gallery}/gallery.json")
    try:
        stored = json.loads(manifest.read_bytes()).get("datum")
    except (OSError, ValueError, AttributeError):
        raise ConfigError(f"gallery = {gallery!r}: expected the folder of a gallery") from None
    if not stored:
        raise ConfigError(f"{manifest}: no datum; store it with: geowarp gallery datum {quoted(gallery)} --centre")
    latitude, longitude, altitude = map(float, stored)
    return latitude, longitude, altitude


def _given(context: Any, fixed: dict[str, str]) -> dict[str, str]:
    names = {*PARAMETERS, *TOPICS, *PROCESS} - fixed.keys()
    return fixed | {name: LaunchConfiguration(name).perform(context) for name in names}


def _namespace(context: Any, own: str) -> str:
    """Return the absolute namespace of what is started here, "" for the root; as ``launch_ros`` resolves it."""
    return posixpath.join("/", context.launch_configurations.get("ros_namespace", ""), own).rstrip("/")


def _actions(given: dict[str, str], nodes: list[str], ros_arguments: list[str], who: dict[str, Any]) -> list[Any]:
    """Make the process of the nodes with these full names, and RViz if it is asked for."""
    own = {
        name: _yes(given, name) if kind is bool else given[name]
        for name, (kind, _) in PARAMETERS.items()
        if given[name]
    }
    parameters = []
    if given["params_file"]:
        file = expanded(given["params_file"])
        if not file.is_file():  # for launch_ros a warning, and the node would start with its defaults
            raise ConfigError(f"params_file = {given['params_file']!r}: no file {file.absolute()}")
        parameters.append(str(file))
    if own:
        parameters.append(_parameter_file(own, nodes))
    if given["log_level"]:  # of the nodes' own loggers: for all of them it would be that of DDS and rcl, too
        levels = [f"{node[1:].replace('/', '.')}:={given['log_level']}" for node in nodes]
        ros_arguments = [*ros_arguments, *(word for level in levels for word in ("--log-level", level))]
    process = Node(
        package=PACKAGE,
        **who,
        parameters=parameters,
        remappings=[(name, given[name]) for name in TOPICS if given[name]],
        **({"ros_arguments": ros_arguments} if ros_arguments else {}),
        output="both",
        emulate_tty=True,
        respawn=_yes(given, "respawn"),
        respawn_delay=2.0,
    )
    if not _yes(given, "rviz"):
        return [process]
    layout = Path(get_package_share_directory(PACKAGE), "layouts", "geowarp.rviz")
    fixed_frame = ["-f", given["map_frame"]] if given["map_frame"] else []
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz_geowarp",
        arguments=["-d", str(layout), *fixed_frame],
        parameters=[{name: value for name, value in own.items() if name == "use_sim_time"}],
        remappings=[(f"/{NAME}/{topic}", f"{nodes[0]}/{topic}") for topic in SHOWN],
    )
    return [process, rviz]


def _parameter_file(values: dict[str, Any], nodes: list[str]) -> str:
    """Write parameters for nodes with these full names; returns the file.

    Of the patterns that match a node, rcl prefers the one whose first appearance is the latest. What launch_ros
    gives to ``/**``, where it knows no name, would give way to a file's ``/**/geowarp_localizer`` after a
    SetParameter.
    """
    with NamedTemporaryFile("w", prefix="launch_params_geowarp_", suffix=".yaml", delete=False) as file:
        json.dump({node: {"ros__parameters": values} for node in nodes}, file)  # which is YAML, with texts quoted
    return file.name


def _yes(given: dict[str, str], name: str) -> bool:
    if (text := given[name].lower()) not in ("true", "false"):
        raise ConfigError(f"{name} = {given[name]!r}: expected true or false")
    return text == "true"
