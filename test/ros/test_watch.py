"""Cameras, bags and clocks as they fail: what the node says of it, and that it goes on."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage

from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.ros.watch import SAMPLES, ImageWatch, Reminder
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import Robot, image_message, until, values
from test.ros.test_diagnostics import HandClock, clock  # noqa: F401  (a fixture)
from test.ros.test_node import FIX, Script, script, start  # noqa: F401  (fixtures)
from test.ros.test_process import NodeProcess

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

Start = Callable[..., LocalizerNode]
SECOND = 1_000_000_000


# ---- by hand


@pytest.fixture
def watch(clock: HandClock) -> ImageWatch:  # noqa: F811
    return ImageWatch(clock)


def picture(number: int) -> array.array[int]:
    return array.array("B", np.random.default_rng(number).integers(0, 256, 90_000, np.uint8).tobytes())


def told(watch: ImageWatch) -> dict[str, str]:
    return dict(watch.troubles(5.0))


def test_a_good_camera_is_no_trouble(watch: ImageWatch, clock: HandClock) -> None:  # noqa: F811
    assert told(watch) == {}
    for number in range(100):
        watch.see(number * SECOND // 10, number * SECOND // 10 + 1, picture(number))
        clock.now += 0.1
        assert number == 0 or told(watch) == {}


def test_pictures_that_do_not_change_are_frozen(watch: ImageWatch, clock: HandClock) -> None:  # noqa: F811
    for number in range(80):
        watch.see((100 + number) * SECOND, (100 + number) * SECOND, picture(0))
        clock.now += 0.1
    assert told(watch) == {
        "picture": "the picture is frozen, the same for 7.9 s: the camera hangs, or a simulation is at rest"
    }
    clock.now += 6.0
    assert told(watch) == {}  # no image comes at all: that is said elsewhere
    changed = picture(0)
    changed[0] ^= 1
    watch.see(200 * SECOND, 200 * SECOND, changed)
    assert told(watch) == {}


def test_pictures_are_compared_by_samples_from_all_over(watch: ImageWatch, clock: HandClock) -> None:  # noqa: F811
    large = np.zeros(1000 * SAMPLES, np.uint8)
    for row in range(10):
        large[:] = 0
        large[row * 10 * SAMPLES : row * 10 * SAMPLES + 3000] = 1
        watch.see((100 + row) * SECOND, (100 + row) * SECOND, array.array("B", large.tobytes()))
        clock.now += 1.0
    assert told(watch) == {}


def test_stamps_that_do_not_change_are_frozen(watch: ImageWatch, clock: HandClock) -> None:  # noqa: F811
    for number in range(80):
        watch.see(12_500_000_000, 12_500_000_000 + number * SECOND // 10, picture(number))
        clock.now += 0.1
    assert told(watch) == {"stamp": "image stamps are frozen: 12.500 for 7.9 s"}
    watch.see(0, 20 * SECOND, picture(0))
    assert told(watch)["stamp"] == "image stamps are 0: the driver sets none"


@pytest.mark.parametrize(
    ("off_s", "said"), [(3599, ""), (-3599, ""), (7200, "2.0 h ahead of"), (-36_000, "10.0 h behind")]
)
def test_stamps_hours_from_the_clock_are_said(watch: ImageWatch, off_s: int, said: str) -> None:
    watch.see((100_000 + off_s) * SECOND, 100_000 * SECOND, picture(0))
    assert said in told(watch).get("clock", "") and bool(said) == bool(told(watch))
    watch.see((100_000 + off_s) * SECOND, 0, picture(1))  # a simulation's clock that has not begun
    assert told(watch) == {}


def test_two_clocks_are_told_from_a_bag_that_loops(watch: ImageWatch, clock: HandClock) -> None:  # noqa: F811
    for loop in range(2):
        for number in range(50):
            watch.see((100 + number) * SECOND, 100 * SECOND, picture(50 * loop + number))
            clock.now += 0.1
    assert told(watch) == {}
    for number in range(8):
        watch.see((100 + number - 1000 * (number % 2)) * SECOND, 100 * SECOND, picture(number))
        clock.now += 0.1
    said = told(watch)["jumps"]
    # from 149 to 100, and four times to the other clock
    assert said.startswith("image stamps go back and forth, by 999.0 s, 6 times in 30 s") or "5 times" in said
    clock.now += 31.0
    watch.see(200 * SECOND, 200 * SECOND, picture(0))
    assert told(watch) == {}


def test_what_lasts_is_said_once_a_minute(clock: HandClock) -> None:  # noqa: F811
    said: list[str] = []
    remind = Reminder(said.append, clock)
    for second in range(61):
        remind({"stamp": f"frozen for {second} s"})
        clock.now += 1.0
    remind({"picture": "frozen"})
    remind({})
    assert said == ["frozen for 0 s", "frozen for 60 s", "frozen"]


# ---- over DDS


def shown(robot: Robot, messages: Iterator[Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Show images until the diagnostics are as wanted."""
    found: list[dict[str, Any]] = []

    def showing() -> bool:
        robot.show(next(messages))
        time.sleep(0.02)
        while not robot.diagnostics.empty():
            parts: dict[str, Any] = {s.name.split(": ")[1]: s for s in robot.diagnostics.get().status}
            if wanted(parts):
                found.append(parts)
        return bool(found)

    until(showing, "the diagnostics to say so")
    return found[0]


def input_says(text: str, parts: dict[str, Any]) -> bool:
    return text in parts["input"].message


def now_s() -> float:
    return time.time()


def noisy() -> Iterator[Pixels]:
    generator = np.random.default_rng(3)
    while True:
        yield generator.integers(0, 255, (48, 64, 3), np.uint8)


def test_two_clocks_on_one_topic_are_answered_and_said(
    start: Start,  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    node = start()
    pictures, begun_s = noisy(), now_s()
    for number in range(80):
        stamp_s = begun_s + number * 0.1 - 7200.0 * (number % 2)
        fix = robot.answer(image_message(next(pictures), stamp_s))
        assert fix.status.status == 0
    assert node.statistics.resets == 1 and script.tracks <= 1
    said = robot.diagnosis(lambda parts: "go back and forth" in parts["input"].message)
    assert said["input"].level == DiagnosticStatus.WARN
    assert "two publishers or clocks on one topic" in said["input"].message
    assert capfd.readouterr().err.count("image stamps go back and forth") == 1  # once a minute
    assert len(robot.node.get_publishers_info_by_topic("/image")) == 1


def test_images_of_two_clocks_are_not_held_against_one_another(
    start: Start,  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
) -> None:
    start({"prior.source": "track", "prior.max_age_s": 3600.0})
    pictures = noisy()
    for number in range(12):
        script.result = replace(FIX, latitude_deg=55.7109 + number % 2)  # two cameras, far apart
        fix = robot.answer(image_message(next(pictures), 1000.0 + number * 0.1 - 20.0 * (number % 2)))
        assert fix.latitude == 55.7109 + number % 2
    assert script.near[3:] == [None] * 9
    assert robot.diagnosis(lambda parts: "back and forth" in values(parts["localization"])["prior"])


def test_a_frozen_picture_is_a_warning_until_it_moves(
    start: Start,  # noqa: F811
    robot: Robot,
    pixels: Pixels,
) -> None:
    start({"input_timeout_s": 1.0})
    frozen = (image_message(pixels, now_s()) for _ in iter(int, 1))
    parts = shown(robot, frozen, lambda parts: "picture is frozen" in parts["input"].message)
    assert parts["input"].level == DiagnosticStatus.WARN
    assert parts["localization"].level == DiagnosticStatus.OK  # it is localised all the same
    moving = (image_message(picture, now_s()) for picture in noisy())
    shown(robot, moving, lambda parts: parts["input"].level == DiagnosticStatus.OK)


def test_frozen_stamps_zero_stamps_and_foreign_clocks_are_warnings(
    start: Start,  # noqa: F811
    robot: Robot,
) -> None:
    start({"input_timeout_s": 1.0})
    pictures, stamp_s = noisy(), now_s()
    faults: dict[str, Callable[[], float]] = {
        "image stamps are frozen": lambda: stamp_s,
        "h behind the node's clock": lambda: now_s() - 10 * 3600,
        "h ahead of the node's clock": lambda: now_s() + 10 * 3600,
        "image stamps are 0": lambda: 0.0,
    }
    for said, stamp in faults.items():
        messages = (image_message(picture, stamp()) for picture in pictures)
        parts = shown(robot, messages, partial(input_says, said))
        assert parts["input"].level == DiagnosticStatus.WARN


def test_a_simulation_without_a_clock_is_a_warning(
    start: Start,  # noqa: F811
    robot: Robot,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start({"use_sim_time": True})
    said = "use_sim_time is true, and nothing came on /clock, which has no publisher"
    parts = robot.diagnosis(lambda parts: said in parts["input"].message)
    assert parts["input"].level == DiagnosticStatus.WARN
    until(lambda: said in capfd.readouterr().err, "the log to say so")
    ticking = robot.node.create_publisher(Clock, "/clock", 10)
    other = robot.node.create_publisher(Clock, "/clock", 10)
    until(ticking.get_subscription_count, "the node to follow /clock")
    tick = Clock()
    tick.clock.sec = 5000
    ticking.publish(tick)
    robot.diagnosis(lambda parts: "/clock has 2 publishers, expected one" in parts["input"].message)
    robot.node.destroy_publisher(other)
    robot.diagnosis(lambda parts: "/clock" not in parts["input"].message)


def test_a_clock_that_goes_back_and_forth_resets_once(start: Start, robot: Robot) -> None:  # noqa: F811
    node = start({"use_sim_time": True})
    ticking = robot.node.create_publisher(Clock, "/clock", 10)
    until(ticking.get_subscription_count, "the node to follow /clock")
    tick = Clock()
    for number in range(20):
        tick.clock.sec = 5000 - 1000 * (number % 2) + number
        ticking.publish(tick)
        until(lambda: node.get_clock().now().nanoseconds == tick.clock.sec * SECOND, "the tick")
    assert node.statistics.resets == 1


def test_no_answer_while_images_arrive_is_a_warning(
    start: Start,  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
) -> None:
    node = start({"input_timeout_s": 1.0})
    script.gate.clear()
    arriving = (image_message(picture, now_s()) for picture in noisy())
    parts = shown(robot, arriving, lambda parts: parts["localization"].message.startswith("no answer for"))
    assert parts["localization"].level == DiagnosticStatus.WARN
    assert parts["localization"].message.endswith("while images arrive")
    script.gate.set()
    shown(robot, arriving, lambda parts: parts["localization"].message.startswith("fix"))
    assert robot.pause(True).success  # nobody waits for answers then
    script.gate.clear()
    before = node.statistics.received
    shown(robot, arriving, lambda parts: int(values(parts["input"])["received"]) > before + 60)
    assert robot.diagnosis()["localization"].message == "paused"


def test_frequent_resets_are_a_warning(start: Start, robot: Robot) -> None:  # noqa: F811
    start()
    until(lambda: robot.state() == "active", "activation")
    for _ in range(2):
        robot.trigger("reset")
    robot.diagnosis(lambda parts: values(parts["localization"])["resets"] == "2")
    assert robot.diagnosis()["localization"].level == DiagnosticStatus.OK
    robot.trigger("reset")
    said = robot.diagnosis(lambda parts: values(parts["localization"])["resets"] == "3")["localization"]
    assert said.level == DiagnosticStatus.WARN
    assert said.message.startswith("3 resets within ") and said.message.endswith("the last: requested")
    assert robot.change("deactivate") and robot.change("activate")
    robot.diagnosis(lambda parts: parts["localization"].level == DiagnosticStatus.OK)


def silence(robot: Robot) -> str:
    """Return why no image comes, by the diagnostics."""
    status = robot.diagnosis(lambda parts: parts["input"].message.startswith("no image for"))["input"]
    assert status.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    return str(status.message)


def test_silence_says_where_images_are(
    start: Start,  # noqa: F811
    robot: Robot,
    capfd: pytest.CaptureFixture[str],
) -> None:
    publisher = robot.node.create_publisher(
        CompressedImage, "/camera/image_raw/compressed", qos_profile_sensor_data
    )
    start({"input_timeout_s": 0.5}, cli_args=["--ros-args", "-r", "image:=/camera/image_raw"])
    said = "/camera/image_raw/compressed has one publisher: set image_transport:=compressed"
    until(lambda: said in silence(robot), "discovery")
    message = silence(robot)
    assert "/camera/image_raw [sensor_msgs/msg/Image] has no publisher; " in message
    assert "; /image has one publisher: remap image:=/image" in message
    assert (
        "/image/compressed has one publisher: remap image:=/image and set image_transport:=compressed" in message
    )
    assert "match_image" not in message  # its own
    log = capfd.readouterr().err
    assert "[WARN]" in log and "[geowarp_localizer]: no image for " in log and log.count("no image for") == 1
    robot.node.destroy_publisher(publisher)
    until(lambda: "image_transport:=compressed; /image has" not in silence(robot), "the publisher to go")


def test_silence_says_that_the_quality_of_service_does_not_fit(start: Start, robot: Robot) -> None:  # noqa: F811
    start({"input_timeout_s": 0.5, "qos_overrides./image.subscription.reliability": "reliable"})
    until(lambda: "/image has a publisher whose quality of service does not fit" in silence(robot), "discovery")


def test_silence_says_that_another_type_is_published(robot: Robot) -> None:
    robot.node.create_publisher(CompressedImage, "/there", qos_profile_sensor_data)
    process = NodeProcess("-r", "image:=/there", "-p", "input_timeout_s:=0.5", module="test.ros.stuck_node")
    try:
        process.says("/there is published as sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/Image")
    finally:
        process.close()


def test_silence_says_that_a_publisher_is_silent(start: Start, robot: Robot) -> None:  # noqa: F811
    start({"input_timeout_s": 0.5})
    until(lambda: "/image has one publisher, of whom nothing comes" in silence(robot), "discovery")


def test_at_start_the_log_says_what_is_heard_and_published(
    start: Start,  # noqa: F811
    robot: Robot,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start({"prior.source": "fix", "qos_overrides./prior_fix.subscription.reliability": "reliable"})
    until(lambda: robot.state() == "active", "activation")
    log = capfd.readouterr().err
    for said in (
        "gallery g: 1 places, datum 55.7100000, 13.1900000; model its own (f00d), torch on cpu (auto)",
        "publishes /geowarp_localizer/fix [sensor_msgs/msg/NavSatFix], reliable, volatile, depth 10",
        "subscribed to /image [sensor_msgs/msg/Image], best effort, volatile, depth 5",
        "subscribed to /prior_fix [sensor_msgs/msg/NavSatFix], reliable, volatile, depth 5",
        "subscribed to /camera_info [sensor_msgs/msg/CameraInfo], best effort, volatile, depth 5",
    ):
        assert said in log, said
