"""Start the localizer for one camera.

    ros2 launch geowarp_ros localizer.launch.py gallery:=/path/to/gallery image:=/camera/image_raw

The node configures and activates itself (its parameter ``autostart``): a gallery that cannot be loaded ends the
process with one clear line and status 1. With ``autostart:=false`` it waits for a lifecycle manager.
"""

from launch.actions import OpaqueFunction

from geowarp_ros.ros.launching import localizer, localizer_arguments
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*localizer_arguments(), OpaqueFunction(function=localizer)])
