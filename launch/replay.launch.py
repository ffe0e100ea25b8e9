"""Replay a bag to the localizer, in the bag's time.

    ros2 launch geowarp_ros replay.launch.py bag:=/path/to/drive gallery:=/path/to/gallery

Images are published as recorded, once the localizer has subscribed, so that none is lost at the start. Other
topics of the bag (fixes of a GNSS receiver, odometry): also:="/gps/fix:=/prior_fix /odom:=/odometry". Every
argument of localizer.launch.py can be given, too. The launch ends with the bag.
"""

from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchDescription

ARGUMENTS = {
    "bag": ("", "The bag: a folder, .mcap or .db3; or .bag of ROS 1."),
    "bag_image": ("", "Recorded topic of the camera; may be empty if the bag has only one."),
    "also": ("", "Other recorded topics to publish: RECORDED or RECORDED:=PUBLISHED, separated by spaces."),
    "rate": ("1.0", "Factor on the recorded speed."),
    "loop": ("false", "Repeat until interrupted; the localizer resets when time jumps back."),
    "image": ("/camera/image_raw", "Topic on which images are published and localised."),
}


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    localizer = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name("localizer.launch.py"))),
        launch_arguments={"image": LaunchConfiguration("image"), "use_sim_time": "true"}.items(),
    )
    return LaunchDescription([*declared, localizer, OpaqueFunction(function=_play)])


def _play(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
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
    return [player, RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[ended]))]
