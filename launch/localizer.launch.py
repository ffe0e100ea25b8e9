"""Start the localizer for one camera.

    ros2 launch geowarp_ros localizer.launch.py gallery:=/path/to/gallery image:=/camera/image_raw

The node configures and activates itself (its parameter ``autostart``): a gallery that cannot be loaded ends the
process with one clear line and status 1. With ``autostart:=false`` it waits for a lifecycle manager.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from geowarp_ros.files import expanded
from launch import LaunchDescription

ARGUMENTS = {
    "gallery": ("", "Folder of the gallery; empty: as in the parameter file."),
    "model": ("", "Model file, or default; empty: as in the parameter file."),
    "image": ("image", "Topic of the camera; with image_transport:=compressed, its /compressed."),
    "camera_info": ("", "Topic of the camera's CameraInfo; empty: camera_info beside the images."),
    "camera_info_url": ("", "Calibration file instead of CameraInfo; empty: as in the parameter file."),
    "image_transport": ("", "raw or compressed; empty: as in the parameter file."),
    "params_file": ("", "Parameter file; empty: the defaults in config/localizer.yaml."),
    "namespace": ("", "Namespace of the node."),
    "name": ("geowarp_localizer", "Name of the node."),
    "cameras": ("", "Namespaces of several cameras, which replace namespace and name; see localizers.launch.py."),
    "use_sim_time": ("false", "Follow /clock."),
    "autostart": ("true", "Configure and activate at start; false: a lifecycle manager does."),
    "respawn": ("false", "Start the process again when it ends."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    defaults = Path(get_package_share_directory("geowarp_ros"), "config", "localizer.yaml")
    parameters = {name: given[name].lower() == "true" for name in ("use_sim_time", "autostart")}
    for name in ("gallery", "model", "camera_info_url", "image_transport"):
        if given[name]:
            parameters[name] = ParameterValue(given[name], value_type=str)
    if cameras := given["cameras"].split():
        which, log_level = {"executable": "localizers", "arguments": cameras}, given["log_level"]
    else:
        which = {"executable": "localizer", "name": given["name"], "namespace": given["namespace"]}
        logger = f"{given['namespace']}/{given['name']}".strip("/").replace("/", ".")
        log_level = f"{logger}:={given['log_level']}"
    return [
        Node(
            package="geowarp_ros",
            **which,
            parameters=[str(expanded(given["params_file"] or str(defaults))), parameters],
            remappings=[(name, given[name]) for name in ("image", "camera_info") if given[name]],
            ros_arguments=["--log-level", log_level],
            output="both",
            emulate_tty=True,
            respawn=given["respawn"].lower() == "true",
            respawn_delay=2.0,
        )
    ]
