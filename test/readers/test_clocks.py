"""Clocks that differ, and clocks that step back: images keep their own places, or the bag is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer

from geowarp_ros.errors import SourceError
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.clocks import Stamps, ahead_s, fitting_offset_s, without_steps
from test.gallery.bags import LATITUDE, ROS1, ROS2, START_NS, Message, fix, image, write_bag

NS = 1_000_000_000
HERE = Path("a bag")


def driven(seconds: int = 20, *, store: Any = ROS2) -> list[Message]:
    """North at 1e-3° (111 m) a second; image i at i / 2 s has shade 5 i."""
    messages = [image(i / 2, 5 * i, store=store) for i in range(2 * seconds)]
    return messages + [fix(t, LATITUDE + t * 1e-3, store=store) for t in range(seconds + 1)]


def stamped(messages: Sequence[Message], topic: str, by_s: Callable[[float], float]) -> list[Message]:
    """Add to the stamps of a topic what its clock is ahead at a time (s after the start)."""
    for name, _, message in messages:
        if name == topic:
            time_ns = message.header.stamp.sec * NS + message.header.stamp.nanosec
            time_ns += round(by_s((time_ns - START_NS) / NS) * NS)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(time_ns, NS)
    return list(messages)


def misplaced_m(source: Source) -> dict[int, float]:
    """Return how far each image lies from its true place, by its shade."""
    return {
        (shade := int(item.read()[0, 0, 0])): abs(item.place.latitude_deg - LATITUDE - shade / 10 * 1e-3) * 111_130
        for item in source.images
    }


# ---- two clocks


@pytest.mark.parametrize(
    ("topic", "by_s", "offset_s", "reason"),
    [
        ("/camera", 37.0, 37.0, "TAI against UTC: 37 s"),
        ("/camera", 18.0, 18.0, "GPS time against UTC: 18 s"),
        ("/fix", 18.0, -18.0, "GPS time against UTC: 18 s"),
        ("/fix", 19.0, -19.0, "TAI against GPS time: 19 s"),
        ("/fix", 7200.0, -7200.0, "time zones: 7200 s"),
        ("/camera", 19_800.0, 19_800.0, "time zones: 19800 s"),
        ("/fix", 5.0, -4.83, ""),
        ("/camera", -1.6e9, -1_599_999_999.83, ""),
    ],
)
def test_two_clocks_are_refused_with_the_offset_that_fits(
    tmp_path: Path, topic: str, by_s: float, offset_s: float, reason: str
) -> None:
    bag = write_bag(tmp_path / "b", stamped(driven(), topic, lambda _: by_s))
    with pytest.raises(SourceError, match=r"--fix-offset 0 takes them as they are$") as said:
        read_source(bag)
    assert f"--fix-offset {offset_s:.3f} mends it" in str(said.value)
    assert reason in str(said.value)
    source = read_source(bag, fix_offset_s=offset_s)
    found = misplaced_m(source)
    assert len(found) == 40
    # a known difference is mended exactly; otherwise it is known but for the drivers' delays, 170 ms apart
    assert max(found.values()) < (0.01 if reason else 0.17 * 111.13 + 0.01)


def test_an_offset_that_does_not_fit_is_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = write_bag(tmp_path / "b", stamped(driven(25), "/camera", lambda _: 37.0))
    with pytest.raises(SourceError, match=r"none of the 50 images .* the nearest is 12\.000 s away"):
        read_source(bag, fix_offset_s=0.0)  # before it asks, no longer
    (said,) = [record.message for record in caplog.records]
    assert "the /fix stamps run 37.170 s behind those of /camera (TAI against UTC: 37 s)" in said


@pytest.mark.parametrize("ahead", [37, -18])
def test_a_bag_whose_times_of_recording_are_the_stamps(tmp_path: Path, ahead: int) -> None:
    """As converters write them: then its ends tell."""

    def converted(messages: list[Message]) -> list[Message]:
        stamps = [message.header.stamp.sec * NS + message.header.stamp.nanosec for _, _, message in messages]
        return [(topic, stamp, made) for (topic, _, made), stamp in zip(messages, stamps, strict=True)]

    assert len(misplaced_m(read_source(write_bag(tmp_path / "a", converted(driven()))))) == 40
    bag = write_bag(tmp_path / "b", converted(stamped(driven(25), "/camera", lambda _: ahead)))
    with pytest.raises(SourceError, match=rf"run {abs(ahead)}\.000 s .*--fix-offset {ahead}\.000 mends it"):
        read_source(bag)
    found = misplaced_m(read_source(bag, fix_offset_s=ahead))
    assert len(found) == 50 and max(found.values()) < 0.01


def test_a_delay_of_less_than_a_second_is_one_clock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    late = [
        (topic, time + NS // 2, message) if topic == "/camera" else (topic, time, message)
        for topic, time, message in driven()
    ]
    assert max(misplaced_m(read_source(write_bag(tmp_path / "b", late))).values()) < 0.01
    assert not caplog.records


def test_a_clock_that_is_set_on_the_way_loses_its_images_before(tmp_path: Path) -> None:
    """A camera that is set from TAI to UTC, or the other way, while the drive is recorded."""
    for name, wrong in (("set", lambda t: -37.0 if t < 6 else 0.0), ("lost", lambda t: 37.0 if t > 14 else 0.0)):
        source = read_source(write_bag(tmp_path / name, stamped(driven(), "/camera", wrong)), max_gap_s=100)
        found = misplaced_m(source)
        assert max(found.values()) < 0.01
        assert len(found) >= 26
        skipped = [skip.reason for skip in source.skipped]
        assert set(skipped) == {"stamped by another clock than the fixes around it"}
        assert len(skipped) + len(found) == 40


@pytest.mark.parametrize("ahead", [-37.2, -36.8, 17.7, 19.3, 3600.1, 900.0, 2.0, 0.4, 1e6, -63_000.0])
def test_the_fitting_offset_is_within_the_delays_of_two_drivers(ahead: float) -> None:
    offset_s, reason = fitting_offset_s(ahead)
    assert abs(ahead + offset_s) < 0.5
    assert offset_s == -ahead if not reason else offset_s == round(offset_s)


# ---- stamps that step back


def test_images_keep_their_places_when_the_clock_steps_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both clocks step back by 2 s after 10 s; the recorder's does not. By stamps half would be 222 m off."""

    def back(t: float) -> float:
        return -2.0 if t > 10 else 0.0

    bag = write_bag(tmp_path / "b", stamped(stamped(driven(), "/camera", back), "/fix", back))
    found = misplaced_m(read_source(bag))
    assert len(found) == 40
    assert max(found.values()) < 0.01
    (said,) = [record.message for record in caplog.records]
    assert "the stamps of /camera step back by 1.500 s at 2023-11-14 22:13:28 UTC" in said


@pytest.mark.parametrize("topic", ["/camera", "/fix"])
def test_one_of_the_two_clocks_steps_back(tmp_path: Path, topic: str) -> None:
    bag = write_bag(tmp_path / "b", stamped(driven(), topic, lambda t: -2.0 if t > 10 else 0.0))
    found = misplaced_m(read_source(bag))
    assert len(found) == 40
    assert max(found.values()) < 0.01


def test_one_late_image_is_no_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages = driven()
    messages[10] = (messages[10][0], messages[10][1] + 2 * NS, messages[10][2])  # recorded 2 s late
    found = misplaced_m(read_source(write_bag(tmp_path / "b", messages)))
    assert len(found) == 40 and max(found.values()) < 0.01
    assert not caplog.records


def write_as_recorded(path: Path, messages: Sequence[Message], kind: str) -> Path:
    """Write messages in the order given, whatever the recorder's clock said."""
    store = ROS1 if kind == "bag" else ROS2
    plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
    with Writer1(path) if kind == "bag" else Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in messages:
            name = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            raw = store.serialize_ros1(message, name) if kind == "bag" else store.serialize_cdr(message, name)
            writer.write(connections[topic], time_ns, raw)
    return path


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "bag"])
def test_a_recorder_whose_own_clock_steps_back_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    messages = sorted(driven(store=ROS1 if kind == "bag" else ROS2), key=lambda message: message[1])
    for topic in ("/camera", "/fix"):
        stamped(messages, topic, lambda t: -2.0 if t > 10 else 0.0)
    stepped = [
        (topic, time - (2 * NS if message.header.stamp.sec * NS < time - NS else 0), message)
        for topic, time, message in messages
    ]
    bag = write_as_recorded(tmp_path / f"b.{kind}", stepped, kind)
    with pytest.raises(
        SourceError,
        match=r"the recorder's clock steps back by 1\.500 s at 2023-11-14 22:13:28 UTC on /camera: .*cut",
    ):
        read_source(bag)


def test_topics_written_one_after_the_other_and_splits_in_any_order_are_no_step(tmp_path: Path) -> None:
    by_topic = sorted(driven(), key=lambda message: (message[0], message[1]))
    found = misplaced_m(read_source(write_as_recorded(tmp_path / "topics", by_topic, "mcap")))
    assert len(found) == 40 and max(found.values()) < 0.01
    ordered = sorted(driven(), key=lambda message: message[1])
    swapped = [*ordered[30:], *ordered[:30]]
    found = misplaced_m(read_source(write_as_recorded(tmp_path / "swapped", swapped, "sqlite3")))
    assert len(found) == 40 and max(found.values()) < 0.01


def test_images_that_overtake_one_another_are_no_step() -> None:
    rng = np.random.default_rng(0)
    stamps = START_NS + np.arange(400) * NS // 30
    recorded = stamps + rng.integers(1_000_000, 300_000_000, 400)
    order = np.argsort(recorded)
    given = Stamps("/camera", stamps[order], recorded[order])
    assert (np.diff(given.times_ns) < -NS // 10).any()
    (found,), said = without_steps(HERE, [given])
    assert found is given and not said


def test_topics_without_messages() -> None:
    nothing, one = Stamps.of("/fix", []), Stamps.of("/camera", [(START_NS, START_NS)])
    assert ahead_s(nothing, one)[0] == ahead_s(one, nothing)[0] == 0
    assert without_steps(HERE, [nothing, one]) == ([nothing, one], "")
