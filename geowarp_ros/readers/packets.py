"""Pictures out of the packets of a video, as ROS records them: H.264 and H.265, decoded by PyAV.

The bytes are an Annex B stream (ITU-T H.264 and H.265, annex B): units behind a start code 00 00 01.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from geowarp_ros.errors import SourceError
from geowarp_ros.types import Image

VIDEO_TYPES = ("ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "foxglove_msgs/msg/CompressedVideo")

DEFINITIONS = {
    VIDEO_TYPES[0]: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data",
    VIDEO_TYPES[1]: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format",
}
"""Definitions for bags without any: they are not among ROS's own."""

_CODECS = {"h264": r"h\.?264|x264|avc", "hevc": r"h\.?265|x265|hevc"}
_START = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


def codec_of(message: Any) -> str:
    """Return the codec of a message that is a packet of a video; empty for a picture.

    The name says which; the bytes of a CompressedImage that begin as a stream say that it is one.
    """
    packet = hasattr(message, "pts")  # of ffmpeg_image_transport, which has no format
    named = str(getattr(message, "encoding" if packet else "format", ""))
    codec = next((codec for codec, pattern in _CODECS.items() if re.search(pattern, named.lower())), "")
    if not packet and not hasattr(message, "format"):
        return ""
    unit = _START.match(bytes(message.data[:5]).removeprefix(b"\0"))
    if unit is not None:
        return codec or ("hevc" if unit[1][0] >> 1 & 63 in range(32, 36) else "h264")
    of_pictures = not packet and hasattr(message, "header")
    return "" if of_pictures else codec or named.split(";")[0] or "unnamed"


def is_keyframe(message: Any, codec: str) -> bool:
    """Return whether decoding can begin with a packet: it has an IDR picture, or one of random access."""
    units = (unit[1][0] for unit in _START.finditer(bytes(message.data)))
    return any(unit & 31 == 5 if codec == "h264" else unit >> 1 & 63 in range(16, 22) for unit in units)


class PacketDecoder:
    """Decodes packets in their order.

    Raises:
        SourceError: Another codec, or PyAV is not installed.
    """

    def __init__(self, codec: str) -> None:
        if codec not in _CODECS:
            raise SourceError(f"a video of codec {codec!r} cannot be decoded, expected H.264 or H.265")
        try:
            import av
        except ImportError:
            raise SourceError(f"a video of codec {codec!r} needs PyAV: pip install 'geowarp_ros[video]'") from None
        self._av: Any = av
        self._context: Any = av.CodecContext.create(codec, "r")
        self._context.thread_count = 1  # more threads hold back more pictures

    def pictures(self, time: int, message: Any) -> Iterator[tuple[int, Callable[[], Image]]]:
        """Yield the time of each picture that is ready, and what makes it RGB (H, W, 3) uint8.

        Args:
            time: Time of the packet.
            message: The packet; None: the last one is behind.
        """
        packet = None
        if message is not None:
            packet = self._av.Packet(bytes(message.data))
            packet.pts = packet.dts = time
        try:
            frames = self._context.decode(packet)
        except self._av.error.InvalidDataError:  # a damaged packet costs its own picture
            return
        for frame in frames:
            if frame.is_corrupt:  # by what it refers to, too
                continue
            yield frame.pts, partial(frame.to_ndarray, format="rgb24")
