"""A drive along the test streets as a ROS 2 bag (MCAP) of images, camera info and GNSS fixes; needs no ROS."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.passes import LANE_M
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.lab.world.town import Street
from geowarp_ros.lab.world.weather import Conditions, random_conditions
from geowarp_ros.lab.world.world import World
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Image

START_NS = 1_790_000_000 * 10**9
"""Start time of the drive (ns since the epoch); constant for reproducible stamps."""
PAUSE_S = 20.0
"""Unrecorded transfer between quarters."""
CORNER_M = 10.0
"""Length of the path smoothed at a corner."""
IMAGE_TOPIC, INFO_TOPIC, FIX_TOPIC = "/camera/image_raw", "/camera/camera_info", "/gps/fix"
KINDS = {
    IMAGE_TOPIC: "sensor_msgs/msg/Image",
    INFO_TOPIC: "sensor_msgs/msg/CameraInfo",
    FIX_TOPIC: "sensor_msgs/msg/NavSatFix",
}
"""Message type by topic."""
CAMERA_FRAME, FIX_FRAME = "camera_optical_frame", "gps"
FIX_VARIANCE_M2 = (0.01, 0.01, 0.04)
"""Variance (east, north, up) reported with the fixes, which are the true positions."""
_STEP_M = 0.1


@dataclass(frozen=True)
class Route:
    """Camera path through one quarter.

    Attributes:
        points: (N, 2) east and north (m), at steps of 0.1 m.
        headings_deg: (N,) compass heading of the path, unwrapped.
    """

    points: Vector
    headings_deg: Vector

    @property
    def length_m(self) -> float:
        """Path length (m)."""
        return (len(self.points) - 1) * _STEP_M

    def at(self, distance_m: float) -> tuple[float, float, float]:
        """Return east (m), north (m) and heading (deg) at a path length."""
        place = distance_m / _STEP_M
        index = np.arange(len(self.points))
        east, north = (float(np.interp(place, index, self.points[:, i])) for i in range(2))
        return east, north, float(np.interp(place, index, self.headings_deg))


def plan_route(streets: tuple[Street, ...], lateral_m: float) -> Route:
    """Return the path along consecutive streets at lateral offset ``lateral_m``, with rounded corners."""
    corners = [streets[0].point(streets[0].margin_m, lateral_m)]
    corners += [before.meet(after, lateral_m, lateral_m) for before, after in pairwise(streets)]
    last = streets[-1]
    corners.append(last.point(last.length_m - last.margin_m, lateral_m))
    window = round(CORNER_M / _STEP_M)
    dense = _every_step(np.array(corners))
    # extrapolate both ends by half a window so that smoothing preserves them
    head = dense[0] + (dense[0] - dense[1]) * np.arange(window // 2, 0, -1)[:, None]
    tail = dense[-1] + (dense[-1] - dense[-2]) * np.arange(1, window - window // 2)[:, None]
    long = np.concatenate([head, dense, tail])
    kernel = np.full(window, 1 / window)
    smooth = _every_step(np.stack([np.convolve(long[:, i], kernel, "valid") for i in range(2)], axis=1))
    slope = np.gradient(smooth, axis=0)
    return Route(smooth, np.degrees(np.unwrap(np.arctan2(slope[:, 0], slope[:, 1]))))


def record_drive(world: World, bag: Path, *, gallery: bool, progress: Progress = silent) -> None:
    """Record a bag with images, camera info and fixes.

    Args:
        world: World whose test streets are driven.
        bag: Bag folder (metadata.yaml and one .mcap file); an existing one is replaced.
        gallery: Gallery drive (gallery lane, overcast); otherwise the query drive (opposite lane, clear).
        progress: Progress display.
    """
    if bag.exists():
        shutil.rmtree(bag)
    moments = list(_moments(world, gallery))
    types = get_typestore(Stores.ROS2_JAZZY)
    frame = LocalFrame(world.config.latitude, world.config.longitude, world.config.altitude_m)
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        channels = {topic: writer.add_connection(topic, kind, typestore=types) for topic, kind in KINDS.items()}

        def write(topic: str, moment: _Moment, frame_id: str, fields: dict[str, Any]) -> None:
            time = types.types["builtin_interfaces/msg/Time"](*divmod(moment.stamp_ns, 10**9))
            header = types.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)
            message = types.types[KINDS[topic]](header=header, **fields)
            writer.write(channels[topic], moment.stamp_ns, types.serialize_cdr(message, KINDS[topic]))

        for moment in progress(moments, len(moments), f"{bag.name.replace('_', ' ')}, moments"):
            if moment.conditions is None:
                write(FIX_TOPIC, moment, FIX_FRAME, _fix(moment.camera, frame, types.types))
            else:
                image = world.render(moment.camera, moment.conditions)
                write(IMAGE_TOPIC, moment, CAMERA_FRAME, _image(image))
                write(INFO_TOPIC, moment, CAMERA_FRAME, _camera_info(moment.camera, types.types))


@dataclass(frozen=True)
class _Moment:
    """An image, or a fix where ``conditions`` is None."""

    stamp_ns: int
    camera: Camera
    conditions: Conditions | None


def _moments(world: World, gallery: bool) -> Iterator[_Moment]:
    """Yield images and fixes ordered by time stamp."""
    config = world.config
    rng = generator(config.seed, "gallery-drive" if gallery else "drive")
    weather = random_conditions(rng, "overcast" if gallery else "clear", config.occluders)
    lateral, height = (LANE_M, 1.9) if gallery else (-LANE_M, 1.5)
    begin = START_NS - (86_400 * 10**9 if gallery else 0)
    for quarter in world.quarters:
        if quarter.part != "test":
            continue
        route = plan_route(quarter.streets[: quarter.photographed], lateral)
        duration = route.length_m / config.drive_speed_m_s
        images = [
            (number / config.image_rate_hz, replace(weather, frame=number))
            for number in range(int(duration * config.image_rate_hz) + 1)
        ]
        fixes = [(number / config.fix_rate_hz, None) for number in range(int(duration * config.fix_rate_hz) + 2)]
        for since_s, conditions in heapq.merge(fixes, images, key=lambda each: round(each[0] * 1e9)):
            east, north, heading = route.at(since_s * config.drive_speed_m_s)
            aim = (heading + config.drive_view_deg) % 360
            camera = Camera(east, north, height, aim, 2.0, 0.0, *world.lens)
            yield _Moment(begin + round(since_s * 1e9), camera, conditions)
        begin += round((duration + PAUSE_S) * 1e9)


def _image(pixels: Image) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    size = {"height": height, "width": width, "step": 3 * width}
    return {**size, "encoding": "rgb8", "is_bigendian": 0, "data": pixels.reshape(-1)}


def _camera_info(camera: Camera, types: Any) -> dict[str, Any]:
    k = camera.matrix
    return {
        "height": camera.height_px,
        "width": camera.width_px,
        "distortion_model": "plumb_bob",
        "d": np.zeros(5),
        "k": k.reshape(-1),
        "r": np.eye(3).reshape(-1),
        "p": np.concatenate([k, np.zeros((3, 1))], axis=1).reshape(-1),
        "binning_x": 0,
        "binning_y": 0,
        "roi": types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    }


def _fix(camera: Camera, frame: LocalFrame, types: Any) -> dict[str, Any]:
    latitude, longitude, altitude = frame.to_geodetic(camera.position)
    return {
        "status": types["sensor_msgs/msg/NavSatStatus"](status=0, service=1),
        "latitude": float(latitude),
        "longitude": float(longitude),
        "altitude": float(altitude),
        "position_covariance": np.diag(FIX_VARIANCE_M2).reshape(-1),
        "position_covariance_type": 2,
    }


def _every_step(corners: Vector) -> Vector:
    """Resample a polyline (N, 2) at equal arc-length steps."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    places = np.arange(0.0, lengths[-1], _STEP_M)
    return np.stack([np.interp(places, lengths, corners[:, i]) for i in range(2)], axis=1)
