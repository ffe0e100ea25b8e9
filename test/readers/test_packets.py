"""Videos in bags against the pictures that PyAV encoded: in order, out of order, with B-frames, and damaged."""

from __future__ import annotations

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.evaluation.bags import read_drive
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.packets import DEFINITIONS, VIDEO_TYPES, codec_of, is_keyframe
from geowarp_ros.types import Image
from test.gallery.bags import LATENCY_NS, LATITUDE, ROS2, START_NS, Message, _header, fix, write_bag

av = pytest.importorskip("av")

PACKET, VIDEO = VIDEO_TYPES
COMPRESSED = "sensor_msgs/msg/CompressedImage"
for _kind in VIDEO_TYPES:
    ROS2.register(get_types_from_msg(DEFINITIONS[_kind], _kind))

COUNT = 24
KEY_EVERY = 8


def street(number: int) -> Image:
    """A picture whose brightness tells its number, with a slope to be encoded."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[...] = 10 * number
    image[:, :, 0] = np.minimum(10 * number + np.arange(96) // 8, 255)
    return image


def packets(codec: str, *, b_frames: int = 0) -> list[tuple[int, bytes]]:
    """Encode COUNT pictures; return the number of the picture and the bytes of each packet, in decoding order."""
    encoder = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = 96, 64, "yuv420p"
    encoder.framerate, encoder.time_base = 2, Fraction(1, 2)
    encoder.gop_size = KEY_EVERY
    named = f"keyint={KEY_EVERY}:min-keyint={KEY_EVERY}:scenecut=0:bframes={b_frames}:repeat-headers=1:open-gop=0"
    encoder.options = {
        "preset": "ultrafast",
        "crf": "4",
        "x264-params" if codec == "h264" else "x265-params": named,
    }
    found = []
    for number in range(COUNT):
        frame = av.VideoFrame.from_ndarray(street(number), format="rgb24")
        frame.pts = number
        found += encoder.encode(frame)
    found += encoder.encode(None)
    return [(int(packet.pts), bytes(packet)) for packet in found]


def message(kind: str, number: int, data: bytes, name: str, topic: str = "/camera/video") -> Message:
    stamp_ns = START_NS + number * 500_000_000
    header, content = _header(ROS2, stamp_ns), np.frombuffer(data, np.uint8)
    types = ROS2.types
    if kind == PACKET:
        made = types[kind](header, 96, 64, name, number, 0, False, content)
    elif kind == VIDEO:
        made = types[kind](header.stamp, "camera", content, name)
    else:
        made = types[kind](header, name, content)
    return topic, stamp_ns + LATENCY_NS, made


def film(kind: str, codec: str, name: str) -> list[Message]:
    fixes = [fix(t, LATITUDE + t * 1e-3) for t in range(COUNT // 2 + 1)]
    return [message(kind, number, data, name) for number, data in packets(codec)] + fixes


def numbers(source: Source, order: list[int] | None = None) -> list[int]:
    """Decode, and return which picture each image is; it must be one."""
    found = []
    for row in order or range(len(source.images)):
        picture = source.images[row].read().astype(float)
        number = round(float(picture[..., 1].mean()) / 10)
        assert np.abs(picture - street(number)).mean() < 3
        found.append(number)
    return found


@pytest.mark.parametrize(
    ("kind", "codec", "name"),
    [
        (PACKET, "h264", "h264"), (PACKET, "h264", "libx264;yuv420p"), (PACKET, "hevc", "hevc_nvenc"),
        (VIDEO, "h264", "h264"), (VIDEO, "hevc", "h265"),
        (VIDEO, "hevc", ""), (COMPRESSED, "h264", "h264"), (COMPRESSED, "h264", ""), (COMPRESSED, "hevc", "hevc"),
        (COMPRESSED, "hevc", ""),
    ],
)  # fmt: skip
def test_each_picture_has_its_own_place(tmp_path: Path, kind: str, codec: str, name: str) -> None:
    source = read_source(write_bag(tmp_path / "b", film(kind, codec, name)))
    assert numbers(source) == list(range(COUNT))
    latitudes = [image.place.latitude_deg for image in source.images]
    np.testing.assert_allclose(latitudes, LATITUDE + np.arange(COUNT) * 0.5e-3, atol=1e-8)


def test_in_any_order_and_from_several_threads(tmp_path: Path) -> None:
    source = read_source(write_bag(tmp_path / "b", film(PACKET, "h264", "h264"), "sqlite3"))
    order = [20, 3, 4, 4, 6, 23, 0, 15, 16, 15]
    assert numbers(source, order) == order
    with ThreadPoolExecutor(3) as pool:
        means = list(pool.map(lambda image: float(image.read()[..., 1].mean()) / 10, source.images))
    assert np.round(means).tolist() == list(range(COUNT))


def test_pictures_that_are_put_in_order_by_the_decoder(tmp_path: Path) -> None:
    """B-frames: recorded in decoding order, which is not that of stamps; each has the picture of its packet."""
    coded = packets("h264", b_frames=2)
    assert [number for number, _ in coded] != list(range(COUNT))
    messages = [message(PACKET, number, data, "h264") for number, data in coded]
    # recorded one after the other, in decoding order
    messages = [
        (topic, START_NS + row * 500_000_000 + 100_000_000, made) for row, (topic, _, made) in enumerate(messages)
    ]
    fixes = [fix(t, LATITUDE + t * 1e-3) for t in range(COUNT // 2 + 1)]
    source = read_source(write_bag(tmp_path / "b", messages + fixes))
    assert numbers(source) == list(range(COUNT))


def test_a_drive_is_judged_on_a_video(tmp_path: Path) -> None:
    drive = read_drive(write_bag(tmp_path / "b", film(VIDEO, "h264", "h264")))
    assert len(drive.images) == COUNT and drive.images[0].frame_id == "camera"
    assert round(float(drive.images[9].read()[..., 1].mean()) / 10) == 9


def test_a_bag_without_the_definition_of_packets(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", film(PACKET, "h264", "h264"), "sqlite3")
    with sqlite3.connect(folder / "b.db3") as database:
        database.execute("UPDATE schema SET schema_version = 3")
        database.execute("DROP TABLE message_definitions")
    database.close()
    assert numbers(read_source(folder)) == list(range(COUNT))


def test_what_cannot_be_decoded_is_an_error_of_its_own(tmp_path: Path) -> None:
    coded = packets("h264")
    messages = [
        message(PACKET, number, data, "h264") for number, data in coded[3:]
    ]  # begins between two keyframes
    fixes = [fix(t, LATITUDE + t * 1e-3) for t in range(COUNT // 2 + 1)]
    source = read_source(write_bag(tmp_path / "b", messages + fixes))
    with pytest.raises(ImageError, match=r"^b/camera/video/\d+: cannot be decoded: no keyframe before it"):
        source.images[0].read()
    assert numbers(source, list(range(5, 21))) == list(range(8, 24))


def test_other_codecs_and_an_absent_pyav_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixes = [fix(t, LATITUDE) for t in range(3)]
    for kind, name in ((VIDEO, "vp9"), (PACKET, "av1;yuv420p"), (VIDEO, "")):
        bag = write_bag(tmp_path / f"{kind[:4]}{name[:3]}", [message(kind, 1, b"\x12\0\x0a", name), *fixes])
        with pytest.raises(
            SourceError, match=r"/camera/video: a video of codec '.*' cannot be decoded, expected H\.264 or H\.265"
        ):
            read_source(bag)
    bag = write_bag(tmp_path / "h264", film(VIDEO, "h264", "h264"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"codec 'h264' needs PyAV: pip install 'geowarp_ros\[video\]'"):
        read_source(bag)


def test_keyframes_are_those_that_the_encoder_made() -> None:
    for codec in ("h264", "hevc"):
        keys = [number for number, data in packets(codec) if is_keyframe(SimpleNamespace(data=data), codec)]
        assert keys == list(range(0, COUNT, KEY_EVERY))


def test_a_jpeg_is_no_video_whatever_its_format_says() -> None:
    jpeg = b"\xff\xd8\xff\xe0 and more"
    for name in ("h264", "jpeg", "", "bgr8; jpeg compressed bgr8"):
        assert codec_of(SimpleNamespace(header=0, format=name, data=jpeg)) == ""
    assert codec_of(SimpleNamespace(header=0, encoding="rgb8", data=b"\0\0\1\x67")) == ""  # raw pixels
