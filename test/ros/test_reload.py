"""Another gallery while the node runs: the map frame stays with the datum, and says so where that is another."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, seconds, until, values
from test.ros.test_node import DATUM, Script, ScriptedGallery, script, start  # noqa: F401

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


def test_the_map_frame_stays_when_the_middle_moves_and_the_datum_does_not(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
) -> None:
    node = start()
    robot.show(image_message(pixels, stamp_s=1.0))
    before = robot.poses.get(timeout=PATIENCE_S).pose.pose.position
    script.gallery = ScriptedGallery()
    script.gallery.frame = LocalFrame(55.7101, 13.19, 30.0)  # 11 m north: places were removed
    assert "datum moved by" not in json.loads(robot.trigger("reload_gallery").message)
    robot.show(image_message(pixels, stamp_s=2.0))
    after = robot.poses.get(timeout=PATIENCE_S).pose.pose.position
    assert (before.x, before.y, before.z) == (after.x, after.y, after.z)
    assert node.statistics.resets == 0


def test_another_datum_begins_anew_and_is_said(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    pixels: Pixels,
    script: Script,
    capfd: pytest.CaptureFixture[str],
) -> None:
    node = start()
    robot.show(image_message(pixels, stamp_s=1.0))
    before = robot.poses.get(timeout=PATIENCE_S).pose.pose.position
    script.gate.clear()
    script.begun.clear()
    robot.show(image_message(pixels, stamp_s=2.0))
    assert script.begun.wait(PATIENCE_S)
    script.gallery = ScriptedGallery(LocalFrame(55.7101, 13.19, 30.0))
    answer = robot.trigger("reload_gallery")
    # a ten-thousandth of a degree of latitude is 11.14 m at 55.7°
    assert answer.success and json.loads(answer.message)["datum moved by"] == "11.1 m"
    assert "the datum moved by 11.1 m, and map_frame with it: 55.7101000, 13.1900000" in capfd.readouterr().err
    script.gate.set()
    robot.show(image_message(pixels, stamp_s=3.0))
    pose = robot.poses.get(timeout=PATIENCE_S)
    assert seconds(pose.header.stamp) == 3.0  # that of the second image lay about the old datum
    after = pose.pose.pose.position
    assert (after.x - before.x, after.y - before.y) == pytest.approx((0.0, -11.14), abs=0.01)
    assert node.statistics.resets == 1
    said = robot.diagnosis(lambda parts: "datum" in values(parts["gallery"]))
    assert values(said["gallery"])["datum"] == "55.7101000, 13.1900000"


def test_a_datum_of_the_nodes_own_is_no_gallerys_to_move(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    script: Script,
) -> None:
    start({"datum_latitude": 55.7, "datum_longitude": 13.1})
    until(lambda: robot.state() == "active", "activation")
    script.gallery = ScriptedGallery(LocalFrame(10.0, 20.0))
    said = json.loads(robot.trigger("reload_gallery").message)
    assert said["datum"] == "55.7000000, 13.1000000" and "datum moved by" not in said
    assert DATUM.datum == (55.71, 13.19, 30.0)
