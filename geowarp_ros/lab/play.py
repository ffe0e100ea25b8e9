"""Replays bags onto a ROS 2 graph and records fixes from it, where there is no ``ros2 bag``."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.messages import image_from_message
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.readers.topics import INFO_TYPE, header_stamp_ns

if TYPE_CHECKING:
    from rclpy.node import Node

SETTLE_S = 0.5
"""Time between the publisher's discovery of its subscriber and the subscriber's of the publisher, which nothing
signals; a best-effort subscriber loses what comes before: the first image in two replays of three."""

NAVSATFIX = "sensor_msgs/msg/NavSatFix"
POSE = "geometry_msgs/msg/PoseWithCovarianceStamped"
IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CLOCK = "rosgraph_msgs/msg/Clock"


def play(
    node: Node,
    bag: Path,
    topics: Mapping[str, str],
    *,
    rate: float = 1.0,
    clock: bool = False,
    compressed: bool = False,
    patience_s: float = 30.0,
    progress: Progress = silent,
    linger: Callable[[Mapping[int, float]], object] = lambda published: time.sleep(SETTLE_S),
) -> dict[int, float]:
    """Publish a bag's messages as they were recorded: same bytes, same stamps, same intervals.

    Starts when each topic but those of CameraInfo has a subscriber: what is published before discovery has
    finished is lost. Publishes reliably, which serves every kind of subscriber.

    Args:
        node: Publishes; it need not spin.
        bag: ROS 2 or ROS 1.
        topics: Recorded topic -> topic to publish on.
        rate: Factor on the recorded speed.
        clock: Publish /clock, too, for nodes with ``use_sim_time``.
        compressed: Publish raw images as JPEG (sensor_msgs/CompressedImage).
        patience_s: Maximum time to wait for subscribers.
        progress: Shows the progress.
        linger: Called with what is returned when all is published and the publishers are still there. With a
            publisher goes what a busy best-effort subscriber has not taken yet: the last image.

    Returns:
        Header stamp of each image in nanoseconds -> when it was published, by ``time.monotonic``.

    Raises:
        SourceError: The bag has no such topic, or nobody subscribes.
    """
    with BagFiles(bag).reader() as reader:
        connections = [connection for connection in reader.connections if connection.topic in topics]
        if missing := set(topics) - {connection.topic for connection in connections}:
            there = ", ".join(sorted(connection.topic for connection in reader.connections))
            raise SourceError(f"{bag}: no topic {', '.join(sorted(missing))}; it has {there}")
        publishers = {}
        for connection in connections:
            kind = COMPRESSED if compressed and connection.msgtype == IMAGE else connection.msgtype
            publishers[connection.topic] = node.create_publisher(message_class(kind), topics[connection.topic], 10)
        ticks = node.create_publisher(message_class(CLOCK), "/clock", 10) if clock else None
        try:
            for connection in connections:
                if connection.msgtype != INFO_TYPE:
                    _await_subscriber(publishers[connection.topic], topics[connection.topic], patience_s)
            time.sleep(SETTLE_S)
            messages = reader.messages(connections)
            total = sum(connection.msgcount for connection in connections)
            published: dict[int, float] = {}
            pace = Pace(rate)
            for connection, recorded_ns, data in progress(messages, total, "replaying messages"):
                kind, message = connection.msgtype, reader.deserialize(data, connection)
                if compressed and kind == IMAGE:
                    outgoing: Any = _as_jpeg(message)
                else:
                    outgoing = reader.cdr(data, connection)
                pace.wait_until(recorded_ns)
                if ticks is not None:
                    tick = message_class(CLOCK)()
                    tick.clock.sec, tick.clock.nanosec = divmod(recorded_ns, 1_000_000_000)
                    ticks.publish(tick)
                if kind in (IMAGE, COMPRESSED):
                    published[header_stamp_ns(message)] = time.monotonic()
                publishers[connection.topic].publish(outgoing)
            linger(published)
            return published
        finally:
            for publisher in (*publishers.values(), ticks):
                if publisher is not None:
                    node.destroy_publisher(publisher)


class Recorder:
    """Writes a node's fixes, and the poses beside them, into an mcap bag as they arrive.

    Attributes:
        arrived: Header stamp of each fix in nanoseconds -> when it arrived, by ``time.monotonic``.
    """

    def __init__(self, node: Node, fix_topic: str, bag: Path) -> None:
        self.arrived: dict[int, float] = {}
        self._node = node
        self._kinds = {fix_topic: NAVSATFIX, fix_topic.removesuffix("fix") + "pose": POSE}
        self._writer = Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP)
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._news = threading.Condition()

    def __enter__(self) -> Recorder:
        """Open the bag and subscribe; the node's executor must spin."""
        self._writer.open()
        self._subscriptions = []
        for topic, kind in self._kinds.items():
            connection = self._writer.add_connection(topic, kind, typestore=self._types)
            record = partial(self._record, connection)
            self._subscriptions.append(
                self._node.create_subscription(message_class(kind), topic, record, 50, raw=True)
            )
        return self

    def __exit__(self, *_: Any) -> None:
        """Unsubscribe and close the bag."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        with self._news:
            self._writer.close()

    def wait_for(self, stamp: int, patience_s: float) -> bool:
        """Wait for the answer to the image with that stamp; False if it does not arrive."""
        with self._news:
            return self._news.wait_for(lambda: stamp in self.arrived, patience_s)

    def _record(self, connection: Any, data: bytes) -> None:
        at_s = time.monotonic()
        message = self._types.deserialize_cdr(data, connection.msgtype)
        with self._news:
            self._writer.write(connection, time.time_ns(), data)
            if connection.msgtype == NAVSATFIX:
                self.arrived[header_stamp_ns(message)] = at_s
                self._news.notify()


class Pace:
    """Delays messages to their recorded intervals, divided by ``rate``."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._first: tuple[int, float] | None = None

    def wait_until(self, recorded_ns: int) -> None:
        """Sleep until a message recorded at ``recorded_ns`` is due; a late one does not delay the next."""
        if self._first is None:
            self._first = recorded_ns, self._clock()
        start_ns, start_s = self._first
        early_s = start_s + (recorded_ns - start_ns) * 1e-9 / self._rate - self._clock()
        if early_s > 0:
            self._sleep(early_s)


def message_class(name: str) -> Any:
    """Return rclpy's class of ``package/msg/Name``."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def _as_jpeg(message: Any) -> Any:
    packed = message_class(COMPRESSED)(format="jpeg", data=encode_jpeg(image_from_message(message), quality=95))
    packed.header.stamp.sec, packed.header.stamp.nanosec = message.header.stamp.sec, message.header.stamp.nanosec
    packed.header.frame_id = str(message.header.frame_id)
    return packed


def _await_subscriber(publisher: Any, topic: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not publisher.get_subscription_count():
        if time.monotonic() > deadline:
            raise SourceError(f"{topic}: no subscriber within {patience_s:g} s")
        time.sleep(0.02)
