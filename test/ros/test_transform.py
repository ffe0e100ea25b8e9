"""map → odom: what is published, by a publisher that keeps it (tf2_msgs is not among the wheels)."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time

from geowarp_ros.attitude import Mounting, fix_from_pose
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.map_from_odom import MapFromOdom
from geowarp_ros.motion.odometry import Odometer, Pose
from geowarp_ros.ros.conversions import transform_from_alignment
from geowarp_ros.ros.transform import PAUSE_S, PERIOD_S, MapToOdom
from geowarp_ros.types import Answer, Fix, Header, NoFix
from geowarp_ros.types import Pose as CameraPose
from test.ros.conftest import seconds

TOWN = LocalFrame(48.0, 11.0)
TRUTH = MapFromOdom(30.0, -10.0, math.radians(90.0), 0.0, 0)
SECOND = 1_000_000_000
CONFIG = NodeConfig(transform_time_offset=0.25)


class Message:
    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms


class Kept:
    """A node, and a publisher that keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.alive = {"publisher", "timer"}

    def create_timer(self, period_s: float, callback: Any, group: Any) -> str:
        assert period_s == PERIOD_S
        return "timer"

    def destroy_timer(self, timer: str) -> None:
        self.alive.remove(timer)

    def destroy_lifecycle_publisher(self, publisher: Kept) -> None:
        assert publisher is self
        self.alive.remove("publisher")

    def create_lifecycle_publisher(self, kind: type, topic: str, depth: int) -> Kept:
        assert (kind, topic, depth) == (Message, "/tf", 100)
        return self

    def publish(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    module: Any = ModuleType("tf2_msgs.msg")
    module.TFMessage = Message
    monkeypatch.setitem(sys.modules, "tf2_msgs", ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    return Kept()


def test_parent_child_and_motion_are_rep_105s() -> None:
    message = transform_from_alignment(TRUTH, Time(sec=3), "map", "odom")
    assert (message.header.frame_id, message.child_frame_id, message.header.stamp.sec) == ("map", "odom", 3)
    move, turn = message.transform.translation, message.transform.rotation
    # by hand: a point 1 m along odom's x lies 1 m north of odom's origin in the map
    x, y = 1.0, 0.0
    cos, sin = 1 - 2 * turn.z**2, 2 * turn.w * turn.z
    assert (move.x + cos * x - sin * y, move.y + sin * x + cos * y, move.z) == pytest.approx((30.0, -9.0, 0.0))
    assert turn.x**2 + turn.y**2 + turn.z**2 + turn.w**2 == pytest.approx(1.0)


def test_fixes_along_a_way_make_the_transform_and_a_reset_ends_it(kept: Kept) -> None:
    transform, odometer = MapToOdom(kept, CONFIG), Odometer(3.0)
    assert transform.said == "no odometry"
    for step in range(20):
        odom = np.array([2.0 * step, 0.0, 0.0])
        odometer.add(pose := Pose(step * SECOND, odom, 0.0))
        transform.move(pose, "odom")
        latitude, longitude, _ = TOWN.to_geodetic(np.array([*TRUTH(odom[:2]), 0.0]))
        fix = Fix(float(latitude), float(longitude), 0.0, np.eye(3) * 4.0, 0.9)
        transform.learn(Answer(Header(step * SECOND), fix), TOWN, odometer)
        transform.learn(Answer(Header(step * SECOND), NoFix("low_confidence")), TOWN, odometer)
        if step == 2:
            transform.publish()
            assert kept.messages == []  # three fixes within 4 m say nothing of direction
    transform.publish()
    (message,) = kept.messages
    (sent,) = message.transforms
    assert (sent.header.frame_id, sent.child_frame_id) == ("map", "odom")
    assert seconds(sent.header.stamp) == 19.25  # AMCL's rule: the newest data's stamp, and what it is good for
    transform.publish()
    assert len(kept.messages) == 1  # tf takes a stamp once
    assert (sent.transform.translation.x, sent.transform.translation.y) == pytest.approx((30.0, -10.0), abs=0.01)
    assert sent.transform.rotation.z == pytest.approx(math.sin(math.radians(45.0)), abs=1e-4)
    assert transform.said.startswith("20 fixes agree, yaw 1.571 ±")
    transform.reset()
    transform.publish()
    assert len(kept.messages) == 1
    transform.destroy()
    assert not kept.alive


def test_a_fix_at_a_time_that_odometry_does_not_know_is_no_pair(kept: Kept) -> None:
    transform = MapToOdom(kept, CONFIG)
    for step in range(20):
        transform.move(Pose(step * SECOND, np.zeros(3), 0.0), "odom")
        fix = Fix(48.0, 11.0 + step * 1e-4, 0.0, np.eye(3), 0.9)
        transform.learn(Answer(Header(step * SECOND), fix), TOWN, Odometer(3.0))
    transform.publish()
    assert kept.messages == []


def test_without_tf2_msgs_it_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs", None)
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    with pytest.raises(ConfigError, match="map_to_odom = true: needs the ROS package tf2_msgs"):
        MapToOdom(Kept(), CONFIG)


@pytest.mark.parametrize("known", [True, False])
def test_three_headings_at_a_standstill_make_the_transform_if_the_mounting_is_known(
    kept: Kept, known: bool
) -> None:
    # by odometry the robot stands at (5, 0) and heads along y; the truth turns that to the map's west
    transform, odometer = MapToOdom(kept, CONFIG), Odometer(3.0)
    base = np.array([*TRUTH(np.array([5.0, 0.0])), 0.0])
    # the camera is 2 m ahead of the base and looks left: south
    southward = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
    spread = np.diag([0.01] * 3 + [1e-4] * 3)
    pose = CameraPose("points", base - np.array([2.0, 0.0, 0.0]), southward, spread, 40, 5.0, 3, 0.5, 0.7, 1.0)
    mounting = Mounting.of((2.0, 0.0, 0.0), (0.0, 0.0, 90.0)) if known else None
    for step in range(3):
        odometer.add(pose_here := Pose(step * SECOND, np.array([5.0, 0.0, 0.0]), math.pi / 2))
        transform.move(pose_here, "odom")
        answer = Answer(Header(step * SECOND), fix_from_pose(pose, TOWN, 0.9, spread))
        transform.learn(answer, TOWN, odometer, mounting)
    transform.publish()
    assert len(kept.messages) == known
    if known:
        (sent,) = kept.messages[0].transforms
        move = sent.transform.translation
        assert (move.x, move.y) == pytest.approx((30.0, -10.0), abs=1e-3)
        assert abs(sent.transform.rotation.z) == pytest.approx(math.sin(math.radians(45.0)), abs=1e-6)


def place_of(message: Any, odom_m: tuple[float, float], ahead_m: float = 0.0) -> Any:
    """Where a transform puts a point so far ahead of the robot in the map."""
    (sent,) = message.transforms
    move, q = sent.transform.translation, sent.transform.rotation
    yaw = 2 * math.atan2(q.z, q.w)
    x, y = odom_m[0] + ahead_m, odom_m[1]
    return np.array(
        [move.x + math.cos(yaw) * x - math.sin(yaw) * y, move.y + math.sin(yaw) * x + math.cos(yaw) * y]
    )


@pytest.mark.parametrize("ahead_m", [0.0, 5.0])
def test_a_correction_is_no_faster_than_allowed_far_from_the_odometrys_origin(kept: Kept, ahead_m: float) -> None:
    transform = MapToOdom(kept, NodeConfig(map_to_odom_max_speed_mps=0.5))
    here = (800.0, -300.0)  # a turn of 2° about the odometry's origin moves what is here by 30 m
    wanted = MapFromOdom(40.0, -10.0, math.radians(92.0), 0.01, 9)
    for step in range(500):
        transform._found = TRUTH if step == 0 else wanted
        transform.move(Pose(step * SECOND // 10, np.array([*here, 0.0]), 0.0), "odom")
        transform.publish()
    places = np.array([place_of(message, here, ahead_m) for message in kept.messages])
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.1
    assert len(places) == 500 and speeds.max() <= 0.5 + 1e-6
    np.testing.assert_allclose(places[0], TRUTH(np.array([here[0] + ahead_m, here[1]])), atol=1e-6)
    # full speed until it is there
    full_m = float(np.linalg.norm(wanted(np.array(here)) - TRUTH(np.array(here)))) + 5.0 * math.radians(2.0)
    assert np.count_nonzero(speeds > 1e-6) == math.ceil(full_m / 0.05)


def test_a_correction_ends_where_the_alignment_is_and_without_a_limit_it_jumps(kept: Kept) -> None:
    wanted = MapFromOdom(31.0, -10.0, math.radians(91.0), 0.01, 9)
    for limit, count in ((2.0, 6), (0.0, 1)):
        kept.messages.clear()
        transform = MapToOdom(kept, NodeConfig(map_to_odom_max_speed_mps=limit))
        for step in range(20):
            transform._found = TRUTH if step == 0 else wanted
            transform.move(Pose(step * SECOND // 10, np.zeros(3), 0.0), "odom")
            transform.publish()
        places = [place_of(message, (0.0, 0.0)) for message in kept.messages]
        # 1 m and 1° at 5 m are 1.087 m: six steps of 0.2 m
        arrived = [index for index, place in enumerate(places) if np.allclose(place, (31.0, -10.0), atol=1e-9)]
        assert arrived[0] == count


@pytest.mark.parametrize("pause_s", [1.0, PAUSE_S + 1.0])
def test_only_after_a_pause_a_transform_begins_at_the_right_place(kept: Kept, pause_s: float) -> None:
    transform = MapToOdom(kept, NodeConfig(map_to_odom_max_speed_mps=0.5))
    transform._found = TRUTH
    transform.move(Pose(0, np.zeros(3), 0.0), "odom")
    transform.publish()
    transform._found = None
    transform.move(Pose(round(pause_s * SECOND) // 2, np.zeros(3), 0.0), "odom")
    transform.publish()
    assert len(kept.messages) == 1
    transform._found = MapFromOdom(130.0, -10.0, TRUTH.yaw_rad, 0.0, 9)  # carried off
    transform.move(Pose(round(pause_s * SECOND), np.zeros(3), 0.0), "odom")
    transform.publish()
    east_m = place_of(kept.messages[-1], (0.0, 0.0))[0]
    assert east_m == pytest.approx(30.0 + 0.5 * pause_s if pause_s <= PAUSE_S else 130.0)


def test_another_datum_ends_what_was_learned_about_the_one_before(kept: Kept) -> None:
    transform, odometer = MapToOdom(kept, CONFIG), Odometer(3.0)
    for step in range(20):
        odom = np.array([2.0 * step, 0.0, 0.0])
        odometer.add(pose := Pose(step * SECOND, odom, 0.0))
        transform.move(pose, "odom")
        latitude, longitude, _ = TOWN.to_geodetic(np.array([*TRUTH(odom[:2]), 0.0]))
        answer = Answer(Header(step * SECOND), Fix(float(latitude), float(longitude), 0.0, np.eye(3) * 4.0, 0.9))
        transform.learn(answer, TOWN, odometer)
    assert transform.said.startswith("20 fixes agree")
    transform.learn(answer, LocalFrame(48.0001, 11.0), odometer)
    assert transform.said == "too few fixes agree, or the path is too short"


def test_odometry_that_begins_anew_ends_what_was_learned_about_the_frame_before(kept: Kept) -> None:
    transform, odometer = MapToOdom(kept, CONFIG), Odometer(3.0)
    off_m = []
    for step in range(40):
        odom = np.array([2.0 * step if step < 20 else 2.0 * step - 40.0, 0.0, 0.0])  # the wheels' driver restarts
        odometer.add(pose := Pose(step * SECOND, odom, 0.0))
        transform.move(pose, "odom", odometer.restarts)
        truth = TRUTH(np.array([2.0 * step, 0.0]))
        before = len(kept.messages)
        transform.publish()  # before the fix of this time is there
        latitude, longitude, _ = TOWN.to_geodetic(np.array([*truth, 0.0]))
        fix = Fix(float(latitude), float(longitude), 0.0, np.eye(3) * 4.0, 0.9)
        transform.learn(Answer(Header(step * SECOND), fix), TOWN, odometer)
        transform.publish()
        if len(kept.messages) > before:
            off_m.append(np.linalg.norm(place_of(kept.messages[-1], (odom[0], 0.0)) - truth))
        assert step != 20 or len(kept.messages) == before
    assert max(off_m) < 0.1 and len(off_m) > 20  # and it comes again


def test_odometry_in_another_frame_ends_it_too(kept: Kept) -> None:
    transform = MapToOdom(kept, CONFIG)
    transform.move(Pose(0, np.zeros(3), 0.0), "odom")
    transform._found = TRUTH
    transform.move(Pose(SECOND, np.zeros(3), 0.0), "odom")
    transform.publish()
    transform.move(Pose(2 * SECOND, np.zeros(3), 0.0), "visual_odom")
    transform.publish()
    assert len(kept.messages) == 1
