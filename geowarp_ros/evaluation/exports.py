"""The fixes of a run in the formats of other programs: a ROS 2 bag, GeoJSON, GPX and TUM trajectories.

Local coordinates are metres east, north and up in the run's frame, at the centre of the gallery as in ``~/pose``.
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
from rosbags.typesys.stores import ros2_humble as ros2

from geowarp_ros.attitude import Quaternion, enu_from_body, quaternion_of, turned
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.bags import FIX_TOPIC, FIX_TYPE, POSE_TOPIC
from geowarp_ros.evaluation.drive import NS, Position
from geowarp_ros.evaluation.judging import error_en_m, heading_error_deg
from geowarp_ros.evaluation.run import Answered, Run
from geowarp_ros.evaluation.scene import quad_text
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Fix, FloatArray, NoFix, Place

POSE_TYPE = "geometry_msgs/msg/PoseWithCovarianceStamped"

UNKNOWN_ORIENTATION_VARIANCE = math.pi**2
"""Variance of each angle (rad²) of an unknown orientation: every direction is within one standard deviation."""

MADE_BY = "geowarp_evaluation"
"""Key in a bag's metadata that marks it as an evaluation's."""

BAG_VERSION = 8
"""Newest version of the bag format that every ROS 2 since Humble plays."""

_TYPES = get_typestore(Stores.ROS2_HUMBLE)


def write_bag(run: Run, folder: Path, map_frame: str = "map") -> None:
    """Write every answer as NavSatFix (NO_FIX where there is none) and every fix as PoseWithCovarianceStamped.

    The topics, fields and stamps are the node's own; messages are recorded at their header stamps, so that the bag
    plays beside the drive's.

    Args:
        run: The run.
        folder: Folder of the bag; an earlier evaluation's bag there is replaced.
        map_frame: frame_id of the poses.

    Raises:
        SourceError: The folder exists and is no bag of an evaluation.
    """
    if folder.exists():
        _remove_bag(folder)
    with Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            kind: writer.add_connection(topic, kind, typestore=_TYPES)
            for topic, kind in ((FIX_TOPIC, FIX_TYPE), (POSE_TOPIC, POSE_TYPE))
        }
        writer.set_custom_data(MADE_BY, run.title)
        for item in run.answered:
            if item.name in run.dropped:
                continue
            messages = [_navsatfix(item)]
            if item.answer.fix:
                messages.append(_pose(run, item.answer.fix, item.stamp_ns, map_frame))
            for message in messages:
                kind = message.__msgtype__
                writer.write(connections[kind], item.stamp_ns, _TYPES.serialize_cdr(message, kind))


def _remove_bag(folder: Path) -> None:
    """Remove a bag that :func:`write_bag` wrote; never a recording of the user."""
    metadata = folder / "metadata.yaml"
    bag = yaml.safe_load(metadata.read_text()) if metadata.is_file() else None
    about = bag.get("rosbag2_bagfile_information", {}) if isinstance(bag, dict) else {}
    if MADE_BY not in (about.get("custom_data") or {}):
        raise SourceError(f"{folder}: exists and was not written by an evaluation; move it away first")
    shutil.rmtree(folder)


def _navsatfix(item: Answered) -> ros2.sensor_msgs__msg__NavSatFix:
    fix, kind = item.answer.fix, ros2.sensor_msgs__msg__NavSatFix
    known = fix or Fix(math.nan, math.nan, math.nan, np.zeros((3, 3)), math.nan)
    return kind(
        header=_header(item.stamp_ns, item.answer.header.frame_id),
        status=ros2.sensor_msgs__msg__NavSatStatus(status=0 if fix else -1, service=0),
        latitude=known.latitude_deg,
        longitude=known.longitude_deg,
        altitude=known.altitude_m,
        position_covariance=np.array(known.covariance, float).ravel(),
        position_covariance_type=kind.COVARIANCE_TYPE_APPROXIMATED if fix else kind.COVARIANCE_TYPE_UNKNOWN,
    )


def _pose(run: Run, fix: Fix, stamp_ns: int, map_frame: str) -> ros2.geometry_msgs__msg__PoseWithCovarianceStamped:
    covariance = np.diag([0.0] * 3 + [UNKNOWN_ORIENTATION_VARIANCE] * 3)
    covariance[:3, :3] = fix.covariance
    if fix.pose_covariance is not None:
        covariance = turned(fix.pose_covariance, _axes(run, fix))
    pose = ros2.geometry_msgs__msg__Pose(
        position=ros2.geometry_msgs__msg__Point(*_enu(run, fix)),
        orientation=ros2.geometry_msgs__msg__Quaternion(*_orientation(run, fix)),
    )
    with_covariance = ros2.geometry_msgs__msg__PoseWithCovariance(pose, covariance.ravel())
    return ros2.geometry_msgs__msg__PoseWithCovarianceStamped(_header(stamp_ns, map_frame), with_covariance)


def _header(stamp_ns: int, frame_id: str) -> ros2.std_msgs__msg__Header:
    return ros2.std_msgs__msg__Header(ros2.builtin_interfaces__msg__Time(stamp_ns // NS, stamp_ns % NS), frame_id)


def _tracks(run: Run) -> dict[str, list[tuple[int, Position | Fix]]]:
    """Return the true positions and the fixes, each with its stamp."""
    return {
        "truth": [(item.stamp_ns, item.truth) for item in run.answered if item.truth],
        "fixes": [(item.stamp_ns, item.answer.fix) for item in run.answered if item.answer.fix],
    }


def _enu(run: Run, position: Position | Fix) -> tuple[float, float, float]:
    """Return east, north and 0 (m): positions lie in the plane of the datum, as most fixes have no altitude."""
    east, north, _ = run.frame.to_enu(position.latitude_deg, position.longitude_deg).tolist()
    return east, north, 0.0


def _axes(run: Run, position: Position | Fix) -> FloatArray:
    """Return the rotation (3, 3) from the axes at a position to the run's frame."""
    return run.frame.rotation_from(LocalFrame(position.latitude_deg, position.longitude_deg))


def _orientation(run: Run, position: Position | Fix) -> Quaternion:
    """Return the quaternion in the run's frame: level where only the heading is known, else the identity."""
    if isinstance(position, Fix) and position.orientation is not None:
        rotation = enu_from_body(position.orientation)
    elif math.isfinite(position.heading_deg):
        half = math.radians(90.0 - position.heading_deg) / 2
        rotation = enu_from_body((0.0, 0.0, math.sin(half), math.cos(half)))
    else:
        return 0.0, 0.0, 0.0, 1.0
    return quaternion_of(_axes(run, position) @ rotation)


def write_tum(run: Run, truth: Path, estimate: Path) -> None:
    """Write true positions and fixes as TUM trajectories: ``seconds x y z qx qy qz qw``, of the body frame.

    An unknown orientation is the identity; the truth's, of which only the heading is known, is level. The estimate
    holds only the fixes; evo joins both by their stamps.
    """
    for path, rows in zip((truth, estimate), _tracks(run).values(), strict=True):
        lines = []
        for stamp_ns, position in rows:
            east, north, up = _enu(run, position)
            # whole seconds and nanoseconds apart: a float holds today's stamps to a quarter of a microsecond only
            seconds = f"{stamp_ns // NS}.{stamp_ns % NS:09d}"
            turn = " ".join(f"{value:.9g}" for value in _orientation(run, position))
            lines.append(f"{seconds} {east:.4f} {north:.4f} {up:.4f} {turn}\n")
        path.write_text("".join(lines), encoding="ascii")


def write_geojson(run: Run, path: Path) -> None:
    """Write fixes as points, errors as lines from fix to truth, and the true track (RFC 7946: longitude first)."""
    features = list(_features(run))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=1), encoding="utf-8")


def _features(run: Run) -> Iterator[dict[str, Any]]:
    track = [lon_lat(truth) for _, truth in _tracks(run)["truth"]]
    if len(track) > 1:
        yield feature("LineString", track, kind="truth")
    for item in run.answered:
        truth, result, image = item.truth, item.answer.result, {"image": item.name, "stamp_ns": item.stamp_ns}
        if isinstance(result, Fix):
            yield feature(
                "Point",
                lon_lat(result),
                **image,
                kind="fix",
                confidence=None if math.isnan(result.confidence) else round(result.confidence, 4),
                error_m=round(math.hypot(*error_en_m(run.frame, result, truth)), 3) if truth else None,
                candidate=item.best.place.name if item.best else None,
                method=item.method,
                heading_deg=rounded(result.heading_deg),
                heading_std_deg=rounded(result.heading_std_deg),
                heading_error_deg=rounded(heading_error_deg(result, truth)) if truth else None,
            )
            if truth:
                yield feature("LineString", [lon_lat(result), lon_lat(truth)], kind="error", image=item.name)
        elif truth:
            yield feature("Point", lon_lat(truth), **image, kind="no_fix", reason=result.reason)


def rounded(value: float) -> float | None:
    """Return a number with three digits; None where it is unknown."""
    return round(value, 3) if math.isfinite(value) else None


def feature(shape: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    """Return a feature of GeoJSON."""
    geometry = {"type": shape, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def lon_lat(position: Position | Fix | Place) -> list[float]:
    """Return a position of GeoJSON: longitude first."""
    return [round(position.longitude_deg, 9), round(position.latitude_deg, 9)]


def write_gpx(run: Run, path: Path) -> None:
    """Write truth and fixes as two tracks of GPX 1.1, with times where the stamps are dates."""
    gpx = Xml.Element("gpx", version="1.1", creator="geowarp", xmlns="http://www.topografix.com/GPX/1/1")
    for name, rows in _tracks(run).items():
        track = Xml.SubElement(gpx, "trk")
        Xml.SubElement(track, "name").text = name
        segment = Xml.SubElement(track, "trkseg")
        for stamp_ns, position in rows:
            latitude, longitude = f"{position.latitude_deg:.9f}", f"{position.longitude_deg:.9f}"
            point = Xml.SubElement(segment, "trkpt", lat=latitude, lon=longitude)
            time = datetime.fromtimestamp(stamp_ns / NS, timezone.utc)
            Xml.SubElement(point, "time").text = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    Xml.indent(gpx)
    Xml.ElementTree(gpx).write(path, encoding="utf-8", xml_declaration=True)


COLUMNS = (
    *("image", "stamp_ns", "status", "reason", "confidence", "error_m", "error_east_m", "error_north_m"),
    *("claimed_radius_m", "nees", "latitude", "longitude", "altitude", "true_latitude", "true_longitude"),
    *("true_altitude", "variance_east", "covariance_east_north", "variance_north"),
    *("candidate", "distance", "score", "latency_ms"),
    *("method", "heading", "heading_std", "true_heading", "heading_error_deg"),
    *("query_quad", "candidate_quad"),
)


def write_csv(run: Run, path: Path) -> None:
    """Write one row per image; cells without a value are empty.

    Position, error and covariance are the fix's or, of a NoFix, those with a minimum confidence of 0; status says
    whether the answer was published.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows_of(run))
        writer.writerows(
            {"image": item.name, "status": "unreadable", "reason": item.reason} for item in run.unreadable
        )


def rows_of(run: Run) -> list[dict[str, str]]:
    """Return the row of each answer; empty cells may be absent."""
    return [_row(run, item) for item in run.answered]


def _row(run: Run, item: Answered) -> dict[str, str]:
    answer, best, truth, position = item.answer, item.best, item.truth, item.position
    row: dict[str, Any] = {
        "image": item.name,
        "stamp_ns": item.stamp_ns,
        "status": "fix" if answer.fix else "dropped" if item.name in run.dropped else "no_fix",
        "reason": answer.result.reason if isinstance(answer.result, NoFix) else "",
        "confidence": answer.confidence,
        "latency_ms": answer.header.total_ms if answer.header.timing_ms else None,
    }
    if best:
        row |= {"candidate": best.place.name, "distance": best.distance, "score": best.score}
        row |= {"query_quad": quad_text(best.quad_q), "candidate_quad": quad_text(best.quad_p)}
    for prefix, where in (("true_", truth), ("", position)):
        if where:
            row |= {
                f"{prefix}latitude": f"{where.latitude_deg:.9f}",
                f"{prefix}longitude": f"{where.longitude_deg:.9f}",
                f"{prefix}altitude": where.altitude_m,
                f"{prefix}heading": where.heading_deg,
            }
    if position:
        covariance = position.covariance[None, :2, :2]
        row |= {
            "variance_east": covariance[0, 0, 0],
            "covariance_east_north": covariance[0, 0, 1],
            "variance_north": covariance[0, 1, 1],
            "claimed_radius_m": fixes.claimed_radius_m(covariance)[0],
            "method": item.method,
            "heading_std": position.heading_std_deg,
        }
        if truth:
            error = error_en_m(run.frame, position, truth)
            row |= {"error_m": math.hypot(*error), "error_east_m": error[0], "error_north_m": error[1]}
            row["heading_error_deg"] = heading_error_deg(position, truth)
            row["nees"] = fixes.nees(error[None], covariance)[0]
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: str | int | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)
