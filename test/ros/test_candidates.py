from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from visualization_msgs.msg import Marker

from geowarp_ros.attitude import fix_from_pose
from geowarp_ros.cameras import Camera
from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.candidates import NAMED, VIEW, VIEW_M, candidate_markers
from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Place, Pose

TOWN = LocalFrame(48.0, 11.0, 500.0)


def candidate(index: int, east_m: float, score: float | None) -> Candidate:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([east_m, 20.0, 0.0]))
    return Candidate(index, Place(f"{index}.jpg", float(latitude), float(longitude)), 0.1, score)


CANDIDATES = tuple(candidate(index, 10.0 * index, 0.9 - index / 10 if index < 2 else None) for index in range(6))
FIX = Fix(48.0, 11.0, 0.0, np.eye(3), 0.9)
HEADER = Header(1_500_000_000)


def test_each_candidate_lies_where_its_place_does() -> None:
    markers = candidate_markers(Answer(HEADER, FIX, CANDIDATES), TOWN, NodeConfig(map_frame="town")).markers
    assert markers[0].action == Marker.DELETEALL
    spheres = [marker for marker in markers if marker.type == Marker.SPHERE]
    assert [marker.pose.position.x for marker in spheres] == pytest.approx([0, 10, 20, 30, 40, 50], abs=0.01)
    assert all(marker.pose.position.y == pytest.approx(20.0, abs=0.01) for marker in spheres)
    assert {(m.header.frame_id, m.header.stamp.sec, m.header.stamp.nanosec) for m in markers} == {
        ("town", 1, 500_000_000)
    }
    assert len({(marker.ns, marker.id) for marker in markers[1:]}) == len(markers) - 1  # none hides another
    assert all(marker.pose.orientation.w == 1.0 and marker.color.a > 0 for marker in markers[1:])
    names = [marker.text for marker in markers if marker.type == Marker.TEXT_VIEW_FACING]
    assert names == ["1  0.jpg  0.900", "2  1.jpg  0.800", "3  2.jpg"]
    assert len(names) == NAMED


def test_colours_tell_fix_no_fix_and_what_was_re_ranked() -> None:
    fix = candidate_markers(Answer(HEADER, FIX, CANDIDATES), TOWN, NodeConfig()).markers[1].color
    lost = candidate_markers(Answer(HEADER, NoFix("jump"), CANDIDATES), TOWN, NodeConfig()).markers
    assert fix.g > fix.r and lost[1].color.r > lost[1].color.g
    spheres = [marker.color for marker in lost if marker.type == Marker.SPHERE]
    assert spheres[1] != spheres[2] and spheres[2] == spheres[3]


def test_inliers_are_whole_numbers() -> None:
    answer = Answer(Header(), FIX, (replace(candidate(0, 0.0, 31.0), score_unit="inliers"),))
    assert candidate_markers(answer, TOWN, NodeConfig()).markers[-1].text == "1  0.jpg  31 inliers"


def test_without_candidates_the_old_ones_are_deleted() -> None:
    (only,) = candidate_markers(Answer(HEADER, NoFix("empty_gallery")), TOWN, NodeConfig()).markers
    assert only.action == Marker.DELETEALL


def test_the_view_is_a_pyramid_at_the_pose() -> None:
    looks_west = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    pose = Pose("points", np.array([7.0, 9.0, 2.0]), looks_west, np.eye(6), 40, 5.0, 3, 0.5, 0.7, 1.0)
    answer = Answer(HEADER, fix_from_pose(pose, TOWN, 0.9, np.eye(6)), CANDIDATES)
    camera = Camera(320, 240, 160.0, 160.0, 159.5, 119.5)  # 90° wide
    view = candidate_markers(answer, TOWN, NodeConfig(), camera).markers[-1]
    assert (view.ns, view.type, len(view.points)) == (VIEW, Marker.LINE_LIST, 16)
    at = view.pose.position
    assert (at.x, at.y, at.z) == pytest.approx((7.0, 9.0, 2.0), abs=1e-6)
    points = {(round(p.x, 6), round(p.y, 6), round(p.z, 6)) for p in view.points}
    far = {(VIEW_M, y, z) for y in (-VIEW_M, VIEW_M) for z in (-0.75 * VIEW_M, 0.75 * VIEW_M)}
    assert points == {(0.0, 0.0, 0.0)} | far  # the body frame: x forward
    # turned by 180° about up, forward is west
    q = view.pose.orientation
    assert (abs(q.z), q.w) == pytest.approx((1.0, 0.0), abs=1e-6)
    pairs = [(view.points[2 * n], view.points[2 * n + 1]) for n in range(8)]
    assert sum(first.x == 0.0 for first, _ in pairs) == 4  # four edges from the camera, four around the image


def test_without_a_camera_model_some_pyramid_is_drawn_and_without_an_orientation_none() -> None:
    pose = Pose("points", np.zeros(3), np.eye(3), np.eye(6), 40, 5.0, 3, 0.5, 0.7, 1.0)
    answer = Answer(HEADER, fix_from_pose(pose, TOWN, 0.9, np.eye(6)))
    assert [m.ns for m in candidate_markers(answer, TOWN, NodeConfig()).markers[1:]] == [VIEW]
    plain = candidate_markers(Answer(HEADER, FIX, CANDIDATES), TOWN, NodeConfig()).markers
    assert VIEW not in {marker.ns for marker in plain}
