"""The candidates of an answer as markers in the map frame, for RViz and Foxglove."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.conversions import header
from geowarp_ros.types import Fix, NoFix

SPHERES, NAMES = "candidates", "names"
NAMED = 3
"""So many candidates have their names beside them."""

_DIAMETER_M = 3.0


def candidate_markers(answer: Fix | NoFix, datum: LocalFrame, map_frame: str) -> MarkerArray:
    """Return a sphere for each candidate, the best the largest; those before are taken away.

    Green is the best of a fix, red the best of a no-fix, orange what was re-ranked, grey what was not.

    Args:
        answer: With its candidates, best first.
        datum: Origin of the map frame.
        map_frame: The map frame's name.
    """
    head = header(answer.stamp_ns, map_frame)
    markers = [Marker(header=head, action=Marker.DELETEALL)]
    for rank, candidate in enumerate(answer.candidates):
        east, north, _ = datum.to_enu(candidate.place.latitude_deg, candidate.place.longitude_deg)
        position = Point(x=float(east), y=float(north), z=0.0)
        diameter = _DIAMETER_M if rank == 0 else _DIAMETER_M / 2
        sphere = _marker(head, SPHERES, rank, Marker.SPHERE, position)
        sphere.scale = Vector3(x=diameter, y=diameter, z=diameter)
        sphere.color = _colour(rank, isinstance(answer, Fix), candidate.score is not None)
        markers.append(sphere)
        if rank < NAMED:
            above = Point(x=position.x, y=position.y, z=_DIAMETER_M)
            name = _marker(head, NAMES, rank, Marker.TEXT_VIEW_FACING, above)
            name.scale.z = 2.0  # the height of a capital letter, m
            name.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
            score = "" if candidate.score is None else f"  {candidate.score:.1f}"
            name.text = f"{rank + 1}  {candidate.place.name}{score}"
            markers.append(name)
    return MarkerArray(markers=markers)


def _marker(head: Any, namespace: str, number: int, kind: int, position: Point) -> Marker:
    marker = Marker(header=head, ns=namespace, id=number, type=kind, action=Marker.ADD)
    marker.pose.position = position
    marker.pose.orientation.w = 1.0
    return marker


def _colour(rank: int, found: bool, re_ranked: bool) -> ColorRGBA:
    if rank == 0:
        return ColorRGBA(r=0.24, g=0.86, b=0.35, a=0.9) if found else ColorRGBA(r=0.96, g=0.31, b=0.24, a=0.9)
    return ColorRGBA(r=1.0, g=0.65, b=0.1, a=0.8) if re_ranked else ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.6)
