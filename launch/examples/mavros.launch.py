"""PX4 or ArduPilot through MAVROS: the localizer's pose as vision pose, or as a fake GPS.

    ros2 launch geowarp_ros mavros.launch.py gallery:=/path/to/gallery image:=/camera/image_raw \
        fcu_url:=/dev/ttyACM0:57600 firmware:=px4 feed:=vision_pose

Needs mavros and mavros_extras, 2.x. MAVROS takes no NavSatFix: both ways take ~/pose with its covariance, so that
no fix means no message.

feed:=vision_pose sends VISION_POSITION_ESTIMATE, in the map frame of the gallery: position and orientation. It
wants an aligned gallery: the orientation that other fixes lack is sent as 0 with a large variance, which the
firmware has to read. feed:=fake_gps sends latitude and longitude: GPS_INPUT to ArduPilot (GPS1_TYPE 14) or HIL_GPS
to PX4 (MAV_USEHILGPS 1). All arguments of localizer.launch.py can be given, too. Parameters: mavros.yaml beside
this file.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, SetLaunchConfiguration
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile

from geowarp_ros.ros.launching import NAME, gallery_datum, localizer_name
from launch import LaunchDescription

FEEDS = {"vision_pose": "vision_pose/pose_cov", "fake_gps": "fake_gps/mocap/pose_cov"}
"""Plugin -> the topic of its PoseWithCovarianceStamped, in the namespace of MAVROS."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("gallery", description="Folder of the gallery, whose datum is used."),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(Path(__file__).with_name("mavros.yaml")),
                description="Parameters of localizer and plugins; $(var datum_latitude) is the gallery's.",
            ),
            DeclareLaunchArgument(
                "firmware", default_value="px4", choices=["px4", "apm"], description="Flight stack."
            ),
            DeclareLaunchArgument(
                "feed", default_value="vision_pose", choices=list(FEEDS), description="vision_pose or fake_gps."
            ),
            DeclareLaunchArgument("fcu_url", default_value="/dev/ttyACM0:57600", description="Flight controller."),
            DeclareLaunchArgument(
                "pose",
                default_value="",
                description="A localizer's ~/pose, in full; empty: that of the one that is started here.",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the localizer."),
            DeclareLaunchArgument("name", default_value=NAME, description="Name of the localizer."),
            IncludeLaunchDescription(
                str(Path(get_package_share_directory("geowarp_ros"), "launch", "localizer.launch.py")),
            ),
            OpaqueFunction(function=_mavros),
        ]
    )


def _mavros(context):
    firmware, feed = (LaunchConfiguration(name).perform(context) for name in ("firmware", "feed"))
    latitude, longitude, altitude = gallery_datum(LaunchConfiguration("gallery").perform(context))
    variables = {"datum_latitude": latitude, "datum_longitude": longitude, "datum_altitude": altitude}
    variables["use_hil_gps"] = firmware == "px4"
    pose = LaunchConfiguration("pose").perform(context) or f"{localizer_name(context)}/pose"
    shipped = Path(get_package_share_directory("mavros"), "launch")
    return [
        *(SetLaunchConfiguration(name, repr(value).lower()) for name, value in variables.items()),
        Node(
            package="mavros",
            executable="mavros_node",
            namespace="mavros",
            parameters=[
                {"fcu_url": LaunchConfiguration("fcu_url")},
                str(shipped / f"{firmware}_pluginlists.yaml"),
                str(shipped / f"{firmware}_config.yaml"),
                ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
            ],
            remappings=[(FEEDS[feed], pose)],
            output="screen",
        ),
    ]
