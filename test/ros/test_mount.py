"""Where the camera sits: by parameters, and by tf through a stand-in with tf2_ros's names (it is not a wheel)."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.time import Time

from geowarp_ros.config import NodeConfig, parse_config
from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.mount import CameraOnBase

NODE: Any = object()


class TransformException(Exception):  # noqa: N818
    """As tf2_ros has it."""


class Buffer:
    """A tf buffer that knows one transform, once it has been heard."""

    def __init__(self) -> None:
        self.heard, self.asked = False, 0

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time) -> TransformStamped:
        self.asked += 1
        assert time.nanoseconds == 0  # the latest
        if not self.heard or (target_frame, source_frame) != ("base_link", "camera_optical"):
            raise TransformException(f'"{source_frame}" does not exist')
        # the pose of source in target: 0.5 m ahead, 1.2 m up, optical axes of a camera that looks ahead
        found = TransformStamped()
        found.transform.translation.x, found.transform.translation.z = 0.5, 1.2
        q = found.transform.rotation
        q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
        return found


class Listener:
    def __init__(self, buffer: Buffer, node: Node) -> None:
        assert node is NODE
        self.buffer, self.listening = buffer, True

    def unregister(self) -> None:
        self.listening = False


def config(**values: Any) -> NodeConfig:
    return parse_config(NodeConfig, {"base_frame": "base_link", **values})


def test_by_parameters_rep_103() -> None:
    mount = CameraOnBase(NODE, config(camera_offset={"x_m": 3.0, "z_m": 4.0, "yaw_deg": 90.0, "pitch_deg": 30.0}))
    found = mount("whatever")
    assert found is not None and found.position_m.tolist() == [3.0, 0.0, 4.0]
    # it looks left and 30° down
    assert found.rotation[:, 0] == pytest.approx([0.0, math.cos(math.pi / 6), -0.5])
    assert mount.said == "5.00 m from base_link"
    mount.destroy()


def test_by_tf_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    tf2_ros: Any = ModuleType("tf2_ros")
    tf2_ros.Buffer, tf2_ros.TransformListener, tf2_ros.TransformException = Buffer, Listener, TransformException
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    mount: Any = CameraOnBase(NODE, config(camera_offset={"from_tf": True}))
    listener = mount._listener
    assert mount("camera_optical") is None
    assert mount.said == 'no transform from base_link to camera_optical: "camera_optical" does not exist'
    listener.buffer.heard = True
    found = mount("camera_optical")
    assert found.position_m.tolist() == [0.5, 0.0, 1.2]
    np.testing.assert_allclose(found.rotation, np.eye(3), atol=1e-12)
    assert mount.said == "camera_optical is 1.30 m from base_link, by tf"
    assert mount("camera_optical") is found and listener.buffer.asked == 2  # and kept
    assert mount("") is None and "an image without frame_id" in mount.said
    mount.destroy()
    assert not listener.listening


def test_another_frame_of_the_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tf an IMU's axes are taken for the base's; with it they are what it says, once it does."""
    plain = CameraOnBase(NODE, config(camera_offset={"pitch_deg": 30.0})).rotation_from("imu")
    assert plain is not None and plain.tolist() == np.eye(3).tolist()
    tf2_ros: Any = ModuleType("tf2_ros")
    tf2_ros.Buffer, tf2_ros.TransformListener, tf2_ros.TransformException = Buffer, Listener, TransformException
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    mount: Any = CameraOnBase(NODE, config(camera_offset={"from_tf": True}))
    assert mount.rotation_from("camera_optical") is None
    assert mount.rotation_from("base_link").tolist() == np.eye(3).tolist()
    mount._listener.buffer.heard = True
    found = mount.rotation_from("camera_optical")
    np.testing.assert_allclose(
        found @ [0, 0, 1], [1, 0, 0], atol=1e-12
    )  # what lies ahead of it, ahead of the base
    assert mount.rotation_from("camera_optical") is found and mount._listener.buffer.asked == 2


def test_without_tf2_ros_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(ConfigError, match="from_tf = true: needs the ROS package tf2_ros"):
        CameraOnBase(NODE, config(camera_offset={"from_tf": True}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"frame_id": "camera"}, "frame_id = 'camera': expected none beside base_frame = 'base_link'"),
        ({"base_frame": "", "camera_offset": {"x_m": 1.0}}, "camera_offset.x_m: expected a base_frame"),
        ({"camera_offset": {"from_tf": True, "x_m": 1.0}}, "expected no other camera_offset beside it"),
        ({"base_frame": "map"}, "base_frame = 'map': value error, expected a frame of the robot"),
    ],
)
def test_settings_that_do_not_fit_one_another_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(**values)
    assert said in str(error.value) and len(str(error.value)) < 160
