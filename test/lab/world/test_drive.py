from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from geowarp_ros.lab.world.dataset import town_frame
from geowarp_ros.lab.world.drive import FIX_TOPIC, IMAGE_TOPIC, INFO_TOPIC, START_NS, plan_route
from geowarp_ros.lab.world.world import World
from geowarp_ros.readers import read_source
from test.lab.world.conftest import SMALL

Recording: TypeAlias = dict[str, list[tuple[int, Any]]]


@pytest.fixture(scope="module")
def recording(world_folder: Path) -> Recording:
    """The drive's messages: topic -> [(time of recording, message)]."""
    found: Recording = {IMAGE_TOPIC: [], INFO_TOPIC: [], FIX_TOPIC: []}
    with AnyReader([world_folder / "drive"]) as reader:
        for connection, stamp, data in reader.messages():
            found[connection.topic].append((stamp, reader.deserialize(data, connection.msgtype)))
    return found


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def test_messages_are_stamped_at_their_rates(recording: Recording) -> None:
    for topic, period_ns in ((IMAGE_TOPIC, 200_000_000), (FIX_TOPIC, 100_000_000)):
        stamps = [stamp_ns(message) for _, message in recording[topic]]
        assert stamps == [recorded for recorded, _ in recording[topic]]
        assert stamps[0] == START_NS
        assert set(np.diff(stamps)) == {period_ns}
    assert len(recording[INFO_TOPIC]) == len(recording[IMAGE_TOPIC]) > 10


def test_images_are_what_the_consumers_expect(recording: Recording) -> None:
    _, image = recording[IMAGE_TOPIC][3]
    assert (image.height, image.width, image.step, image.encoding) == (72, 96, 288, "rgb8")
    assert image.header.frame_id == "camera_optical_frame"
    assert len(image.data) == 72 * 288
    assert image.data.std() > 10
    _, info = recording[INFO_TOPIC][3]
    # f = 48 / tan(37.5°), principal point in the middle of 96 × 72
    assert info.k == pytest.approx([62.555, 0, 47.5, 0, 62.555, 35.5, 0, 0, 1], abs=0.01)


def test_fixes_are_the_true_positions(recording: Recording, world: World) -> None:
    route = plan_route(world.streets[:2], 1.8)
    position = np.array([(m.latitude, m.longitude, m.altitude) for _, m in recording[FIX_TOPIC]])
    enu = town_frame(SMALL).to_enu(*position.T)
    truth = np.array([route.at(2.0 * i) for i in range(len(enu))])[:, :2]  # 20 m/s, 10 Hz
    assert enu[:, :2] == pytest.approx(truth, abs=1e-3)
    assert enu[:, 2] == pytest.approx(1.5, abs=0.01)
    _, fix = recording[FIX_TOPIC][0]
    assert fix.status.status == 0
    assert fix.position_covariance_type == 2
    assert (np.diag(fix.position_covariance.reshape(3, 3)) > 0).all()


def test_a_gallery_can_be_read_from_it(world_folder: Path, recording: Recording) -> None:
    source = read_source(world_folder / "drive", min_spacing_m=8)
    assert 5 < len(source.images) < len(recording[IMAGE_TOPIC])
    assert source.images[0].read().shape == (72, 96, 3)


def test_the_route_keeps_its_lane_and_rounds_the_corner(world: World) -> None:
    first, second = world.streets[:2]
    route = plan_route((first, second), -1.8)
    assert route.points[0] == pytest.approx(first.point(first.margin_m, -1.8), abs=0.1)
    assert route.points[-1] == pytest.approx(second.point(second.length_m - second.margin_m, -1.8), abs=0.3)
    assert np.linalg.norm(np.diff(route.points, axis=0), axis=1) == pytest.approx(0.1, abs=0.005)
    assert route.at(5.0)[2] % 360 == pytest.approx(first.heading_deg, abs=0.5)
    assert route.at(route.length_m - 5)[2] % 360 == pytest.approx(second.heading_deg, abs=0.5)
    assert np.abs(np.diff(route.headings_deg)).max() < 3  # no jump at the corner
