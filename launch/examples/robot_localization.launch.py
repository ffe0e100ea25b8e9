"""robot_localization: wheel odometry and the localizer's fixes, fused to map -> odom -> base_link.

    ros2 launch geowarp_ros robot_localization.launch.py gallery:=/path/to/gallery image:=/camera/image_raw \
        odometry:=/odom

Needs robot_localization. navsat_transform turns ~/fix into odometry/gps in the localizer's own map frame, because
it has the same datum, the gallery's; the heading comes from ~/pose, so that no compass is needed. A fix without an
orientation says so in its variance. All arguments of localizer.launch.py can be given, too. Parameters:
robot_localization.yaml beside this file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterFile

from geowarp_ros.ros.launching import gallery_datum
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    params_file, use_sim_time = LaunchConfiguration("params_file"), LaunchConfiguration("use_sim_time")
    sim_time_given = IfCondition(NotEqualsSubstitution(use_sim_time, ""))

    def node(executable: str, name: str, **topics: str) -> Node:
        return Node(
            package="robot_localization",
            executable=executable,
            name=name,
            namespace=LaunchConfiguration("namespace"),
            parameters=[ParameterFile(params_file, allow_substs=True)],
            remappings=[(topic.replace("__", "/"), other) for topic, other in topics.items()],
            output="screen",
        )

    odometry = LaunchConfiguration("odometry")
    return LaunchDescription(
        [
            DeclareLaunchArgument("gallery", description="Folder of the gallery, whose datum is used."),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(Path(__file__).with_name("robot_localization.yaml")),
                description="Parameters of all nodes; $(var datum) is the gallery's.",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes."),
            DeclareLaunchArgument("odometry", default_value="odom", description="Topic of the wheel odometry."),
            DeclareLaunchArgument("use_sim_time", default_value="", description="Follow /clock."),
            SetParameter("use_sim_time", use_sim_time, condition=sim_time_given),
            OpaqueFunction(function=_set_datum),
            IncludeLaunchDescription(
                str(Path(get_package_share_directory("geowarp_ros"), "launch", "localizer.launch.py")),
            ),
            node("ekf_node", "ekf_filter_node_odom", odom=odometry, odometry__filtered="odometry/local"),
            node("ekf_node", "ekf_filter_node_map", odom=odometry, odometry__filtered="odometry/global"),
            node(
                "navsat_transform_node",
                "navsat_transform",
                gps__fix="geowarp_localizer/fix",
                odometry__filtered="odometry/global",
            ),
        ]
    )


def _set_datum(context):
    latitude, longitude, _ = gallery_datum(LaunchConfiguration("gallery").perform(context))
    return [SetLaunchConfiguration("datum", f"[{latitude!r}, {longitude!r}, 0.0]")]  # yaw 0: the map frame is ENU
