"""A drive along the test streets, recorded as a ROS 2 bag (MCAP): camera images and GNSS fixes, no ROS needed."""

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

START_NS = 1_790_000_000 * 10**9
"""When the drive begins; a fixed date, so that the same world has the same stamps."""
PAUSE_S = 20.0
"""From the last street of one quarter to the first of the next, unrecorded."""
CORNER_M = 10.0
"""Length over which a corner is rounded."""
IMAGE_TOPIC, INFO_TOPIC, FIX_TOPIC = "/camera/image_raw", "/camera/camera_info", "/gps/fix"
CAMERA_FRAME, FIX_FRAME = "camera_optical_frame", "gps"
FIX_VARIANCE_M2 = (0.01, 0.01, 0.04)
"""East, north, up of the recorded fixes, which are the true positions."""
_STEP_M = 0.1


@dataclass(frozen=True)
class Route:
    """The path of the camera through one quarter.

    Attributes:
        points: (N, 2) east, north, every tenth of a metre.
        headings_deg: (N,) compass heading of the path, not wrapped.
    """

    points: Vector
    headings_deg: Vector

    @property
    def length_m(self) -> float:
        """From one end to the other."""
        return (len(self.points) - 1) * _STEP_M

    def at(self, distance_m: float) -> tuple[float, float, float]:
        """Return east, north and heading after a distance."""
        place = distance_m / _STEP_M
        index = np.arange(len(self.points))
        east, north = (float(np.interp(place, index, self.points[:, i])) for i in range(2))
        return east, north, float(np.interp(place, index, self.headings_deg))


def plan_route(streets: tuple[Street, ...], lateral_m: float) -> Route:
    """Return the way along consecutive streets of a quarter in the lane at ``lateral_m``, corners rounded."""
    corners = [streets[0].point(streets[0].margin_m, lateral_m)]
    for before, after in pairwise(streets):
        lanes = np.stack([before.left, after.left])
        levels = np.array([before.left @ before.start, after.left @ after.start]) + lateral_m
        corners.append(np.asarray(np.linalg.solve(lanes, levels), dtype=float))
    last = streets[-1]
    corners.append(last.point(last.length_m - last.margin_m, lateral_m))
    window = round(CORNER_M / _STEP_M)
    dense = _every_step(np.array(corners))
    # the ends are carried on by half a window, so that the mean over the window keeps them where they are
    head = dense[0] + (dense[0] - dense[1]) * np.arange(window // 2, 0, -1)[:, None]
    tail = dense[-1] + (dense[-1] - dense[-2]) * np.arange(1, window - window // 2)[:, None]
    long = np.concatenate([head, dense, tail])
    kernel = np.full(window, 1 / window)
    smooth = _every_step(np.stack([np.convolve(long[:, i], kernel, "valid") for i in range(2)], axis=1))
    slope = np.gradient(smooth, axis=0)
    return Route(smooth, np.degrees(np.unwrap(np.arctan2(slope[:, 0], slope[:, 1]))))


def record_drive(world: World, bag: Path, *, gallery: bool, progress: Progress = silent) -> None:
    """Write the bag folder ``bag`` (replaced where it exists), with images, camera parameters and fixes.

    Args:
        world: Whose test streets are driven along.
        bag: Folder to make, with metadata.yaml and one .mcap file.
        gallery: In the gallery's lane and a plain weather; else on another day, in the other lane.
        progress: Shows how far it is.
    """
    if bag.exists():
        shutil.rmtree(bag)
    config = world.config
    frame = LocalFrame(config.latitude, config.longitude, config.altitude_m)
    moments = list(_moments(world, gallery))
    types = get_typestore(Stores.ROS2_JAZZY)
    messages = _Messages(types, frame)
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        channels = {
            topic: writer.add_connection(topic, name, typestore=types)
            for topic, name in (
                (IMAGE_TOPIC, "sensor_msgs/msg/Image"),
                (INFO_TOPIC, "sensor_msgs/msg/CameraInfo"),
                (FIX_TOPIC, "sensor_msgs/msg/NavSatFix"),
            )
        }

        def write(topic: str, stamp_ns: int, message: Any) -> None:
            writer.write(channels[topic], stamp_ns, types.serialize_cdr(message, message.__msgtype__))

        for moment in progress(moments, len(moments), bag.name.replace("_", " ")):
            if moment.conditions is None:
                write(FIX_TOPIC, moment.stamp_ns, messages.fix(moment))
                continue
            write(
                IMAGE_TOPIC,
                moment.stamp_ns,
                messages.image(moment, world.render(moment.camera, moment.conditions)),
            )
            write(INFO_TOPIC, moment.stamp_ns, messages.camera_info(moment))


@dataclass(frozen=True)
class _Moment:
    """One image (with conditions) or one fix (without)."""

    stamp_ns: int
    camera: Camera
    conditions: Conditions | None


def _moments(world: World, gallery: bool) -> Iterator[_Moment]:
    """Yield images and fixes in the order of their stamps."""
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

        def moment(
            since_s: float, conditions: Conditions | None, route: Route = route, begin: int = begin
        ) -> _Moment:
            east, north, heading = route.at(since_s * config.drive_speed_m_s)
            camera = world.camera_at(world.streets[0], 0.0, 0.0, height, pitch_deg=2.0)
            aim = (heading + config.drive_view_deg) % 360
            camera = replace(camera, east_m=east, north_m=north, heading_deg=aim)
            return _Moment(begin + round(since_s * 1e9), camera, conditions)

        images = (
            moment(i / config.image_rate_hz, replace(weather, frame=i))
            for i in range(int(duration * config.image_rate_hz) + 1)
        )
        fixes = (moment(i / config.fix_rate_hz, None) for i in range(int(duration * config.fix_rate_hz) + 2))
        yield from heapq.merge(fixes, images, key=lambda m: m.stamp_ns)
        begin += round((duration + PAUSE_S) * 1e9)


class _Messages:
    """Builds the bag's messages."""

    def __init__(self, types: Any, frame: LocalFrame) -> None:
        self._types, self._frame = types.types, frame

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        time = self._types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
        return self._types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)

    def image(self, moment: _Moment, pixels: Any) -> Any:
        height, width = pixels.shape[:2]
        return self._types["sensor_msgs/msg/Image"](
            header=self._header(moment.stamp_ns, CAMERA_FRAME),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=pixels.reshape(-1),
        )

    def camera_info(self, moment: _Moment) -> Any:
        k = moment.camera.matrix
        return self._types["sensor_msgs/msg/CameraInfo"](
            header=self._header(moment.stamp_ns, CAMERA_FRAME),
            height=moment.camera.height_px,
            width=moment.camera.width_px,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=np.concatenate([k, np.zeros((3, 1))], axis=1).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=self._types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
        )

    def fix(self, moment: _Moment) -> Any:
        latitude, longitude, altitude = self._frame.to_geodetic(moment.camera.position)
        return self._types["sensor_msgs/msg/NavSatFix"](
            header=self._header(moment.stamp_ns, FIX_FRAME),
            status=self._types["sensor_msgs/msg/NavSatStatus"](status=0, service=1),
            latitude=float(latitude),
            longitude=float(longitude),
            altitude=float(altitude),
            position_covariance=np.diag(FIX_VARIANCE_M2).reshape(-1),
            position_covariance_type=2,
        )


def _every_step(corners: Vector) -> Vector:
    """Resample a polyline (N, 2) at equal distances."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    places = np.arange(0.0, lengths[-1], _STEP_M)
    return np.stack([np.interp(places, lengths, corners[:, i]) for i in range(2)], axis=1)
