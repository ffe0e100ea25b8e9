"""The whole line on a real street: photographs to a gallery, a bag to the node, fixes back over DDS."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rclpy.node import Node

from geowarp_ros.gallery.build import build_gallery
from geowarp_ros.gallery.readers import read_source
from geowarp_ros.geodesy import distance_m
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.ros.play import play
from test.gallery import bags
from test.ros.conftest import Robot
from test.ros.test_process import NodeProcess

LUND = Path(__file__).parents[3] / "shared" / "data" / "lund"

pytestmark = [
    pytest.mark.ros,
    pytest.mark.real_images,
    pytest.mark.usefixtures("graph"),
    pytest.mark.skipif(not LUND.is_dir(), reason="needs the image set lund (shared/data beside the checkout)"),
]


def test_every_second_photograph_of_a_street_is_located_by_the_others(tmp_path: Path, graph: None) -> None:
    source = read_source(LUND)
    known, asked = source.images[::2], source.images[1::2]
    gallery = build_gallery(replace(source, images=known), Describer(load_model("default"), "cpu"), tmp_path / "g")
    assert gallery.added == 15
    messages = []
    for second, image in enumerate(asked):
        pixels = image.read()
        topic, recorded_ns, message = bags.image(second, 0)
        message.height, message.width, message.step = *pixels.shape[:2], 3 * pixels.shape[1]
        message.data = pixels.reshape(-1)
        messages.append((topic, recorded_ns, message))
    bags.write_bag(tmp_path / "walk", messages)

    robot = Robot("walker")
    settings = ("-p", f"gallery:={tmp_path / 'g'}", "-p", "device:=cpu", "-p", "position.min_confidence:=0.5")
    node = NodeProcess(*settings)
    player = Node("player_of_walk")
    answers: list[Any] = []
    try:
        node.says("activate: now active")

        def one_at_a_time(items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
            for item in items:
                yield item
                answers.append(robot.fix())

        play(player, tmp_path / "walk", {"/camera": "/image"}, rate=1000.0, progress=one_at_a_time)
        best = json.loads(robot.trigger("localize").message)["candidates"][0]["path"]
    finally:
        player.destroy_node()
        robot.close()
        if node.popen.poll() is None:
            node.end(signal.SIGKILL)

    assert len(answers) == len(asked) == 14
    errors_m = [
        float(distance_m(fix.latitude, fix.longitude, image.place.latitude_deg, image.place.longitude_deg))
        for fix, image in zip(answers, asked, strict=True)
        if fix.status.status == 0
    ]
    assert len(errors_m) >= 7  # neighbours stand 6 m apart, and some see little of one another
    assert max(errors_m) < 25
    assert best in {image.place.name for image in known}
