"""Geotagged images from a video and the GPX track that was recorded beside it, or the track in a GoPro's video.

On a GPX track the first picture is taken at the video's creation_time, which should be UTC. Some cameras write
their local time or the end of the recording: ``track_offset_s`` corrects that, and a video that does not lie on
its track is refused with the offset that would fit.
"""

from __future__ import annotations

import codecs
import math
import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.images import check_size
from geowarp_ros.readers.exif_positions import RANGE_ERROR_M
from geowarp_ros.readers.fixes import NO_FIX, FixTrack
from geowarp_ros.readers.gpmf import gps_positions
from geowarp_ros.readers.positions import MAX_ERROR_M, NULL_ISLAND, null_island
from geowarp_ros.readers.source import Skipped, Source, SourceImage
from geowarp_ros.types import Image, Place

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".avi", ".webm", ".mts", ".m2ts", ".ts", ".3gp")
EVERY = "2m"
"""Distance between the pictures that are taken of a video."""

_JUMP_S = 2.0  # a later picture than this is sought, an earlier one reached by decoding those between


def read_video(
    path: Path,
    track: Path | None,
    every: str = EVERY,
    track_offset_s: float = 0.0,
    max_gap_s: float = 1.0,
    accept_null_island: bool = False,
) -> Source:
    """Take pictures of a video at the positions of a track, as :class:`FixTrack` has them between its points.

    Args:
        path: Video.
        track: GPX file whose points have times; None: the positions that a GoPro recorded in the video.
        every: Distance or time between two pictures, such as ``2m`` or ``0.5s``.
        track_offset_s: Time to add to the video's, s.
        max_gap_s: Maximum time between a picture and the nearest point of the track, s.
        accept_null_island: Keep points at exactly 0°, 0°.

    Raises:
        SourceError: PyAV or gpxpy is not installed, a file cannot be read, or no picture lies on the track.
    """
    step, unit = _parse_every(every)
    video = _read_index(path)
    times_s = video.times_s + (video.start_s or 0.0)
    if track is None:
        stamps_s, geodetic, flawed = video.fixes(accept_null_island)
        lack = f"{path}: has no positions of its own: give the GPX track recorded beside it as track (--track)"
    else:
        times_s = times_s + track_offset_s
        stamps_s, geodetic, flawed = _read_gpx(track, accept_null_island)
        lack = f"{track}: has no point with a time and a position, by which to place a video's pictures"
    if all(flawed):
        raise SourceError(lack + "".join(f"; {count} {flaw}" for flaw, count in Counter(flawed).items()))
    if track and video.start_s is None:
        raise SourceError(
            f"{path}: does not tell when its first picture was taken: it has no creation_time; give it one:"
            f" ffmpeg -i {shlex.quote(str(path))} -c copy -metadata creation_time=2026-01-31T12:00:00Z dated.mp4"
        )
    points, flaws = FixTrack.of(_ns(stamps_s), geodetic, flawed)
    gap_s, lost, east_north_m, positions = points.at(_ns(times_s), max_gap_s)
    if not (gap_s <= max_gap_s).any():
        raise SourceError(_no_overlap(path, track or path, times_s, points.times_ns / 1e9, max_gap_s))
    frames = VideoFrames(path)
    images: list[SourceImage] = []
    last: int | None = None
    for row in np.flatnonzero((gap_s <= max_gap_s) & ~lost).tolist():
        if last is not None:
            metres = math.dist(east_north_m[row], east_north_m[last])
            moved = metres if unit == "m" else times_s[row] - times_s[last]
            if moved < step - 1e-3:  # what is rounded in a track
                continue
        last = row
        name = f"{path.stem}/{round((times_s[row] - times_s[0]) * 1000):09d}"
        stamp_ns = 0 if video.start_s is None else round(times_s[row] * 1000) * 1_000_000
        latitude, longitude, altitude = positions[row].tolist()
        place = Place(name, latitude, longitude, altitude_m=altitude, stamp_ns=stamp_ns)
        images.append(SourceImage(place, partial(frames.read, int(video.pts[row]), name)))
    counts = {
        f"with {{}} pictures farther than {max_gap_s:g} s from a point of the track": int(
            (gap_s > max_gap_s).sum()
        ),
        "with {} pictures beside points of the track without a position": int((lost & (gap_s <= max_gap_s)).sum()),
    } | {f"with {{}} points of the track {flaw}": count for flaw, count in Counter(flaws.tolist()).items() if flaw}
    skipped = tuple(Skipped(path.name, reason.format(count)) for reason, count in counts.items() if count)
    when = f"{_utc(times_s[0])} to {_utc(times_s[-1])} UTC"
    return Source(
        tuple(images), skipped, f"video {path} ({when}) on {track or 'its own track'}, a picture every {every}"
    )


class VideoFrames:
    """The pictures of one video, in any order and from any thread; quickest in their own order.

    Args:
        path: The video, which is opened at the first picture.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._container: Any = None
        self._coming: Iterator[Any] = iter(())
        self._last = -1

    def read(self, pts: int, name: str) -> Image:
        """Return the picture of a presentation time (in the stream's units), upright.

        Raises:
            ImageError: It cannot be decoded.
        """
        import av

        with self._lock:
            try:
                frame = self._decode(pts)
            except (av.error.FFmpegError, StopIteration, OSError, ValueError) as error:
                self._container = None
                raise ImageError(f"{name}: the video cannot be decoded there: {error}") from None
            check_size(frame.width, frame.height, name)
            image = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))

    def _decode(self, pts: int) -> Any:
        import av

        if self._container is None:
            self._container, self._last = av.open(str(self._path)), -1
            self._coming = self._container.decode(video=0)
        stream = self._container.streams.video[0]
        if not self._last < pts <= self._last + _JUMP_S / stream.time_base:
            self._container.seek(pts, stream=stream)  # to the keyframe before
            self._coming = self._container.decode(video=0)
        frame = next(frame for frame in self._coming if frame.pts is not None and frame.pts >= pts)
        self._last = frame.pts
        return frame


def _parse_every(every: str) -> tuple[float, str]:
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?(m|s)", every.strip())
    if match is None or not float(match[1]) > 0:
        raise SourceError(f"every (--every) = {every!r}: expected a distance or a time, such as 2m or 0.5s")
    return float(match[1]), match[2]


_Points: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64], list[str]]
"""Times (N,), s since 1970; latitude, longitude, altitude (N, 3); why each is no position, or empty."""


@dataclass(frozen=True, slots=True)
class _Index:
    """What a video has.

    Attributes:
        start_s: When it began, s since 1970; None where it does not tell.
        pts: (N,) presentation times of its pictures, ascending, in units of the stream.
        times_s: (N,) the same in s, from 0.
        payloads: Begin and duration (s), and bytes of a GoPro's measurements.
    """

    start_s: float | None
    pts: NDArray[np.int64]
    times_s: NDArray[np.float64]
    payloads: tuple[tuple[float, float, bytes], ...]

    def fixes(self, accept_null_island: bool) -> _Points:
        """Return the points of a GoPro, at times as of the pictures."""
        stamps, samples = [np.empty(0)], [np.empty((0, 3))]
        for begin, duration, payload in self.payloads:
            samples.append(gps_positions(payload))
            count = len(samples[-1])
            stamps.append(begin + duration * np.arange(count) / max(count, 1))
        times, geodetic = np.concatenate(stamps), np.concatenate(samples)
        flaws = [_flaw(latitude, longitude, accept_null_island) for latitude, longitude, _ in geodetic.tolist()]
        return times + (self.start_s or 0.0), geodetic, flaws


def _read_index(path: Path) -> _Index:
    try:
        import av
    except ImportError:
        raise SourceError(f"{path}: a video needs PyAV: pip install 'geowarp_ros[video]'") from None
    stamps: list[int] = []
    payloads: list[tuple[float, float, bytes]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise SourceError(f"{path}: has no pictures, expected a video")
            stream = container.streams.video[0]
            created = container.metadata.get("creation_time", stream.metadata.get("creation_time", ""))
            for packet in container.demux(stream, *container.streams.data):
                if packet.pts is None:
                    continue  # the end of a stream
                if packet.stream.index == stream.index:
                    stamps.append(packet.pts)
                elif (data := bytes(packet)).startswith(b"DEVC"):
                    unit = float(packet.time_base)
                    payloads.append((packet.pts * unit, (packet.duration or 0) * unit, data))
            unit = float(stream.time_base or 0)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a video: {error}") from None
    if not stamps:
        raise SourceError(f"{path}: has no pictures, expected a video")
    pts = np.array(sorted(stamps), np.int64)
    start_s: float | None = None
    with suppress(ValueError):
        start = datetime.fromisoformat(created.replace("Z", "+00:00"))
        start_s = (start if start.tzinfo else start.replace(tzinfo=timezone.utc)).timestamp()
    first = float(pts[0]) * unit
    measured = tuple((begin - first, duration, data) for begin, duration, data in payloads)
    return _Index(start_s, pts, (pts - pts[0]).astype(np.float64) * unit, measured)


def _flaw(latitude: float, longitude: float, accept_null_island: bool) -> str:
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # false for NaN
        return NO_FIX
    return NULL_ISLAND if null_island(latitude, longitude) and not accept_null_island else ""


def _read_gpx(track: Path, accept_null_island: bool) -> _Points:
    """Return the points of a track that have a time."""
    try:
        import gpxpy
    except ImportError:
        raise SourceError(f"{track}: a track needs gpxpy: pip install 'geowarp_ros[video]'") from None
    try:
        data = track.read_bytes()
        declared = re.match(rb"(\xef\xbb\xbf)?<\?xml[^>]*encoding=[\"']([\w.-]+)", data)
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        known = "utf-16" if wide else declared[2].decode() if declared and not declared[1] else "utf-8-sig"
        read = gpxpy.parse(data.decode(known))
    except OSError as error:
        raise SourceError(f"{track}: cannot be read: {error.strerror}") from None
    except (gpxpy.gpx.GPXException, UnicodeError, LookupError) as error:
        raise SourceError(f"{track}: is no GPX: {error}") from None
    stamps, geodetic, flaws = [], [], []
    for point in (point for point, *_ in read.walk() if point.time is not None):
        time = point.time if point.time.tzinfo else point.time.replace(tzinfo=timezone.utc)
        stamps.append(time.timestamp())
        geodetic.append((point.latitude, point.longitude, np.nan if point.elevation is None else point.elevation))
        lost = point.type_of_gpx_fix == "none" or RANGE_ERROR_M * (point.horizontal_dilution or 0) > MAX_ERROR_M
        flaws.append(NO_FIX if lost else _flaw(point.latitude, point.longitude, accept_null_island))
    return np.array(stamps), np.array(geodetic).reshape(-1, 3), flaws


def _no_overlap(
    path: Path, track: Path, times_s: NDArray[np.float64], stamps_s: NDArray[np.float64], max_gap_s: float
) -> str:
    said = (
        f"{path}: none of its pictures, {_utc(times_s[0])} to {_utc(times_s[-1])} UTC, is within max_gap_s ="
        f" {max_gap_s:g} s of a point of {track}, {_utc(stamps_s[0])} to {_utc(stamps_s[-1])}"
    )
    shift = round((stamps_s[[0, -1]].mean() - times_s[[0, -1]].mean()) / 900) * 900  # time zones
    inside = stamps_s[0] <= times_s[0] + shift and times_s[-1] + shift <= stamps_s[-1] and abs(shift) <= 14 * 3600
    return said + (
        f"; an offset of {shift} s would fit: track_offset_s (--track-offset)" if shift and inside else ""
    )


def _ns(times_s: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.round(times_s * 1e9).astype(np.int64)


def _utc(stamp_s: float) -> str:
    return f"{datetime(1970, 1, 1) + timedelta(seconds=round(float(stamp_s))):%Y-%m-%d %H:%M:%S}"
