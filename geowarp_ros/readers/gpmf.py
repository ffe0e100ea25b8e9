"""The positions in a GoPro's video: GPMF, keys with lengths and values, some of which hold keys again.

As GoPro documents it (github.com/gopro/gpmf-parser, "GPMF Low Level Structure"): four letters, a type, the size of
an element, their number (16 bits), the elements, filled up to 32 bits; all big-endian. A payload is for a second.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.readers.exif_positions import RANGE_ERROR_M
from geowarp_ros.readers.positions import MAX_ERROR_M

_GPS9 = np.dtype([("values", ">i4", 7), ("dop", ">u2"), ("fix", ">u2")])
"""Latitude, longitude, altitude, two speeds, day, second; dilution of precision; kind of fix."""


def gps_positions(payload: bytes) -> NDArray[np.float64]:
    """Return latitude, longitude, altitude (N, 3) of a payload's samples, evenly in time; NaN without a fix.

    Cameras up to the HERO10 have GPS5 with one fix for the whole payload, later ones GPS9 with one each.
    """
    found = [np.empty((0, 3))]
    for stream in _streams(payload):
        scale = np.frombuffer(_whole(stream.get(b"SCAL", b""), 4), ">i4").astype(np.float64)
        scale[scale == 0] = np.nan
        if b"GPS5" in stream and len(scale) >= 3:
            samples = np.frombuffer(_whole(stream[b"GPS5"], 20), ">i4").reshape(-1, 5)[:, :3] / scale[:3]
            fix, dop = _first(stream, b"GPSF", ">u4"), _first(stream, b"GPSP", ">u2") / 100
            if fix < 2 or RANGE_ERROR_M * dop > MAX_ERROR_M:
                samples[:] = np.nan
            found.append(samples)
        elif b"GPS9" in stream and len(scale) >= 9:
            rows = np.frombuffer(_whole(stream[b"GPS9"], _GPS9.itemsize), _GPS9)
            samples = rows["values"][:, :3] / scale[:3]
            samples[(rows["fix"] < 2) | (RANGE_ERROR_M * rows["dop"] / scale[7] > MAX_ERROR_M)] = np.nan
            found.append(samples)
    return np.concatenate(found)


def _streams(payload: bytes) -> Iterator[dict[bytes, bytes]]:
    for device, inside in _entries(payload):
        for kind, values in _entries(inside) if device == b"DEVC" else ():
            if kind == b"STRM":
                yield dict(_entries(values))


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and their elements; what is cut off at the end is no entry."""
    while len(data) >= 8:
        length = data[5] * int.from_bytes(data[6:8], "big")
        if len(data) < 8 + length:
            return
        yield data[:4], data[8 : 8 + length]
        data = data[8 + (length + 3) // 4 * 4 :]


def _whole(data: bytes, size: int) -> bytes:
    return data[: len(data) // size * size]


def _first(stream: dict[bytes, bytes], key: bytes, kind: str) -> float:
    values = np.frombuffer(_whole(stream.get(key, b""), np.dtype(kind).itemsize), kind)
    return float(values[0]) if len(values) else 0.0
