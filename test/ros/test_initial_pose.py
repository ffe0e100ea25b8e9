"""initialpose over DDS: once, after a kidnap, never a pose of before; and the rules of those who take it."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from geowarp_ros.attitude import fix_from_pose
from geowarp_ros.config import NodeConfig, parse_config
from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Fix, NoFix, Pose
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, odometry_message, seconds, until, values
from test.ros.test_node import DATUM, Script, script, start  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

SPREAD = np.diag([0.01, 0.02, 0.03, 1e-4, 2e-4, 3e-4])
BASE: dict[str, Any] = {"base_frame": "base_link", "camera_offset.x_m": 2.0, "camera_offset.yaw_deg": 90.0}
"""The camera is 2 m ahead of the base and looks to its left."""


def oriented(east_m: float, north_m: float = 20.0) -> Fix:
    """A fix of a camera that looks north: the base heads east, and lies 2 m west of the camera."""
    north = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    pose = Pose("points", np.array([east_m, north_m, 1.0]), north, SPREAD, 40, 5.0, 3, 0.5, 0.7, 1.0)
    return fix_from_pose(pose, DATUM, 0.9, SPREAD)


class Amcl:
    """Listens as AMCL, slam_toolbox and RTAB-Map do: reliable, volatile."""

    def __init__(self, robot: Robot) -> None:
        self.robot, self.poses = robot, queue.Queue[PoseWithCovarianceStamped]()
        self.subscription = robot.node.create_subscription(
            PoseWithCovarianceStamped, "initialpose", self.poses.put, 1
        )

    def leave(self) -> None:
        self.robot.node.destroy_subscription(self.subscription)

    def east_m(self) -> float:
        return float(self.poses.get(timeout=PATIENCE_S).pose.pose.position.x)


def heard(node: LocalizerNode, count: int = 1) -> None:
    """Wait until the node knows of so many subscribers."""
    seed: Any = node._initial_pose
    until(lambda: seed._publisher.get_subscription_count() == count, "the subscription to be known")


def test_it_is_the_bases_pose_once_and_in_the_consumers_form(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    amcl, node = Amcl(robot), start({"initial_pose": "once", **BASE})
    until(lambda: robot.state() == "active", "activation")
    heard(node)
    script.result = NoFix("low_confidence")
    robot.answer(image_message(pixels, stamp_s=4.0))
    # of a cluster: slam_toolbox and RTAB-Map would take its identity for an orientation
    script.result = replace(oriented(10.0), method="cluster", orientation=None, pose_covariance=None)
    robot.answer(image_message(pixels, stamp_s=4.5))
    said = values(robot.diagnosis(lambda parts: values(parts["localization"])["fixes"] == "1")["localization"])
    assert said["initial pose"] == "waits for a fix with an orientation"
    script.result = oriented(10.0)
    robot.answer(image_message(pixels, stamp_s=5.0))
    robot.answer(image_message(pixels, stamp_s=6.0))
    message = amcl.poses.get(timeout=PATIENCE_S)
    assert (message.header.frame_id, seconds(message.header.stamp)) == ("map", 5.0)  # AMCL drops any other frame
    pose, covariance = message.pose.pose, message.pose.covariance.reshape(6, 6)
    assert (pose.position.x, pose.position.y) == pytest.approx((8.0, 20.0), abs=1e-6)
    q = pose.orientation
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-6)
    # what AMCL draws its particles from: x, y and yaw
    assert (np.linalg.eigvalsh(covariance[:2, :2]) > 0).all() and 0 < covariance[5, 5] < math.pi**2
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    assert np.isfinite(covariance).all()
    (info,) = robot.node.get_publishers_info_by_topic("/initialpose")
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE
    said = values(robot.diagnosis(lambda parts: values(parts["localization"])["fixes"] == "3")["localization"])
    assert said["initial pose"] == "1 published, the last at 5.0 s"
    assert amcl.poses.empty()


def test_who_comes_later_gets_a_later_one_and_who_comes_again_as_well(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"initial_pose": "once", **BASE})
    script.result = oriented(10.0)
    robot.answer(image_message(pixels, stamp_s=5.0))
    said = values(robot.diagnosis(lambda parts: values(parts["localization"])["fixes"] == "1")["localization"])
    assert said["initial pose"] == "nobody subscribes to initialpose"
    amcl = Amcl(robot)
    heard(node)
    script.result = oriented(11.0)
    robot.answer(image_message(pixels, stamp_s=6.0))
    assert amcl.east_m() == pytest.approx(9.0)
    amcl.leave()
    heard(node, 0)
    robot.answer(image_message(pixels, stamp_s=7.0))
    amcl = Amcl(robot)
    heard(node)
    script.result = oriented(12.0)
    robot.answer(image_message(pixels, stamp_s=8.0))
    robot.answer(image_message(pixels, stamp_s=9.0))
    assert amcl.east_m() == pytest.approx(10.0) and amcl.poses.empty()


def test_lost_and_carried_off_it_is_published_again_where_the_robot_is_now(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    amcl, node = Amcl(robot), start({"initial_pose": "lost", "lost_after": 3, **BASE})
    until(lambda: robot.state() == "active", "activation")
    heard(node)
    shown: list[tuple[float, Any]] = [(10.0 + step, oriented(10.0 + step)) for step in range(3)]
    shown += [(13.0 + step, oriented(400.0 + step)) for step in range(4)]  # carried off
    shown += [(17.0 + step, NoFix("low_confidence")) for step in range(3)]  # and lost
    shown += [(20.0 + step, oriented(404.0 + step)) for step in range(2)]
    for stamp_s, script.result in shown:
        robot.answer(image_message(pixels, stamp_s=stamp_s))
    got = [amcl.poses.get(timeout=PATIENCE_S) for _ in range(3)]
    assert [seconds(pose.header.stamp) for pose in got] == [10.0, 14.0, 20.0]
    assert [pose.pose.pose.position.x for pose in got] == pytest.approx([8.0, 399.0, 402.0], abs=1e-3)
    assert robot.trigger("reset").success
    robot.answer(image_message(pixels, stamp_s=22.0))
    assert amcl.east_m() == pytest.approx(403.0, abs=1e-3) and amcl.poses.empty()


def test_a_late_answer_is_carried_on_by_the_odometry_since(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    amcl, node = Amcl(robot), start({"initial_pose": "once", **BASE})
    until(robot.odometry.get_subscription_count, "the localizer to subscribe")
    heard(node)
    script.result = oriented(10.0)
    script.gate.clear()

    def drive(stamp_s: float, x: float) -> None:
        def arrived() -> bool:
            if node._session.odometer.pose_at(round(stamp_s * 1e9)) is None:
                robot.odometry.publish(odometry_message(x, 0.0, 0.0, stamp_s))  # best effort: told again
                return False
            return True

        until(arrived, "the odometry to arrive")

    drive(5.0, 0.0)
    robot.show(image_message(pixels, stamp_s=5.0))
    assert script.begun.wait(PATIENCE_S)
    drive(5.5, 1.0)
    drive(6.0, 2.0)
    script.gate.set()
    message = amcl.poses.get(timeout=PATIENCE_S)
    assert seconds(message.header.stamp) == 6.0
    # the base was at 8 m east when the image was taken, headed east, and went on by 2 m
    assert (message.pose.pose.position.x, message.pose.pose.position.y) == pytest.approx((10.0, 20.0), abs=1e-6)
    assert robot.poses.get(timeout=PATIENCE_S).pose.pose.position.x == pytest.approx(8.0, abs=1e-6)


def test_without_a_base_frame_it_is_refused_and_by_default_there_is_no_publisher(
    start: Callable[..., LocalizerNode], robot: Robot
) -> None:
    with pytest.raises(ConfigError, match="initial_pose = 'once': expected a base_frame, whose pose it is"):
        parse_config(NodeConfig, {"initial_pose": "once"})
    start()
    until(lambda: robot.state() == "active", "activation")
    assert not robot.node.get_publishers_info_by_topic("/initialpose")


def test_in_a_map_whose_x_axis_points_elsewhere(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    amcl, node = Amcl(robot), start({"initial_pose": "once", "datum_yaw_deg": 90.0, **BASE})
    until(lambda: robot.state() == "active", "activation")
    heard(node)
    script.result = oriented(10.0)  # the base is 8 m east and 20 m north, and heads east; x points north, y west
    robot.answer(image_message(pixels, stamp_s=5.0))
    pose = amcl.poses.get(timeout=PATIENCE_S).pose.pose
    assert (pose.position.x, pose.position.y) == pytest.approx((20.0, -8.0), abs=1e-6)
    assert 2 * math.atan2(pose.orientation.z, pose.orientation.w) == pytest.approx(-math.pi / 2, abs=1e-6)
