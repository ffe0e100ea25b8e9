"""map → odom of a node over DDS; tf2_msgs is no wheel, so its one transform goes as a TransformStamped."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from geometry_msgs.msg import TransformStamped

from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, odometry_message, seconds, until, values
from test.ros.test_initial_pose import BASE, oriented
from test.ros.test_node import DATUM, Script, ScriptedGallery, script, start  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


class _Meta(type(TransformStamped)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, TransformStamped)


class TFMessage(TransformStamped, metaclass=_Meta):  # type: ignore[misc]
    def __new__(cls, transforms: list[TransformStamped]) -> Any:
        (transform,) = transforms
        return transform


@pytest.fixture
def tf(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> queue.Queue[TransformStamped]:
    module: Any = ModuleType("tf2_msgs.msg")
    module.TFMessage = TFMessage
    monkeypatch.setitem(sys.modules, "tf2_msgs", ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    heard: queue.Queue[TransformStamped] = queue.Queue()
    robot.node.create_subscription(TransformStamped, "/tf", heard.put, 100)
    return heard


def test_stamps_corrections_and_another_datum(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
    tf: queue.Queue[TransformStamped],
) -> None:
    given = {"map_to_odom": True, "transform_time_offset": 0.5, "map_to_odom_max_speed_mps": 0.04, **BASE}
    node = start(given)
    until(robot.odometry.get_subscription_count, "the localizer to subscribe")

    def stand(stamp_s: float) -> None:
        """By odometry at (3, 0), headed along y; the base is 8 m east and 20 m north, and heads east."""
        robot.drive(node, odometry_message(3.0, 0.0, 1.5707963267948966, stamp_s))

    script.result = oriented(10.0)
    for stamp_s in (1.0, 1.5, 2.0):
        stand(stamp_s)
        robot.answer(image_message(pixels, stamp_s=stamp_s))
    sent = tf.get(timeout=PATIENCE_S)
    assert (sent.header.frame_id, sent.child_frame_id) == ("map", "odom")
    assert seconds(sent.header.stamp) == 2.5
    # odom's x axis points south: 3 m along it from 23 m north
    move = sent.transform.translation
    assert (move.x, move.y) == pytest.approx((8.0, 23.0), abs=1e-3)
    last, at_s = (move.x, move.y), 2.5
    script.result = oriented(10.25)  # farther east, from now on
    for step in range(5):
        stand(2.5 + 0.5 * step)
        robot.answer(image_message(pixels, stamp_s=2.5 + 0.5 * step))
    until(lambda: seconds(tf.queue[-1].header.stamp) == 5.0 if tf.qsize() else False, "the newest")
    while not tf.empty():
        sent = tf.get()
        move, now_s = sent.transform.translation, seconds(sent.header.stamp)
        moved_m = ((move.x - last[0]) ** 2 + (move.y - last[1]) ** 2) ** 0.5
        assert now_s > at_s and moved_m <= 0.04 * (now_s - at_s) + 1e-6
        last, at_s = (move.x, move.y), now_s
    assert 8.05 < last[0] <= 8.1  # on its way to 8.16, the mean of eight
    # another datum: nothing is known of its frame
    script.gallery = ScriptedGallery(type(DATUM)(55.7101, 13.19, 30.0))
    assert robot.trigger("reload_gallery").success
    stand(5.0)
    said = robot.diagnosis(lambda parts: values(parts["localization"])["resets"] == "1")
    assert values(said["localization"])["map to odom"] == "too few fixes agree, or the path is too short"
    assert tf.empty()


def test_it_begins_anew_when_the_node_is_activated_again(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
    tf: queue.Queue[TransformStamped],
) -> None:
    node = start({"map_to_odom": True, **BASE})
    until(robot.odometry.get_subscription_count, "the localizer to subscribe")

    script.result = oriented(10.0)
    for stamp_s in (1.0, 1.5, 2.0):
        robot.drive(node, odometry_message(3.0, 0.0, 0.0, stamp_s))
        robot.answer(image_message(pixels, stamp_s=stamp_s))
    tf.get(timeout=PATIENCE_S)
    assert robot.change("deactivate")
    assert robot.change("activate")  # carried about meanwhile, for all it heard
    until(robot.odometry.get_subscription_count, "the localizer to subscribe")
    robot.drive(node, odometry_message(3.0, 0.0, 0.0, stamp_s=60.0))
    said = robot.diagnosis()
    assert values(said["localization"])["map to odom"] == "too few fixes agree, or the path is too short"
    assert all(seconds(sent.header.stamp) < 60.0 for sent in tf.queue)
