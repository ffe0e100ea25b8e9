"""Replay a bag to the localizer, in the bag's time.

    ros2 launch geowarp_ros replay.launch.py bag:=/path/to/drive gallery:=/path/to/gallery

Images are published as recorded, once the localizer has subscribed, so that none is lost at the start. Other
topics of the bag (fixes of a GNSS receiver, odometry): also:="/gps/fix:=/prior_fix /odom:=/odometry". The other
arguments are those of localizer.launch.py, but for use_sim_time: a replay has its own clock. The launch ends with
the bag.
"""

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from geowarp_ros.ros.launching import localizer, localizer_arguments
from launch import LaunchDescription

ARGUMENTS = {
    "bag": ("", "The bag: a folder, .mcap or .db3; or .bag of ROS 1."),
    "bag_image": ("", "Recorded topic of the camera; may be empty if the bag has only one."),
    "also": ("", "Other recorded topics to publish: RECORDED or RECORDED:=PUBLISHED, separated by spaces."),
    "rate": ("1.0", "Factor on the recorded speed."),
    "loop": ("false", "Repeat until interrupted; the localizer resets when time jumps back."),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    arguments = localizer_arguments("use_sim_time", image="/camera/image_raw")
    return LaunchDescription([*declared, *arguments, OpaqueFunction(function=_start)])


def _start(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, "image")}
    words = [given["bag"], "--clock", "--patience", "120", "--to", given["image"], "--rate", given["rate"]]
    if given["bag_image"]:
        words += ["--image-topic", given["bag_image"]]
    if given["also"]:
        words += ["--also", *given["also"].split()]
    if given["loop"].lower() == "true":
        words.append("--loop")
    player = ExecuteProcess(
        cmd=[ExecutableInPackage("geowarp", "geowarp_ros"), "play", *words], output="both", name="play"
    )
    ended = EmitEvent(event=Shutdown(reason="the bag has ended"))
    over = RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[ended]))
    return [*localizer(context, use_sim_time="true"), player, over]
