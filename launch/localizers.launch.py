"""Start the localizer for several cameras: one process, one model, a namespace for each camera.

    ros2 launch geowarp_ros localizers.launch.py cameras:="front rear" gallery:=/path/to/gallery image:=image_raw

localises /front/image_raw and /rear/image_raw and publishes /front/geowarp_localizer/fix and so on. Cameras with
galleries or settings of their own have them in a parameter file, under /front/geowarp_localizer and so on.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

ARGUMENTS = {
    "cameras": ("front rear", "Their namespaces, between spaces."),
    "gallery": ("", "Folder of the gallery of all cameras; empty: as the parameter file says."),
    "model": ("", "Model file, or default; empty: as the parameter file says."),
    "image": ("image", "Topic of each camera, in its namespace."),
    "image_transport": ("", "raw or compressed; empty: as the parameter file says."),
    "params_file": ("", "Parameter file; empty: the defaults in config/localizer.yaml."),
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
    for name in ("gallery", "model", "image_transport"):
        if given[name]:
            parameters[name] = ParameterValue(given[name], value_type=str)
    return [
        Node(
            package="geowarp_ros",
            executable="localizers",
            arguments=given["cameras"].split(),
            parameters=[given["params_file"] or str(defaults), parameters],
            remappings=[("image", given["image"])],
            ros_arguments=["--log-level", given["log_level"]],
            output="both",
            emulate_tty=True,
            respawn=given["respawn"].lower() == "true",
            respawn_delay=2.0,
        )
    ]
