"""What a driver, a bag or a clock does wrong, as the images show it; and where images are that nobody hears."""

from __future__ import annotations

import math
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, qos_check_compatible
from sensor_msgs.msg import CompressedImage

from geowarp_ros.motion.session import BACK_IN_TIME_NS
from geowarp_ros.ros.topics import topics_of_images, type_name

SAMPLES = 8192
"""Number of bytes of a picture that are compared with the one before: noise changes some of them."""

FAR_H = 1.0
"""Difference between stamps and the node's clock (h) above which it is another clock."""

BACK_AND_FORTH, WITHIN_S = 3, 30.0
"""So many jumps back in so many seconds are two clocks, and no bag that loops."""

REMIND_S = 60.0
"""Time after which a warning about what lasts is repeated (s)."""

NAMED = 5
"""Maximum number of topics that a hint names."""


class ImageWatch:
    """Looks at the images' stamps and pictures as they arrive; any thread may call.

    Args:
        clock: Steady clock (s).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.restart()

    def restart(self) -> None:
        """Forget all images."""
        with self._lock:
            self._stamp_ns: int | None = None
            self._picture: int | None = None
            self._stamp_since_s = self._picture_since_s = self._seen_s = self._clock()
            self._backs_s: deque[float] = deque(maxlen=1000)
            self._back_ns = self._off_ns = 0

    def see(self, stamp_ns: int, now_ns: int, data: Any) -> None:
        """Look at an image.

        Args:
            stamp_ns: Its stamp.
            now_ns: Time by the node's clock; 0 before a simulation's clock has begun.
            data: The message's bytes.
        """
        view = memoryview(data)
        picture = zlib.crc32(view[:: max(1, len(view) // SAMPLES)].tobytes(), len(view))
        now_s = self._clock()
        with self._lock:
            before_ns, self._stamp_ns = self._stamp_ns, stamp_ns
            if before_ns is not None and before_ns - stamp_ns > BACK_IN_TIME_NS:
                self._backs_s.append(now_s)
                self._back_ns = before_ns - stamp_ns
            if stamp_ns != before_ns:
                self._stamp_since_s = now_s
            if picture != self._picture:
                self._picture, self._picture_since_s = picture, now_s
            self._off_ns = stamp_ns - now_ns if now_ns else 0
            self._seen_s = now_s

    def troubles(self, patience_s: float) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the images: kind and text.

        Args:
            patience_s: How long a picture or a stamp may stay as it is (s).
        """
        with self._lock:
            if self._stamp_ns is None or self._clock() - self._seen_s > patience_s:
                return
            backs = sum(self._seen_s - at_s <= WITHIN_S for at_s in self._backs_s)
            stamp_s, picture_s = self._seen_s - self._stamp_since_s, self._seen_s - self._picture_since_s
            stamp_ns, back_s, off_h = self._stamp_ns, self._back_ns * 1e-9, self._off_ns / 3.6e12
        if backs >= BACK_AND_FORTH:
            what = f"image stamps go back and forth, by {back_s:.1f} s, {backs} times in {WITHIN_S:g} s"
            yield "jumps", f"{what}: two publishers or clocks on one topic; each image is answered on its own"
        if stamp_ns == 0:
            yield "stamp", "image stamps are 0: the driver sets none"
        elif stamp_s > patience_s:
            yield "stamp", f"image stamps are frozen: {stamp_ns * 1e-9:.3f} for {stamp_s:.1f} s"
        elif abs(off_h) > FAR_H:
            side = "ahead of" if off_h > 0 else "behind"
            what = f"image stamps are {abs(off_h):.1f} h {side} the node's clock"
            yield "clock", f"{what}: a camera whose clock is not set, or a bag without use_sim_time"
        if picture_s > patience_s:
            what = f"the picture is frozen, the same for {picture_s:.1f} s"
            yield "picture", f"{what}: the camera hangs, or a simulation is at rest"


def clock_troubles(node: Node) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the clock of a simulation: kind and text."""
    clock: Any = node.get_clock()
    if not clock.ros_time_is_active:
        return
    count = node.count_publishers("/clock")
    if clock.now().nanoseconds == 0:
        yield "simulation", f"use_sim_time is true, and nothing came on /clock, which has {_publishers(count)}"
    elif count > 1:
        yield "simulation", f"/clock has {_publishers(count)}, expected one"


class Reminder:
    """Says what is wrong when it begins, and again once a minute for as long as it lasts.

    Args:
        say: Says it.
        clock: Steady clock (s).
    """

    def __init__(self, say: Callable[[str], Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._said_s: dict[str, float] = {}

    def __call__(self, troubles: Mapping[str, str]) -> None:
        """Take what is wrong now, kind and text."""
        now_s = self._clock()
        for kind, text in troubles.items():
            if now_s - self._said_s.get(kind, -math.inf) >= REMIND_S:
                self._said_s[kind] = now_s
                self._say(text)


def where_images_are(node: Node, topic: str, kind: type) -> str:
    """Say why no image comes on a topic, and on which topics there are images.

    Args:
        node: Looks into the graph.
        topic: The topic that the node subscribes to, ``/compressed`` included.
        kind: Its type of message.
    """
    said = [_heard(node, topic, kind)]
    found = []
    for name, other in topics_of_images(node):
        count = node.count_publishers(name)
        own = name.startswith(f"{node.get_fully_qualified_name()}/")
        if not count or own or (name, other) == (topic, kind):
            continue
        found.append(f"{name} has {_publishers(count)}: {_reached(name, other, topic)}")
    if len(found) > NAMED:
        found[NAMED:] = [f"and {len(found) - NAMED} more topics of images"]
    return "; ".join(said + (found or ["no topic of images has a publisher"]))


def _heard(node: Node, topic: str, kind: type) -> str:
    """Say who publishes on the topic, and why that is not received."""
    (mine, *_) = [
        info.qos_profile
        for info in node.get_subscriptions_info_by_topic(topic)
        if (info.node_namespace.rstrip("/"), info.node_name) == (node.get_namespace().rstrip("/"), node.get_name())
    ] or [None]
    theirs = node.get_publishers_info_by_topic(topic)
    if not theirs:
        return f"{topic} [{type_name(kind)}] has no publisher"
    for info in theirs:
        if info.topic_type != type_name(kind):
            return f"{topic} is published as {info.topic_type}, expected {type_name(kind)}"
        if mine is not None:
            fits, reason = qos_check_compatible(info.qos_profile, mine)
            if fits == QoSCompatibility.ERROR:
                return f"{topic} has a publisher whose quality of service does not fit: {reason}"
    return f"{topic} has {_publishers(len(theirs))}, of whom nothing comes"


def _reached(name: str, kind: type, topic: str) -> str:
    """Say how the node would get the images of a topic."""
    mine, theirs = topic.removesuffix("/compressed"), name.removesuffix("/compressed")
    if kind is CompressedImage and theirs == name:
        return "compressed, but no name that ends in /compressed"
    transport = "compressed" if kind is CompressedImage else "raw"
    how = [f"remap image:={theirs}"] if mine != theirs else []
    if transport != ("raw" if mine == topic else "compressed"):
        how.append(f"set image_transport:={transport}")
    return " and ".join(how)


def _publishers(count: int) -> str:
    return {0: "no publisher", 1: "one publisher"}.get(count, f"{count} publishers")
