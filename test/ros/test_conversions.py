from __future__ import annotations

import math
import sys
import types
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image, NavSatFix

from geowarp_ros.attitude import Mounting, base_answer, enu_from_body, fix_from_pose
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import EncodingError, ImageError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.odometry import pose_from_message
from geowarp_ros.motion.prior import Hint, NoHint, hint_from_message
from geowarp_ros.ros.conversions import (
    frame_from_message,
    header,
    known_altitude,
    navsatfix_from_answer,
    pose_from_fix,
    stamp_ns,
)
from geowarp_ros.types import Answer, Fix, Header, NoFix, Pose
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import image_message, odometry_message, prior_message

DATUM = LocalFrame(50.0, 8.0, 100.0)
FIX = Fix(50.001, 8.0, 130.0, np.diag([4.0, 9.0, 16.0]), 0.8)
UNKNOWN_ALTITUDE = replace(FIX, covariance=np.diag([4.0, 9.0, 1e6]))
HEADER = Header(1_500_000_001, "camera")
CONFIG = NodeConfig()


def test_stamps_make_the_round_trip_to_the_nanosecond() -> None:
    stamp = 1_763_912_345_999_999_999
    assert stamp_ns(header(stamp, "camera").stamp) == stamp


def test_image_message_becomes_a_frame() -> None:
    pixels = np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)
    frame = frame_from_message(image_message(pixels, stamp_s=1.5, frame_id="front", encoding="bgr8"))
    assert np.array_equal(frame.image, pixels[..., ::-1])
    assert (frame.stamp_ns, frame.frame_id) == (1_500_000_000, "front")


def test_compressed_message_becomes_a_frame() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    frame = frame_from_message(CompressedImage(format="bgr8; png compressed bgr8", data=data))
    assert np.array_equal(frame.image, pixels[..., ::-1])


def test_an_unsupported_encoding_is_told_from_bad_bytes() -> None:
    message = image_message(np.zeros((24, 32, 3), np.uint8), encoding="32FC1")
    with pytest.raises(EncodingError):
        frame_from_message(message)
    message.encoding, message.data = "rgb8", message.data[:7]
    with pytest.raises(ImageError) as error:
        frame_from_message(message)
    assert not isinstance(error.value, EncodingError)


def test_cv_bridge_gets_a_second_try_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class CvBridge:
        def imgmsg_to_cv2(self, message: Image, encoding: str) -> Pixels:
            if message.encoding == "32FC1":
                raise TypeError("no colour")
            return np.full((24, 32, 3), 7 if encoding == "rgb8" else 0, np.uint8)

    module: Any = types.ModuleType("cv_bridge")
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)
    message = image_message(np.zeros((36, 32), np.uint8), encoding="nv24")
    assert frame_from_message(message).image[0, 0].tolist() == [7, 7, 7]
    message.encoding = "32FC1"
    with pytest.raises(EncodingError, match=r"'32FC1' is not supported.*cv_bridge: no colour"):
        frame_from_message(message)


@pytest.mark.parametrize("result", [FIX, NoFix("disagreement")])
def test_every_message_on_fix_obeys_the_consumers_rules(result: Fix | NoFix) -> None:
    answer = Answer(HEADER, result)
    message = navsatfix_from_answer(answer, DATUM, CONFIG)
    assert message.status.status == (0 if isinstance(result, Fix) else -1)  # never -2, which is taken for a fix
    assert message.status.service == 0
    assert np.isfinite([message.latitude, message.longitude, message.altitude]).all()
    assert message.position_covariance_type == NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    assert (np.linalg.eigvalsh(message.position_covariance.reshape(3, 3)) > 0).all()
    assert message.header.frame_id == "camera"
    assert stamp_ns(message.header.stamp) == 1_500_000_001
    elsewhere = NodeConfig(frame_id="base_link")
    assert navsatfix_from_answer(answer, DATUM, elsewhere).header.frame_id == "base_link"


def test_an_unknown_altitude_is_nan_by_parameter_only() -> None:
    nan = NodeConfig(altitude_nan=True)
    unknown = Answer(HEADER, replace(UNKNOWN_ALTITUDE, altitude_m=0.0))
    assert navsatfix_from_answer(unknown, DATUM, CONFIG).altitude == 0.0
    assert np.isnan(navsatfix_from_answer(unknown, DATUM, nan).altitude)
    assert navsatfix_from_answer(Answer(HEADER, FIX), DATUM, nan).altitude == 130.0


def test_pose_by_hand() -> None:
    message = pose_from_fix(FIX, HEADER.stamp_ns, DATUM, NodeConfig(map_frame="town"))
    assert (message.header.frame_id, stamp_ns(message.header.stamp)) == ("town", 1_500_000_001)
    pose = message.pose
    # one degree of latitude at 50° is 111 229 m (WGS84), so a thousandth is 111.23 m; 30 m above the datum
    assert pose.pose.position.x == pytest.approx(0.0, abs=1e-6)
    assert pose.pose.position.y == pytest.approx(111.23, abs=0.01)
    assert pose.pose.position.z == pytest.approx(30.0, abs=0.01)
    assert pose_from_fix(UNKNOWN_ALTITUDE, 0, DATUM, CONFIG).pose.pose.position.z == 0.0
    diagonal = np.diag(pose.covariance.reshape(6, 6))
    assert diagonal.tolist() == [4.0, 9.0, 16.0, 1e6, 1e6, 1e6]


def test_altitude_is_known_by_its_variance() -> None:
    assert CONFIG.position.vertical_std_m == 1000.0
    assert known_altitude(FIX, CONFIG) == 130.0
    assert known_altitude(UNKNOWN_ALTITUDE, CONFIG) is None
    assert known_altitude(replace(FIX, altitude_m=float("nan")), CONFIG) is None


def test_a_navsatfix_becomes_a_hint_with_its_worse_deviation() -> None:
    message = prior_message(48.1, 11.2, stamp_s=2.5)
    message.position_covariance = np.diag([4.0, 25.0, 900.0]).reshape(9)
    assert hint_from_message(message) == Hint(48.1, 11.2, 5.0, 2_500_000_000)
    message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_UNKNOWN
    assert hint_from_message(message) == Hint(48.1, 11.2, float("inf"), 2_500_000_000)


@pytest.mark.parametrize("status", [-1, -2])
def test_a_receiver_without_a_fix_gives_no_hint(status: int) -> None:
    assert hint_from_message(prior_message(48.1, 11.2, 2.5, status=status)) == NoHint(f"status {status}: no fix")
    assert hint_from_message(prior_message(0.0, 0.0, 2.5)) == NoHint("position 0°, 0°: no fix")
    assert isinstance(hint_from_message(prior_message(0.0, 11.2, 2.5)), Hint)  # on the equator


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.0, 3.1])
def test_an_odometry_becomes_a_pose(yaw: float) -> None:
    pose = pose_from_message(odometry_message(3.0, -4.0, yaw, stamp_s=2.5))
    assert pose.stamp_ns == 2_500_000_000
    assert pose.position_m == pytest.approx([3.0, -4.0, 0.0])
    assert pose.yaw_rad == pytest.approx(yaw)


# ---- orientation

NORTHWARD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""enu_from_camera of a level camera that looks north."""
SPREAD = np.diag([0.01, 0.02, 0.03, 1e-4, 2e-4, 3e-4])


def oriented(east_m: float, latitude: float = 50.0) -> tuple[Fix, LocalFrame]:
    """A camera that looks along the north axis of a frame, so far east of its datum."""
    frame = LocalFrame(latitude, 8.0, 100.0)
    pose = Pose("points", np.array([east_m, 0.0, 2.0]), NORTHWARD, SPREAD, 40, 5.0, 3, 0.5, 0.7, 1.0)
    return fix_from_pose(pose, frame, 0.9, SPREAD), frame


@pytest.mark.parametrize("east_m", [0.0, 20_000.0])
def test_a_pose_has_the_orientation_in_the_maps_axes(east_m: float) -> None:
    fix, frame = oriented(east_m, 60.0)
    if east_m:
        assert fix.heading_deg > 0.3  # true north at the fix is not the map's
    message = pose_from_fix(fix, 0, frame, CONFIG).pose
    q = message.pose.orientation
    # x forward along the map's y: a yaw of 90°
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)), abs=1e-9)
    np.testing.assert_allclose(message.covariance.reshape(6, 6), SPREAD, atol=1e-9)
    assert message.pose.position.x == pytest.approx(east_m, abs=1e-6)
    assert message.pose.position.z == pytest.approx(2.0, abs=1e-6)


def test_an_answer_of_the_base_says_so_in_both_messages() -> None:
    fix, frame = oriented(0.0)
    answer = base_answer(Answer(HEADER, fix), Mounting.of((1.0, 0.0, 2.0), (0.0, 0.0, -90.0)), "base_link")
    message = navsatfix_from_answer(answer, frame, CONFIG)
    assert message.header.frame_id == "base_link"
    assert answer.fix is not None
    pose = pose_from_fix(answer.fix, 0, frame, CONFIG).pose.pose
    # the camera looks right, north: the base heads west, and lies 1 m east of the camera and 2 m lower
    assert (pose.position.x, pose.position.y, pose.position.z) == pytest.approx((1.0, 0.0, 0.0), abs=1e-6)
    assert enu_from_body((pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w))[
        :, 0
    ] == pytest.approx([-1.0, 0.0, 0.0], abs=1e-6)
    # 1 m of lever east: turns about up move it north; about north, down; 2 m down: about east and north
    wide = np.array(message.position_covariance).reshape(3, 3)
    assert np.diag(wide) == pytest.approx([0.01 + 4 * 2e-4, 0.02 + 4 * 1e-4 + 3e-4, 0.03 + 2e-4], rel=1e-4)


def test_without_a_mounting_an_answer_stays_the_cameras_and_a_no_fix_is_the_bases_with_one() -> None:
    answer = Answer(HEADER, oriented(0.0)[0])
    assert base_answer(answer, None, "base_link") is answer
    lost = base_answer(Answer(HEADER, NoFix("jump")), Mounting.of((1.0, 0.0, 0.0), (0.0, 0.0, 0.0)), "base_link")
    assert navsatfix_from_answer(lost, DATUM, CONFIG).header.frame_id == "base_link"
    assert lost.result == NoFix("jump")


def test_a_cluster_fix_of_the_base_is_as_uncertain_as_its_lever_is_long() -> None:
    mounting = Mounting.of((0.0, 3.0, 0.0), (0.0, 0.0, 0.0))
    message = navsatfix_from_answer(base_answer(Answer(HEADER, FIX), mounting, "base_link"), DATUM, CONFIG)
    assert np.diag(message.position_covariance.reshape(3, 3)).tolist() == [13.0, 18.0, 25.0]


def test_in_a_map_that_was_made_without_a_compass() -> None:
    turned = LocalFrame(50.0, 8.0, 100.0, 90.0)  # x points north, y west
    pose = pose_from_fix(FIX, 0, turned, CONFIG).pose
    assert (pose.pose.position.x, pose.pose.position.y) == pytest.approx((111.23, 0.0), abs=0.01)
    assert np.diag(pose.covariance.reshape(6, 6))[:3] == pytest.approx([9.0, 4.0, 16.0])
    fix, _ = oriented(0.0)
    pose = pose_from_fix(fix, 0, turned, CONFIG).pose
    q = pose.pose.orientation
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-9)  # it looks north: along x
    assert np.diag(pose.covariance.reshape(6, 6)) == pytest.approx([0.02, 0.01, 0.03, 2e-4, 1e-4, 3e-4])
