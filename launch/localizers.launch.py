"""Start the localizer for several cameras: one process, one model, a namespace for each camera.

    ros2 launch geowarp_ros localizers.launch.py cameras:="front rear" gallery:=/path/to/gallery image:=image_raw

localises /front/image_raw and /rear/image_raw and publishes /front/geowarp_localizer/fix and so on. A parameter
file can give each camera its own gallery and settings, under /front/geowarp_localizer and so on. Every argument
of localizer.launch.py can be given, too.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    cameras = DeclareLaunchArgument(
        "cameras", default_value="front rear", description="Namespaces of the cameras, separated by spaces."
    )
    localizer = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("localizer.launch.py"))),
        launch_arguments={"cameras": LaunchConfiguration("cameras")}.items(),
    )
    return LaunchDescription([cameras, localizer])
