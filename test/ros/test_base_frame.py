"""~/pose of the robot's base over DDS, with tf through a stand-in of tf2_ros: none is the camera's."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros import test_mount
from test.ros.conftest import PATIENCE_S, Robot, image_message, seconds, values
from test.ros.test_initial_pose import SPREAD, Amcl, heard, oriented
from test.ros.test_node import DATUM, Script, script, start  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


class Listener:
    buffers: list[test_mount.Buffer]

    def __init__(self, buffer: test_mount.Buffer, node: Any) -> None:
        self.buffers.append(buffer)

    def unregister(self) -> None: ...


def test_the_bases_pose_by_tf_at_the_images_stamp(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tf2_ros: Any = ModuleType("tf2_ros")
    tf2_ros.Buffer, tf2_ros.TransformException = test_mount.Buffer, test_mount.TransformException
    Listener.buffers, tf2_ros.TransformListener = [], Listener
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    amcl = Amcl(robot)
    node = start({"base_frame": "base_link", "camera_offset.from_tf": True, "initial_pose": "once"})
    script.result = oriented(10.0)  # looks north, from 1 m above the datum

    def shown(stamp_s: float) -> Any:
        return robot.answer(image_message(pixels, stamp_s=stamp_s, frame_id="camera_optical"))

    fix = shown(10.0)  # no transform yet: a fix of the camera that says so, and no pose, which could not
    assert fix.header.frame_id == "camera_optical"
    assert DATUM.to_enu(fix.latitude, fix.longitude, fix.altitude) == pytest.approx([10.0, 20.0, 1.0], abs=1e-6)
    heard(node)
    Listener.buffers[0].heard = True
    assert shown(11.0).header.frame_id == "base_link"
    shown(25.0)
    ahead, left = (robot.poses.get(timeout=PATIENCE_S) for _ in range(2))
    assert [seconds(pose.header.stamp) for pose in (ahead, left)] == [11.0, 25.0]
    # the camera is 0.5 m ahead of the base and 1.2 m above it. While it looks ahead the base heads north …
    position, q = ahead.pose.pose.position, ahead.pose.pose.orientation
    assert (position.x, position.y, position.z) == pytest.approx((10.0, 19.5, -0.2), abs=1e-6)
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)), abs=1e-6)
    # … and east when the camera has turned to its left
    position, q = left.pose.pose.position, left.pose.pose.orientation
    assert (position.x, position.y, position.z) == pytest.approx((9.5, 20.0, -0.2), abs=1e-6)
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-6)
    assert left.pose.covariance[35] == pytest.approx(SPREAD[5, 5], rel=1e-3)
    seed = amcl.poses.get(timeout=PATIENCE_S)
    assert seconds(seed.header.stamp) == 11.0 and seed.pose.pose == ahead.pose.pose
    said = values(robot.diagnosis(lambda parts: values(parts["localization"])["fixes"] == "3")["localization"])
    assert said["camera on base"] == "camera_optical is 1.30 m from base_link, by tf"
