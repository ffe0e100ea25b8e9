"""The localizer in the place of AMCL: nav2's lifecycle manager brings it up, and it publishes map -> odom.

    ros2 launch geowarp_ros nav2.launch.py gallery:=/path/to/gallery image:=/camera/image_raw odometry:=/odom

Needs nav2_lifecycle_manager. Then start the rest of nav2 without its own localization:

    ros2 launch nav2_bringup navigation_launch.py

with a global costmap that rolls (rolling_window: true, no static_layer) unless a map of the same frame is served.
All arguments of localizer.launch.py can be given, too. Parameters: nav2.yaml beside this file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution
from launch_ros.actions import Node, SetParameter

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    params_file, use_sim_time = LaunchConfiguration("params_file"), LaunchConfiguration("use_sim_time")
    sim_time_given = IfCondition(NotEqualsSubstitution(use_sim_time, ""))
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=str(Path(__file__).with_name("nav2.yaml")),
                description="Parameters of localizer and lifecycle manager.",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of both nodes."),
            DeclareLaunchArgument("odometry", default_value="odom", description="Topic of the odometry."),
            DeclareLaunchArgument("use_sim_time", default_value="", description="Follow /clock."),
            SetParameter("use_sim_time", use_sim_time, condition=sim_time_given),
            IncludeLaunchDescription(
                str(Path(get_package_share_directory("geowarp_ros"), "launch", "localizer.launch.py")),
            ),
            Node(
                package="nav2_lifecycle_manager",
                executable="lifecycle_manager",
                name="lifecycle_manager_geowarp",
                namespace=LaunchConfiguration("namespace"),
                parameters=[params_file],
                output="screen",
            ),
        ]
    )
