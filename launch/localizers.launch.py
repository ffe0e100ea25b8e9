"""Start the localizer for several cameras: one process, one model, a namespace for each camera.

    ros2 launch geowarp_ros localizers.launch.py cameras:="front rear" gallery:=/path/to/gallery image:=image_raw

localises /front/image_raw and /rear/image_raw and publishes /front/geowarp_localizer/fix and so on. A parameter
file can give each camera its own gallery and settings, under /front/geowarp_localizer and so on. The other
arguments are those of localizer.launch.py and hold for all cameras; RViz shows the first one.
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction

from geowarp_ros.ros.launching import localizer_arguments, localizers
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    cameras = DeclareLaunchArgument(
        "cameras",
        default_value="front rear",
        description="Namespaces of the cameras below namespace, separated by spaces.",
    )
    return LaunchDescription([cameras, *localizer_arguments(), OpaqueFunction(function=localizers)])
