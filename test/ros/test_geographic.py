"""The datum over DDS, for whoever comes late; geographic poses and conversions through stand-ins."""

# ruff: noqa: F811 (fixtures of another file)

from __future__ import annotations

import importlib.util
import json
import math
import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, Quaternion
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import NavSatFix
from std_msgs.msg import Header as RosHeader

from geowarp_ros.attitude import Mounting, base_answer
from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.geographic import DATUM as TOPIC
from geowarp_ros.ros.geographic import GEOPOSE, Geographic
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Answer, Header, NoFix
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, seconds, until
from test.ros.test_initial_pose import oriented
from test.ros.test_node import DATUM, FIX, Script, ScriptedGallery, script, start  # noqa: F401


class Late:
    """Subscribes to the datum, at any time."""

    def __init__(self, robot: Robot) -> None:
        self.heard: queue.Queue[NavSatFix] = queue.Queue()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        robot.node.create_subscription(NavSatFix, "/geowarp_localizer/datum", self.heard.put, latched)

    def __call__(self) -> tuple[float, float, float]:
        message = self.heard.get(timeout=PATIENCE_S)
        assert (message.header.frame_id, message.position_covariance_type) == ("map", 3)
        assert not message.position_covariance.any()
        return message.latitude, message.longitude, message.altitude


@pytest.mark.ros
def test_the_datum_is_known_to_who_comes_late_and_another_is_told(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start()
    until(lambda: robot.state() == "active", "activation")
    late = Late(robot)
    assert late() == DATUM.datum
    script.gallery = ScriptedGallery(LocalFrame(55.7101, 13.2, 0.0))
    assert "datum moved by" in json.loads(robot.trigger("reload_gallery").message)
    assert late() == Late(robot)() == (55.7101, 13.2, 0.0)


@pytest.mark.ros
def test_the_datum_and_the_pose_lead_back_to_the_fix(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    start({"datum_latitude": 55.7, "datum_longitude": 13.1})
    robot.show(image_message(pixels, stamp_s=1.0))
    point = robot.poses.get(timeout=PATIENCE_S).pose.pose.position
    latitude, longitude, _ = LocalFrame(*Late(robot)()).to_geodetic([point.x, point.y, point.z])
    # nobody knows its altitude: it lies in the datum's plane, 3 m above the ground at 6 km, and so 3 mm aside
    assert (latitude, longitude) == pytest.approx((FIX.latitude_deg, FIX.longitude_deg), abs=1e-7)


@pytest.mark.ros
def test_without_their_packages_there_are_neither_poses_nor_conversions(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    if importlib.util.find_spec("geographic_msgs") or importlib.util.find_spec("robot_localization"):
        pytest.skip("they are installed here")
    start()
    robot.answer(image_message(pixels, stamp_s=1.0))
    names = [name for name, _ in robot.node.get_topic_names_and_types() + robot.node.get_service_names_and_types()]
    assert "/geowarp_localizer/datum" in names
    assert not [name for name in names if name.endswith(("geopose", "LL"))]


# ---- stand-ins: fields as in geographic_msgs and robot_localization


@dataclass
class GeoPoint:
    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0


@dataclass
class GeoPose:
    position: GeoPoint = field(default_factory=GeoPoint)
    orientation: Quaternion = field(default_factory=Quaternion)


@dataclass
class GeoPoseStamped:
    header: RosHeader = field(default_factory=RosHeader)
    pose: GeoPose = field(default_factory=GeoPose)


@dataclass
class LL:
    """Request and response of both conversions."""

    ll_point: GeoPoint = field(default_factory=GeoPoint)
    map_point: Point = field(default_factory=Point)


class FromLL: ...


class ToLL: ...


class Kept:
    """A node whose publishers keep what is published."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[type, Any]] = {}
        self.served: dict[str, tuple[type, Any]] = {}
        self.messages: dict[str, list[Any]] = {}

    def create_lifecycle_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        self.made[topic] = kind, qos
        node, publisher = self, type("Publisher", (), {"topic": topic})()
        publisher.publish = lambda message: node.messages.setdefault(topic, []).append(message)
        return publisher

    def destroy_lifecycle_publisher(self, publisher: Any) -> None:
        del self.made[publisher.topic]

    def create_service(self, kind: type, name: str, callback: Any, callback_group: Any) -> str:
        self.served[name] = kind, callback
        return name

    def destroy_service(self, name: str) -> None:
        del self.served[name]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    messages: Any = ModuleType("geographic_msgs.msg")
    messages.GeoPoseStamped = GeoPoseStamped
    services: Any = ModuleType("robot_localization.srv")
    services.FromLL, services.ToLL = FromLL, ToLL
    for module in (ModuleType("geographic_msgs"), messages, ModuleType("robot_localization"), services):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return Kept()


def test_a_geographic_pose_is_the_fix_with_true_north(kept: Kept) -> None:
    geographic, config = Geographic(kept), NodeConfig(base_frame="base_link")
    fix = oriented(20_000.0)  # the map's north is not true north there
    answer = Answer(Header(2_500_000_000, "camera"), fix)
    geographic.publish(answer, config)
    geographic.publish(Answer(Header(), NoFix("jump")), config)
    geographic.publish(Answer(Header(), replace(fix, orientation=None)), config)  # it would be a heading east
    (message,) = kept.messages[GEOPOSE]
    assert (message.header.frame_id, seconds(message.header.stamp)) == ("camera", 2.5)
    position, q = message.pose.position, message.pose.orientation
    assert (position.latitude, position.longitude, position.altitude) == (
        fix.latitude_deg, fix.longitude_deg, fix.altitude_m,
    )  # fmt: skip
    yaw_deg = math.degrees(2 * math.atan2(q.z, q.w))
    assert yaw_deg == pytest.approx(90.0 - fix.heading_deg, abs=1e-3) and fix.heading_deg > 0.1
    unknown = replace(fix, covariance=np.diag([1.0, 1.0, 1e6]))
    mounting = Mounting.of((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    geographic.publish(base_answer(replace(answer, result=unknown), mounting, "base_link"), config)
    assert kept.messages[GEOPOSE][-1].header.frame_id == "base_link"
    geographic.publish(replace(answer, result=unknown), config)
    assert math.isnan(kept.messages[GEOPOSE][-1].pose.position.altitude)
    assert kept.made[GEOPOSE][0] is GeoPoseStamped and TOPIC in kept.made
    geographic.destroy()
    assert not kept.made and not kept.served


def test_conversions_are_inverse_and_about_the_datum(kept: Kept) -> None:
    geographic = Geographic(kept)
    geographic._datum = DATUM
    (from_kind, from_ll), (to_kind, to_ll) = kept.served["~/fromLL"], kept.served["~/toLL"]
    assert (from_kind, to_kind) == (FromLL, ToLL)
    point = from_ll(LL(GeoPoint(DATUM.datum_latitude_deg + 1e-3, DATUM.datum_longitude_deg, 35.0)), LL()).map_point
    # a thousandth of a degree of latitude is 111.34 m at 55.7° (meridian radius 6 379.1 km), 5 m above the datum
    assert (point.x, point.y, point.z) == pytest.approx((0.0, 111.34, 5.0), abs=0.01)
    back = to_ll(LL(map_point=point), LL()).ll_point
    assert (back.latitude, back.longitude, back.altitude) == pytest.approx((55.711, 13.19, 35.0), abs=1e-8)
    plane = from_ll(LL(GeoPoint(DATUM.datum_latitude_deg, DATUM.datum_longitude_deg, math.nan)), LL()).map_point
    assert (plane.x, plane.y, plane.z) == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
