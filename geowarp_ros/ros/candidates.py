"""The candidates of an answer as markers in the map frame, for RViz and Foxglove."""

from __future__ import annotations

from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import score_text
from geowarp_ros.ros.conversions import header
from geowarp_ros.types import Answer

SPHERES, NAMES = "candidates", "names"
NAMED = 3
"""Number of candidates that are labelled with their names."""

_DIAMETER_M = 3.0
_FIX = ColorRGBA(r=0.24, g=0.86, b=0.35, a=0.9)
_NO_FIX = ColorRGBA(r=0.96, g=0.31, b=0.24, a=0.9)
_RERANKED = ColorRGBA(r=1.0, g=0.65, b=0.1, a=0.8)
_RETRIEVED = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.6)
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)


def candidate_markers(answer: Answer, datum: LocalFrame, map_frame: str) -> MarkerArray:
    """Return a sphere per candidate, the best one the largest; the markers of the answer before are deleted.

    Colours: green, best of a fix; red, best of a no-fix; orange, re-ranked; grey, retrieved only.

    Args:
        answer: With its candidates, best first.
        datum: Origin of the map frame.
        map_frame: Name of the map frame.
    """
    head = header(answer.header.stamp_ns, map_frame)
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
            score = score_text(candidate.score, answer.header.score_unit)
            name.text = f"{rank + 1}  {candidate.place.name}  {score}".rstrip()
    return MarkerArray(markers=markers)
