"""A run's fixes in the forms that other programs read: a ROS 2 bag, GeoJSON, GPX and TUM trajectories.

Local metres are those of the run's frame: east, north, up of the gallery's centre, as the node's ``~/pose``.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.bags import FIX_TOPIC, FIX_TYPE
from geowarp_ros.evaluation.drive import NS, Position
from geowarp_ros.evaluation.judging import error_en_m
from geowarp_ros.evaluation.run import Answered, Run
from geowarp_ros.types import Fix

POSE_TOPIC = "/geowarp_localizer/pose"
POSE_TYPE = "geometry_msgs/msg/PoseWithCovarianceStamped"

UNKNOWN_ORIENTATION_VARIANCE = math.pi**2
"""rad²: any direction is within one standard deviation; a fix knows no orientation."""

MADE_BY = "geowarp_evaluation"
"""Key in the bag's metadata by which it is known again."""

BAG_VERSION = 8
"""The newest that every ROS 2 since Humble plays."""


def write_bag(run: Run, folder: Path, map_frame: str = "map") -> None:
    """Write every answer as NavSatFix (NO_FIX where there is none) and every fix as PoseWithCovarianceStamped.

    The topics, fields and stamps are the node's own; messages are recorded at their header stamps, so that the bag
    plays beside the drive's.

    Args:
        run: What was answered.
        folder: Of the bag; one of the same make that stands there is replaced.
        map_frame: frame_id of the poses.

    Raises:
        SourceError: Something else stands there.
    """
    if folder.exists():
        _remove_bag(folder)
    types = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            kind: writer.add_connection(topic, kind, typestore=types)
            for topic, kind in ((FIX_TOPIC, FIX_TYPE), (POSE_TOPIC, POSE_TYPE))
        }
        writer.set_custom_data(MADE_BY, run.title)
        for item in run.answered:
            if item.name in run.dropped:
                continue
            messages = [_navsatfix(types, item)]
            if isinstance(item.answer, Fix):
                messages.append(_pose(types, item.answer, item.stamp_ns, run, map_frame))
            for message in messages:
                kind = message.__msgtype__
                writer.write(topics[kind], item.stamp_ns, types.serialize_cdr(message, kind))


def _remove_bag(folder: Path) -> None:
    """Remove a bag that :func:`write_bag` wrote; a recording of the user's is never deleted."""
    metadata = folder / "metadata.yaml"
    bag = yaml.safe_load(metadata.read_text()) if metadata.is_file() else {}
    made_by = (
        (bag.get("rosbag2_bagfile_information", {}).get("custom_data") or {}) if isinstance(bag, dict) else {}
    )
    if MADE_BY not in made_by:
        raise SourceError(
            f"{folder}: stands there already and was not written by an evaluation; move it away first"
        )
    shutil.rmtree(folder)


def _navsatfix(types: Any, item: Answered) -> Any:
    answer = item.answer
    fix = answer if isinstance(answer, Fix) else None
    message = types.types[FIX_TYPE]
    status = types.types["sensor_msgs/msg/NavSatStatus"]
    return message(
        header=_header(types, item.stamp_ns, answer.frame_id),
        status=status(status=0 if fix else -1, service=0),
        latitude=fix.latitude_deg if fix else math.nan,
        longitude=fix.longitude_deg if fix else math.nan,
        altitude=fix.altitude_m if fix else math.nan,
        position_covariance=np.array(fix.covariance, float).ravel() if fix else np.zeros(9),
        position_covariance_type=message.COVARIANCE_TYPE_APPROXIMATED if fix else message.COVARIANCE_TYPE_UNKNOWN,
    )


def _pose(types: Any, fix: Fix, stamp: int, run: Run, map_frame: str) -> Any:
    east, north, up = (float(value) for value in _enu(run, Position(fix.latitude_deg, fix.longitude_deg)))
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = fix.covariance
    covariance[range(3, 6), range(3, 6)] = UNKNOWN_ORIENTATION_VARIANCE
    kinds = types.types
    pose = kinds["geometry_msgs/msg/Pose"](
        position=kinds["geometry_msgs/msg/Point"](x=east, y=north, z=up),
        orientation=kinds["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    return kinds[POSE_TYPE](
        header=_header(types, stamp, map_frame),
        pose=kinds["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=covariance.ravel()),
    )


def _header(types: Any, stamp: int, frame_id: str) -> Any:
    time = types.types["builtin_interfaces/msg/Time"](sec=stamp // NS, nanosec=stamp % NS)
    return types.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def write_tum(run: Run, truth: Path, estimate: Path) -> None:
    """Write true positions and fixes as TUM trajectories: ``seconds x y z qx qy qz qw``, orientation the identity.

    The estimate has the fixes alone; evo joins both by their stamps.
    """
    truth_rows = [(item.stamp_ns, item.truth) for item in run.answered if item.truth]
    fix_rows = [
        (item.stamp_ns, Position(item.answer.latitude_deg, item.answer.longitude_deg))
        for item in run.answered
        if isinstance(item.answer, Fix)
    ]
    for path, rows in ((truth, truth_rows), (estimate, fix_rows)):
        lines = [_tum_line(stamp, _enu(run, position)) for stamp, position in rows]
        path.write_text("".join(lines), encoding="ascii")


def _tum_line(stamp: int, enu: np.ndarray) -> str:
    # whole seconds and nanoseconds apart: a float holds today's stamps to a quarter of a microsecond only
    east, north, up = enu
    return f"{stamp // NS}.{stamp % NS:09d} {east:.4f} {north:.4f} {up:.4f} 0 0 0 1\n"


def _enu(run: Run, position: Position) -> np.ndarray:
    """East, north and up; everything is drawn in the plane of the datum, as most fixes know no altitude."""
    enu = run.frame.to_enu(position.latitude_deg, position.longitude_deg)
    return np.array([enu[0], enu[1], 0.0])


def write_geojson(run: Run, path: Path) -> None:
    """Write fixes as points, errors as lines from fix to truth, and the true track (RFC 7946: longitude first)."""
    features = list(_features(run))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=1), encoding="utf-8")


def _features(run: Run) -> Iterator[dict[str, Any]]:
    track = [_lon_lat(item.truth) for item in run.answered if item.truth]
    if len(track) > 1:
        yield _feature("LineString", track, {"kind": "truth"})
    for item in run.answered:
        properties = {"image": item.name, "stamp_ns": item.stamp_ns}
        if not isinstance(item.answer, Fix):
            if item.truth:
                yield _feature(
                    "Point", _lon_lat(item.truth), properties | {"kind": "no_fix", "reason": item.answer.reason}
                )
            continue
        place = _lon_lat(item.answer)
        properties |= {
            "kind": "fix",
            "confidence": None if math.isnan(item.answer.confidence) else round(item.answer.confidence, 4),
            "error_m": None if item.truth is None else round(_error_m(run, item), 3),
            "candidate": item.answer.candidates[0].place.name if item.answer.candidates else None,
        }
        yield _feature("Point", place, properties)
        if item.truth:
            yield _feature("LineString", [place, _lon_lat(item.truth)], {"kind": "error", "image": item.name})


def _feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def _lon_lat(position: Position | Fix) -> list[float]:
    return [round(position.longitude_deg, 9), round(position.latitude_deg, 9)]


def write_gpx(run: Run, path: Path) -> None:
    """Write truth and fixes as two tracks of GPX 1.1, with times where the stamps are dates."""
    gpx = Xml.Element("gpx", version="1.1", creator="geowarp", xmlns="http://www.topografix.com/GPX/1/1")
    truth = [(item.stamp_ns, item.truth) for item in run.answered if item.truth]
    found = [(item.stamp_ns, item.answer) for item in run.answered if isinstance(item.answer, Fix)]
    for name, rows in (("truth", truth), ("fixes", found)):
        track = Xml.SubElement(gpx, "trk")
        Xml.SubElement(track, "name").text = name
        segment = Xml.SubElement(track, "trkseg")
        for stamp, position in rows:
            point = Xml.SubElement(
                segment, "trkpt", lat=f"{position.latitude_deg:.9f}", lon=f"{position.longitude_deg:.9f}"
            )
            Xml.SubElement(point, "time").text = datetime.fromtimestamp(stamp / NS, timezone.utc).strftime(
                "%Y-%m-%dT%H:%M:%S.%fZ"
            )
    Xml.indent(gpx)
    Xml.ElementTree(gpx).write(path, encoding="utf-8", xml_declaration=True)


COLUMNS = (
    *("image", "stamp_ns", "status", "reason", "confidence", "error_m", "error_east_m", "error_north_m"),
    *("claimed_radius_m", "nees", "latitude", "longitude", "altitude", "true_latitude", "true_longitude"),
    *("true_altitude", "variance_east", "covariance_east_north", "variance_north"),
    *("candidate", "distance", "score", "latency_ms"),
)


def write_csv(run: Run, path: Path) -> None:
    """Write one row per image that came; empty cells where there is no value.

    Position, error and covariance are those of the answer as it would be without any least confidence; status
    says whether it was published.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_row(run, item) for item in run.answered)
        writer.writerows(
            {"image": item.name, "status": "unreadable", "reason": item.reason} for item in run.unreadable
        )


def _row(run: Run, item: Answered) -> dict[str, Any]:
    answer, position = item.answer, item.position
    row: dict[str, Any] = {
        "image": item.name,
        "stamp_ns": item.stamp_ns,
        "status": "fix" if isinstance(answer, Fix) else "dropped" if item.name in run.dropped else "no_fix",
        "reason": "" if isinstance(answer, Fix) else answer.reason,
        "confidence": _cell(answer.confidence),
        "latency_ms": _cell(sum(answer.timing_ms.values())) if answer.timing_ms else "",
    }
    if answer.candidates:
        best = answer.candidates[0]
        row |= {"candidate": best.place.name, "distance": _cell(best.distance), "score": _cell(best.score)}
    if item.truth:
        row |= {
            "true_latitude": _degrees(item.truth.latitude_deg),
            "true_longitude": _degrees(item.truth.longitude_deg),
            "true_altitude": _cell(item.truth.altitude_m),
        }
    if position:
        covariance = position.covariance[:2, :2]
        row |= {
            "latitude": _degrees(position.latitude_deg),
            "longitude": _degrees(position.longitude_deg),
            "altitude": _cell(position.altitude_m),
            "variance_east": _cell(covariance[0, 0]),
            "covariance_east_north": _cell(covariance[0, 1]),
            "variance_north": _cell(covariance[1, 1]),
            "claimed_radius_m": _cell(fixes.claimed_radius_m(covariance[None])[0]),
        }
        if item.truth:
            error = error_en_m(run.frame, position, item.truth)
            row |= {
                "error_m": _cell(math.hypot(*error)),
                "error_east_m": _cell(error[0]),
                "error_north_m": _cell(error[1]),
                "nees": _cell(fixes.nees(error[None], covariance[None])[0]),
            }
    return row


def _error_m(run: Run, item: Answered) -> float:
    if not isinstance(item.answer, Fix) or item.truth is None:
        return math.nan
    return float(np.hypot(*error_en_m(run.frame, item.answer, item.truth)))


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.6g}"


def _degrees(value: float) -> str:
    return f"{value:.9f}"
