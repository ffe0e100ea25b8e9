from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import rclpy
from rclpy.node import Node
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, NavSatFix

from geowarp_ros.cli import main
from geowarp_ros.errors import SourceError
from geowarp_ros.lab.play import Pace, Recorder, play
from geowarp_ros.types import Image as Pixels
from test.gallery import bags
from test.ros.conftest import PATIENCE_S, Robot, image_message, seconds, until

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

T = TypeVar("T")

STAMPS_S = (100.0, 100.1, 100.2)


@pytest.fixture
def drive(tmp_path: Path, pixels: Pixels) -> Path:
    types = get_typestore(Stores.ROS2_JAZZY)
    image, head, stamp = (
        types.types[f"{name}"]
        for name in ("sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    with Writer(tmp_path / "drive", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=types)
        for at in STAMPS_S:
            header = head(stamp(int(at), round(at % 1 * 1e9)), "camera")
            message = image(header, 48, 64, "rgb8", 0, 192, pixels.reshape(-1))
            writer.write(connection, round(at * 1e9), types.serialize_cdr(message, "sensor_msgs/msg/Image"))
    return tmp_path / "drive"


@pytest.fixture
def player(graph: None) -> Iterator[Node]:
    node = Node("player")
    yield node
    node.destroy_node()


def test_nothing_is_lost_and_stamps_are_kept(drive: Path, player: Node, robot: Robot, pixels: Pixels) -> None:
    seen: list[Image] = []
    ticks: list[Clock] = []
    robot.node.create_subscription(Image, "/cam", seen.append, 10)
    robot.node.create_subscription(Clock, "/clock", ticks.append, 10)
    shown: list[int] = []

    def progress(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        shown.append(total)
        return items

    there: list[tuple[int, list[float]]] = []

    def linger(published: Mapping[int, float]) -> None:
        there.append((robot.node.count_publishers("/cam"), [round(stamp / 1e9, 1) for stamp in published]))

    published = play(
        player, drive, {"/camera/image_raw": "/cam"}, rate=2.0, clock=True, progress=progress, linger=linger
    )
    # a publisher that goes at once takes with it what a busy subscriber has not taken yet
    assert there == [(1, list(STAMPS_S))]
    until(lambda: len(seen) == 3, "the images")
    assert [seconds(message.header.stamp) for message in seen] == pytest.approx(STAMPS_S)
    assert all(np.array_equal(np.asarray(message.data), pixels.reshape(-1)) for message in seen)
    assert [round(stamp / 1e9, 1) for stamp in published] == list(STAMPS_S)
    assert shown == [3]
    assert all(tick.clock.sec == 100 for tick in ticks)


def test_pace_keeps_the_recorded_distances_and_makes_up_for_delay() -> None:
    now = [10.0]
    slept: list[float] = []

    def sleep(duration: float) -> None:
        slept.append(duration)
        now[0] += duration

    pace = Pace(2.0, lambda: now[0], sleep)
    pace.wait_until(5_000_000_000)
    now[0] += 0.125  # publishing took so long
    pace.wait_until(5_500_000_000)
    now[0] += 0.5  # and now longer than the next one is away
    pace.wait_until(6_000_000_000)
    pace.wait_until(7_000_000_000)
    assert slept == [0.125, 0.25]
    assert now[0] == 11.0  # 2 s of the recording at twice the speed


def test_what_cannot_be_played_is_refused(drive: Path, player: Node) -> None:
    with pytest.raises(SourceError, match=r"no topic /nope; it has /camera/image_raw"):
        play(player, drive, {"/nope": "/cam"})
    with pytest.raises(SourceError, match=r"/cam_without_listener: no subscriber within 0\.1 s"):
        play(player, drive, {"/camera/image_raw": "/cam_without_listener"}, patience_s=0.1)


def test_recorded_fixes_read_back(tmp_path: Path, robot: Robot) -> None:
    with Recorder(robot.node, "/loc/fix", tmp_path / "fixes") as recorder:
        publisher = robot.node.create_publisher(NavSatFix, "/loc/fix", 10)
        until(publisher.get_subscription_count, "the recorder")
        for at in STAMPS_S:
            fix = NavSatFix(latitude=at, longitude=8.0)
            fix.header = image_message(np.zeros((1, 1, 3), np.uint8), at).header
            publisher.publish(fix)
        assert recorder.wait_for(100_200_000_000, PATIENCE_S)
        assert not recorder.wait_for(1, patience_s=0.01)
    with AnyReader([tmp_path / "fixes"]) as reader:
        fixes = [reader.deserialize(data, connection.msgtype) for connection, _, data in reader.messages()]
    assert [fix.latitude for fix in fixes] == list(STAMPS_S)
    assert [round(stamp / 1e9, 1) for stamp in recorder.arrived] == list(STAMPS_S)


def test_other_topics_come_along_and_only_images_are_counted(
    tmp_path: Path, graph: None, robot: Robot, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [bags.fix(t / 10, 50.0 + t * 1e-4, 8.0) for t in range(3)]
    messages += [bags.image(t / 10, t) for t in range(2)]
    bags.write_bag(tmp_path / "drive", sorted(messages, key=lambda item: item[1]))
    fixes: queue.Queue[NavSatFix] = queue.Queue()
    robot.node.create_subscription(Image, "/cam", lambda message: None, 10)
    robot.node.create_subscription(NavSatFix, "/prior_fix", fixes.put, 10)
    monkeypatch.setattr(rclpy, "init", lambda: None)  # the tests' graph is up already
    monkeypatch.setattr(rclpy, "try_shutdown", lambda: None)
    words = ["play", str(tmp_path / "drive"), "--to", "/cam", "--also", f"{messages[0][0]}:=/prior_fix"]
    assert main(words) == 0
    assert [fixes.get(timeout=PATIENCE_S).latitude for _ in range(3)] == pytest.approx([50.0, 50.0001, 50.0002])
    assert "2 images of" in capsys.readouterr().out
    assert main([*words[:-1], ":=/prior_fix"]) == 1
    assert "expected TOPIC, or TOPIC:=TO" in capsys.readouterr().err


def test_the_camera_info_beside_the_images_comes_along(
    tmp_path: Path, graph: None, robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [bags.image(t / 10, t, "/front/image_raw") for t in range(3)]
    messages += [bags.info(t / 10, 40.0 + t, "/front/camera_info") for t in range(3)]
    messages.append(bags.info(0.0, 99.0, "/rear/camera_info"))
    bags.write_bag(tmp_path / "drive", messages)
    monkeypatch.setattr(rclpy, "init", lambda: None)  # the tests' graph is up already
    monkeypatch.setattr(rclpy, "try_shutdown", lambda: None)
    robot.node.create_subscription(Image, "/cam/image", lambda message: None, 10)
    assert main(["play", str(tmp_path / "drive"), "--to", "/cam/image"]) == 0  # nobody need listen
    infos: queue.Queue[CameraInfo] = queue.Queue()
    robot.node.create_subscription(CameraInfo, "/cam/camera_info", infos.put, 10)
    assert main(["play", str(tmp_path / "drive"), "--to", "/cam/image"]) == 0
    assert [infos.get(timeout=PATIENCE_S).k[0] for _ in range(3)] == [40.0, 41.0, 42.0]
