"""The camera of live images over real DDS: late, changing, rectified, uncalibrated, wrong, and from a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import ConfigError
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.ros.camera import file_of
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import Robot, image_message, until, values
from test.ros.test_node import Script
from test.ros.test_node import start as begin  # noqa: F401  (a fixture)

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

LENS = (-0.2, 0.05, 0.001, -0.001, 0.0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def start(begin: Callable[..., LocalizerNode]) -> Callable[..., LocalizerNode]:  # noqa: F811
    """Start a node with topics remapped and parameters given."""

    def remapped(*remaps: str, **given: Any) -> LocalizerNode:
        return begin(given, cli_args=["--ros-args", *(word for remap in remaps for word in ("-r", remap))])

    return remapped


def info_message(focal: float, size: tuple[int, int] = (64, 48), **fields: Any) -> CameraInfo:
    """A calibrated camera; its P has twice the focal length."""
    width, height = size
    cx, cy = (width - 1) / 2, (height - 1) / 2
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=LENS)
    message.k = np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1.0])
    message.p = np.array([2 * focal, 0, cx, 0, 0, 2 * focal, cy, 0, 0, 0, 1.0, 0])
    message.header.stamp.sec = 1
    for name, value in fields.items():
        setattr(message, name, value)
    return message


class Driver:
    """A camera's driver: images and CameraInfo on topics of its own."""

    def __init__(self, robot: Robot, script: Script, image: str, info: str, qos: Any) -> None:
        self.robot, self.script, self.stamp_s = robot, script, 1.0
        self.images = robot.node.create_publisher(Image, image, qos)
        self.infos = robot.node.create_publisher(CameraInfo, info, qos)

    def say(self, message: CameraInfo) -> None:
        until(self.infos.get_subscription_count, "the localizer to subscribe")
        self.infos.publish(message)

    def camera(self, pixels: Pixels) -> Camera | None:
        """Show an image and return the camera that the localizer got with it."""
        self.stamp_s += 1
        until(self.images.get_subscription_count, "the localizer to subscribe")
        self.images.publish(image_message(pixels, self.stamp_s))
        while self.robot.fix().header.stamp.sec != int(self.stamp_s):
            pass
        return self.script.frames[-1].camera


@pytest.fixture
def driver(robot: Robot, script: Script) -> Callable[..., Driver]:
    def make(image: str = "image", info: str = "camera_info", qos: Any = qos_profile_sensor_data) -> Driver:
        return Driver(robot, script, image, info, qos)

    return make


def said(robot: Robot, wanted: str) -> str:
    """Wait for a camera in /diagnostics."""
    parts = robot.diagnosis(lambda parts: wanted in values(parts["input"])["camera"])
    return values(parts["input"])["camera"]


def test_it_may_come_late_change_be_of_another_size_and_lose_its_calibration(
    start: Callable[..., LocalizerNode], driver: Callable[..., Driver], robot: Robot, pixels: Pixels
) -> None:
    node, camera = start(), driver()
    assert camera.camera(pixels) is None  # answered all the same
    assert said(robot, "none yet") == "none yet on /camera_info"
    camera.say(info_message(50.0))
    assert said(robot, "50.0 px") == "64×48, focal length 50.0 px, plumb_bob, from /camera_info"
    assert camera.camera(pixels) == Camera(64, 48, 50, 50, 31.5, 23.5, "plumb_bob", LENS, "/camera_info")
    assert camera.camera(pixels) is not None  # said once, it holds
    camera.say(info_message(60.0))
    said(robot, "60.0 px")
    found = camera.camera(pixels)
    assert found is not None and found.fx == 60
    camera.say(info_message(500.0, (640, 480)))
    said(robot, "640×480")
    found = camera.camera(pixels)
    assert found is not None and (found.fx, found.cx, found.width_px) == (50, 31.5, 64)
    camera.say(info_message(0.0))
    said(robot, "none: /camera_info is not calibrated")
    assert camera.camera(pixels) is None
    assert node.statistics.bad.total() == 0


def test_a_wrong_one_is_warned_of_and_images_are_answered_without_it(
    start: Callable[..., LocalizerNode],
    driver: Callable[..., Driver],
    robot: Robot,
    pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(LocalizerNode, "_warn_of_camera", lambda node, problem: warned.append(problem))
    start()
    camera = driver()
    camera.say(info_message(50.0, (64, 36)))
    said(robot, "64×36")
    assert camera.camera(pixels) is None
    assert "is of images of 64×36 px, the image has 64×48" in warned[-1] and "without a camera model" in warned[-1]
    assert "another aspect" in said(robot, "none: /camera_info: is of images")
    camera.say(info_message(50.0, distortion_model="omnidirectional"))
    assert "distortion model 'omnidirectional'" in said(robot, "omnidirectional")
    assert camera.camera(pixels) is None and "omnidirectional" in warned[-1]
    camera.say(info_message(math.nan))
    assert "fx is nan" in said(robot, "nan")
    assert camera.camera(pixels) is None
    count = len(warned)
    camera.say(info_message(50.0))
    said(robot, "50.0 px")
    assert camera.camera(pixels) is not None and len(warned) == count


def test_it_is_beside_the_images_wherever_they_are(
    start: Callable[..., LocalizerNode], driver: Callable[..., Driver], robot: Robot, pixels: Pixels
) -> None:
    """Published reliably here; the images' region is a quarter of the sensor, binned."""
    start("image:=/front/image_raw")
    camera = driver("/front/image_raw", "/front/camera_info", 10)
    message = info_message(100.0, (256, 192), binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 64, 48, 128, 96
    camera.say(message)
    said(robot, "from /front/camera_info")
    found = camera.camera(pixels)
    assert found is not None and (found.width_px, found.fx) == (64, 50)
    assert found.cx == (127.5 - 64 + 0.5) / 2 - 0.5


def test_it_can_be_remapped_itself(
    start: Callable[..., LocalizerNode], driver: Callable[..., Driver], robot: Robot, pixels: Pixels
) -> None:
    start("image:=/front/image_raw", "camera_info:=/lab/info")
    camera = driver("/front/image_raw", "/lab/info")
    camera.say(info_message(50.0))
    said(robot, "from /lab/info")
    assert camera.camera(pixels) is not None


def test_rectified_images_have_the_camera_p(
    start: Callable[..., LocalizerNode],
    driver: Callable[..., Driver],
    robot: Robot,
    pixels: Pixels,
) -> None:
    start("image:=/front/image_rect_color")
    camera = driver("/front/image_rect_color", "/front/camera_info")
    camera.say(info_message(50.0))
    said(robot, "100.0 px")
    assert camera.camera(pixels) == Camera(64, 48, 100, 100, 31.5, 23.5, source="/front/camera_info")


def test_compressed_images_have_the_same(
    start: Callable[..., LocalizerNode],
    driver: Callable[..., Driver],
    robot: Robot,
    script: Script,
    pixels: Pixels,
) -> None:
    start("image:=/front/image_raw", image_transport="compressed")
    camera = driver("/front/unused", "/front/camera_info")
    camera.say(info_message(50.0))
    said(robot, "50.0 px")
    images = robot.node.create_publisher(CompressedImage, "/front/image_raw/compressed", 10)
    until(images.get_subscription_count, "the localizer to subscribe")
    images.publish(CompressedImage(format="jpeg", data=encode_jpeg(pixels)))
    robot.fix()
    assert script.frames[-1].camera is not None


def test_a_file_replaces_it_and_a_wrong_one_fails_the_transition(
    start: Callable[..., LocalizerNode],
    driver: Callable[..., Driver],
    robot: Robot,
    pixels: Pixels,
    tmp_path: Path,
) -> None:
    path = tmp_path / "my camera.yaml"
    node = start(camera_info_url=f"file://{str(path).replace(' ', '%20')}", autostart=False)
    camera = driver()
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert node.problem == f"{path}: cannot be read: No such file or directory"
    path.write_text("image_width: 64\nimage_height: 48\ncamera_matrix: {data: [0, 0, 31, 0, 0, 23, 0, 0, 1]}\n")
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "my camera.yaml: fx is 0 px" in node.problem
    write_camera(path, Camera(640, 480, 400, 400, 319.5, 239.5))
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    found = camera.camera(pixels)
    assert found == Camera(64, 48, 40, 40, 31.5, 23.5, source=str(path))
    assert camera.infos.get_subscription_count() == 0
    assert str(path) in said(robot, "64×48")
    assert "before configure" in robot.set(camera_info_url="")


def test_asked_for_by_service_it_is_there_too(
    start: Callable[..., LocalizerNode],
    driver: Callable[..., Driver],
    robot: Robot,
    script: Script,
    pixels: Pixels,
) -> None:
    start()
    camera = driver()
    camera.say(info_message(50.0))
    said(robot, "50.0 px")
    assert json.loads(robot.ask(image_message(pixels)).message)["status"] == "fix"
    assert script.frames[0].camera is not None


def test_urls_name_files_as_camera_info_manager_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert file_of("file:///etc/my%20camera.yaml") == Path("/etc/my camera.yaml")
    assert file_of("~/camera.yaml") == Path.home() / "camera.yaml"
    assert file_of("$HOME/camera.yaml") == Path.home() / "camera.yaml"
    assert file_of("relative/camera.yaml") == Path("relative/camera.yaml")
    for wrong in ("http://host/camera.yaml", "file://host/camera.yaml", "package:///a.yaml", "file://"):
        with pytest.raises(ConfigError, match="expected a path, file:///PATH or package://NAME/PATH"):
            file_of(wrong)
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", None)
    with pytest.raises(ConfigError, match="needs a ROS 2 installation"):
        file_of("package://my_robot/config/front.yaml")

    def share(name: str) -> str:
        if name == "unset":
            raise OSError("AMENT_PREFIX_PATH is not set")
        if name != "my_robot":
            raise KeyError(name)
        return str(tmp_path)

    packages = ModuleType("ament_index_python.packages")
    packages.get_package_share_directory = share  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ament_index_python", ModuleType("ament_index_python"))
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", packages)
    assert file_of("package://my_robot/config/front.yaml") == tmp_path / "config" / "front.yaml"
    with pytest.raises(ConfigError, match="needs a ROS 2 installation"):
        file_of("package://unset/front.yaml")
    with pytest.raises(ConfigError, match="there is no package 'my_robt'"):
        file_of("package://my_robt/front.yaml")
