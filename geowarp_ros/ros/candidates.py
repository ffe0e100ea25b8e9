"""The candidates of an answer as markers in the map frame, for RViz and Foxglove."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from geowarp_ros.attitude import BODY_FROM_OPTICAL
from geowarp_ros.cameras import Camera
from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import score_text
from geowarp_ros.ros.conversions import header, pose_from_fix
from geowarp_ros.types import Answer, FloatArray

SPHERES, NAMES, VIEW = "candidates", "names", "view"
NAMED = 3
"""Number of candidates that are labelled with their names."""

VIEW_M = 5.0
"""Depth of the drawn view."""

_ANY_CAMERA = Camera(4, 3, 4.0, 4.0, 1.5, 1.0)
"""What is drawn without a camera model: 53° by 41°."""

_DIAMETER_M = 3.0
_FIX = ColorRGBA(r=0.24, g=0.86, b=0.35, a=0.9)
_NO_FIX = ColorRGBA(r=0.96, g=0.31, b=0.24, a=0.9)
_RERANKED = ColorRGBA(r=1.0, g=0.65, b=0.1, a=0.8)
_RETRIEVED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.6)
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)


def candidate_markers(
    answer: Answer, datum: LocalFrame, config: NodeConfig, camera: Camera | None = None
) -> MarkerArray:
    """Return a sphere per candidate, the best one the largest; the markers of the answer before are deleted.

    Colours: green, best of a fix; red, best of a no-fix; orange, re-ranked; grey, retrieved only. A fix with an
    orientation adds the pyramid that the camera sees, VIEW_M deep, at its pose.

    Args:
        answer: With its candidates, best first.
        datum: Origin of the map frame.
        config: Name of the map frame.
        camera: Its model, for the shape of the pyramid; None: any.
    """
    head = header(answer.header.stamp_ns, config.map_frame)
    markers = [Marker(header=head, action=Marker.DELETEALL)]

    def add(namespace: str, number: int, kind: int, position: Point, colour: ColorRGBA) -> Marker:
        marker = Marker(header=head, ns=namespace, id=number, type=kind, action=Marker.ADD, color=colour)
        marker.pose.position, marker.pose.orientation.w = position, 1.0
        markers.append(marker)
        return marker

    for rank, candidate in enumerate(answer.candidates):
        east, north, _ = datum.to_enu(candidate.place.latitude_deg, candidate.place.longitude_deg)
        colour, diameter = _RETRIEVED if candidate.score is None else _RERANKED, _DIAMETER_M / 2
        if rank == 0:
            colour, diameter = _NO_FIX if answer.fix is None else _FIX, _DIAMETER_M
        sphere = add(SPHERES, rank, Marker.SPHERE, Point(x=float(east), y=float(north), z=0.0), colour)
        sphere.scale = Vector3(x=diameter, y=diameter, z=diameter)
        if rank < NAMED:
            above = Point(x=float(east), y=float(north), z=_DIAMETER_M)
            name = add(NAMES, rank, Marker.TEXT_VIEW_FACING, above, _WHITE)
            name.scale.z = 2.0  # height of a capital letter, m
            score = score_text(candidate.score, candidate.score_unit)
            name.text = f"{rank + 1}  {candidate.place.name}  {score}".rstrip()
    if answer.fix is not None and answer.fix.orientation is not None:
        # of the camera, at the pose in the map; the points are in its body frame
        pose = pose_from_fix(answer.fix, answer.header.stamp_ns, datum, config).pose.pose
        view = add(VIEW, 0, Marker.LINE_LIST, pose.position, _FIX)
        view.pose.orientation = pose.orientation
        view.scale.x = 0.1  # width of a line, m
        view.points = [Point(x=x, y=y, z=z) for x, y, z in _pyramid(camera or _ANY_CAMERA).tolist()]
    return MarkerArray(markers=markers)


def _pyramid(camera: Camera) -> FloatArray:
    """Return the ends (16, 3) of the eight edges of what a camera sees, in its body frame, m."""
    right, bottom = camera.width_px - 0.5, camera.height_px - 0.5
    corners = camera.normalised(np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]]))
    rays = np.column_stack([np.nan_to_num(corners), np.ones(4)])
    ends = VIEW_M * rays @ BODY_FROM_OPTICAL.T
    edges = [(np.zeros(3), end) for end in ends] + list(zip(ends, np.roll(ends, -1, axis=0), strict=True))
    return np.array(edges).reshape(16, 3)
