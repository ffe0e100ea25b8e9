"""Whoever looks at a localizer over real DDS is told what it publishes, in the form in which it publishes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, NavSatFix
from visualization_msgs.msg import MarkerArray

from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.ros.candidates import candidate_markers
from geowarp_ros.ros.conversions import header, navsatfix_from_answer, pose_from_fix
from geowarp_ros.ros.watching import LABEL, watching
from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Place
from geowarp_ros.view.live import Live
from test.ros.conftest import until

TOWN = LocalFrame(48.0, 11.0)
CONFIG = NodeConfig()
JPEG = encode_jpeg(np.zeros((8, 8, 3), np.uint8))


def placed(east: float, north: float) -> tuple[float, float]:
    latitude, longitude, _ = TOWN.to_geodetic([east, north, 0.0])
    return float(latitude), float(longitude)


class Localizer:
    """Publishes answers as the node does, by its own functions, with stamps of a simulated clock."""

    def __init__(self, namespace: str) -> None:
        self.node = Node("geowarp_localizer", namespace=namespace or None)
        kinds = {"fix": NavSatFix, "pose": PoseWithCovarianceStamped, "candidates": MarkerArray}
        kinds["match_image/compressed"] = CompressedImage
        self.publishers = {name: self.node.create_publisher(kind, f"~/{name}", 10) for name, kind in kinds.items()}
        self.diagnostics = self.node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(self, answer: Answer) -> None:
        stamp = answer.header.stamp_ns
        if answer.fix:
            self.publishers["pose"].publish(pose_from_fix(answer.fix, stamp, TOWN, CONFIG))
        self.publishers["fix"].publish(navsatfix_from_answer(answer, TOWN, CONFIG))
        self.publishers["candidates"].publish(candidate_markers(answer, TOWN, CONFIG))
        picture = CompressedImage(header=header(stamp, "camera"), format="jpeg", data=JPEG)
        self.publishers["match_image/compressed"].publish(picture)


@pytest.fixture(params=["", "/front"])
def localizer(graph: None, request: pytest.FixtureRequest) -> Iterator[Localizer]:
    localizer = Localizer(request.param)
    yield localizer
    localizer.node.destroy_node()


def answers() -> tuple[Answer, Answer]:
    best = Candidate(0, Place("gallery/a  b.jpg", *placed(30.0, 40.0)), 0.1, 0.9, score_unit="mean cosine")
    half = math.radians(90.0 - 200.0) / 2  # heading 200°
    covariance = np.diag([4.0, 9.0, 1e4, 0.01, 0.01, math.radians(2.0) ** 2])
    fix = Fix(*placed(10.0, 20.0), 0.0, covariance[:3, :3], 0.9)
    fix = replace(fix, orientation=(0.0, 0.0, math.sin(half), math.cos(half)), pose_covariance=covariance)
    found = Answer(Header(2_500_000_000), fix, (best,))
    return Answer(Header(2_000_000_000), NoFix("low_confidence"), (replace(best, score=None),)), found


def test_what_is_published_is_told(localizer: Localizer) -> None:
    name = localizer.node.get_fully_qualified_name()
    seen = Live(name)
    with watching(seen, name):
        lost, found = answers()

        def begun() -> bool:  # what is published before both ends know of one another is lost
            localizer.publish(replace(lost, header=Header(1_500_000_000)))
            drive = seen.scene()["drive"]
            return bool(drive["picture"] == [0] and drive["candidate"] != [""])

        until(begun, "the first answer")
        localizer.publish(lost)
        localizer.publish(found)
        until(lambda: seen.scene()["drive"]["picture"] == [0, 1, 2], "both pictures")
        until(lambda: all(seen.scene()["drive"]["candidate"]), "both candidates")
        until(lambda: seen.scene()["drive"]["heading"][-1], "the pose")
        status = [DiagnosticStatus(name="other: input", message="other", level=DiagnosticStatus.ERROR)]
        status.append(
            DiagnosticStatus(name=f"{name[1:]}: input", message="no camera", level=DiagnosticStatus.WARN)
        )
        status.append(DiagnosticStatus(name=f"{name[1:]}: memory", message="fine", level=DiagnosticStatus.OK))
        until(localizer.diagnostics.get_subscription_count, "a subscription to /diagnostics")
        localizer.diagnostics.publish(DiagnosticArray(status=status))
        until(lambda: "no camera" in seen.news(0)["state"], "the diagnostics")
    drive = {name: values[1:] for name, values in seen.scene()["drive"].items()}
    assert drive["t"] == [0.5, 1.0] and drive["status"] == ["no_fix", "fix"]
    # the map's sphere is up to 0.7 % off
    assert (drive["x"], drive["y"]) == (
        pytest.approx([30.0, 10.0], rel=0.007),
        pytest.approx([40.0, 20.0], rel=0.007),
    )
    assert drive["radius"][1] == pytest.approx(3.0 * 5.991**0.5, abs=0.01)
    assert drive["candidate"] == ["gallery/a  b.jpg"] * 2
    assert (drive["heading"][1], drive["heading_std"][1]) == (
        pytest.approx(200.0, abs=0.01),
        pytest.approx(2.0, abs=0.01),
    )
    assert drive["heading"][0] is None
    assert seen.picture("live", 2) == JPEG


def test_afterwards_nobody_subscribes(localizer: Localizer) -> None:
    name = localizer.node.get_fully_qualified_name()
    publisher = localizer.publishers["match_image/compressed"]  # drawn only while somebody looks
    with watching(Live(name), name):
        until(publisher.get_subscription_count, "a subscription")
    until(lambda: not publisher.get_subscription_count(), "nobody")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("1  a.jpg  0.900", "a.jpg"),
        ("1  a.jpg", "a.jpg"),
        ("1  a  b.jpg  12 inliers", "a  b.jpg"),
        ("1  a  -0.100", "a"),
    ],
)
def test_a_name_is_read_from_its_label(label: str, name: str) -> None:
    found = LABEL.fullmatch(label)
    assert found and found[1] == name
