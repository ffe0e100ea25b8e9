"""Continuous, on demand, until the first fix: which images are localised."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.ros.topics import Outputs
from geowarp_ros.types import Image as Pixels
from geowarp_ros.types import NoFix
from test.ros.conftest import PATIENCE_S, Robot, image_message, seconds, until, values
from test.ros.test_initial_pose import BASE, Amcl, heard, oriented
from test.ros.test_node import FIX, Script, received, script, start  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


def stamps(script: Script) -> list[float]:
    return [frame.stamp_ns * 1e-9 for frame in script.frames]


def test_on_demand_only_what_is_asked_about_is_localised(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"mode": "on_demand", "localize_max_age_s": 100.0})
    for number in range(3):
        robot.show(image_message(pixels, stamp_s=1.0 + number))
        until(received(node, number + 1), "the image to arrive")
    answer = robot.trigger("localize")
    assert answer.success and json.loads(answer.message)["stamp_ns"] == 3 * 10**9
    assert seconds(robot.fix().header.stamp) == 3.0 and stamps(script) == [3.0]
    assert values(robot.diagnosis()["localization"])["mode"] == "on_demand"
    assert robot.set(mode="continuous") == ""
    robot.answer(image_message(pixels, stamp_s=4.0))
    assert stamps(script) == [3.0, 4.0]


def test_until_the_first_fix_and_again_after_a_reset(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start()
    robot.answer(image_message(pixels, stamp_s=0.5))  # a fix of another mode
    assert robot.set(mode="until_fix") == ""
    script.result = NoFix("low_confidence")
    robot.answer(image_message(pixels, stamp_s=1.0))
    script.result = FIX
    robot.answer(image_message(pixels, stamp_s=2.0))
    until(lambda: node.statistics.fixes == 2, "the answer to be counted")
    for number in range(2):
        robot.show(image_message(pixels, stamp_s=3.0 + number))
        until(received(node, 4 + number), "the image to arrive")
    assert stamps(script) == [0.5, 1.0, 2.0]
    assert robot.trigger("reset").success
    robot.answer(image_message(pixels, stamp_s=6.0))
    assert stamps(script) == [0.5, 1.0, 2.0, 6.0]


def test_until_the_first_fix_means_the_first_that_starts_others(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"mode": "until_fix", "initial_pose": "once", **BASE})
    script.result = oriented(10.0)
    robot.answer(image_message(pixels, stamp_s=1.0))  # nobody listens
    amcl = Amcl(robot)
    heard(node)
    script.result = FIX
    robot.answer(image_message(pixels, stamp_s=2.0))  # no orientation
    script.result = oriented(11.0)
    robot.answer(image_message(pixels, stamp_s=3.0))
    assert amcl.east_m() == pytest.approx(9.0)
    until(lambda: node.statistics.fixes == 3, "the answer to be counted")
    robot.show(image_message(pixels, stamp_s=4.0))
    until(received(node, 4), "the image to arrive")
    assert stamps(script) == [1.0, 2.0, 3.0]


def test_a_reset_by_who_has_just_heard_the_fix_is_not_lost(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published, go, publish = threading.Event(), threading.Event(), Outputs.publish

    def linger(*given: Any) -> None:  # as over the picture of a match
        publish(*given)
        published.set()
        assert go.wait(PATIENCE_S)

    monkeypatch.setattr(Outputs, "publish", linger)
    node = start({"mode": "until_fix"})
    robot.show(image_message(pixels, stamp_s=1.0))
    assert published.wait(PATIENCE_S)
    assert robot.trigger("reset").success
    go.set()
    until(lambda: node.statistics.fixes == 1, "the answer to be counted")
    robot.answer(image_message(pixels, stamp_s=2.0))
    assert stamps(script) == [1.0, 2.0]
