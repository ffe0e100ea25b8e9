"""How a source of geotagged images is read, as options of every verb that reads one."""

from __future__ import annotations

import argparse
from typing import Any

from geowarp_ros.cli.options import add_camera
from geowarp_ros.cli.parser import Existing, finite

READ_AS = {
    "split": "split",
    "utm_zone": "utm_zone",
    "image_topic": "image_topic",
    "fix_topic": "fix_topic",
    "max_gap": "max_gap_s",
    "min_spacing": "min_spacing_m",
    "fix_offset": "fix_offset_s",
    "accept_null_island": "accept_null_island",
    "camera": "camera",
    "track": "track",
    "track_offset": "track_offset_s",
    "every_picture": "every",
    "panorama": "panorama_views",
}
"""Option -> the argument of :func:`geowarp_ros.readers.read_source` that it is."""


def add_reading(parser: argparse.ArgumentParser, *, video_every: str = "--every") -> None:
    """Add the options that place the images of a folder, table, bag or video.

    Args:
        parser: The verb's parser.
        video_every: Name of the option for the distance between a video's pictures.
    """
    add = parser.add_argument
    add("--utm-zone", metavar="32N", help="UTM zone and hemisphere of @utm_east@utm_north@ names that give none")
    add("--image-topic", default="", metavar="TOPIC", help="image topic, if a bag has several")
    add("--fix-topic", default="", metavar="TOPIC", help="NavSatFix topic, if a bag has several")
    text = "maximum time between an image and the nearest fix or point of a track (s, default: %(default)g)"
    add("--max-gap", type=not_negative, default=1.0, metavar="S", help=text)
    text = (
        "minimum distance of a bag's images to the one before, and between others that look the same way as far as"
        " headings tell (m, default: %(default)g); closer ones are left out"
    )
    add("--min-spacing", type=not_negative, default=0.0, metavar="M", help=text)
    text = "offset added to the stamps of a bag's fixes (s; default: 0, and clocks that differ are refused)"
    add("--fix-offset", type=float, metavar="S", help=text)
    track = Existing("a GPX track", file=True)
    add("--track", type=track, metavar="GPX", help="track that was recorded beside a video")
    add("--track-offset", type=float, default=0.0, metavar="S", help="time to add to a video's (s, default: 0)")
    text = "distance or time between a video's pictures (default: %(default)s)"
    add(video_every, dest="every_picture", default="2m", metavar="2m", help=text)
    text = "the images are 360° panoramas: cut each into so many views, at least 4 to see all round"
    add("--panorama", type=count, default=0, metavar="VIEWS", help=text)
    text = "keep images at exactly 0°, 0° (left out: receivers without a fix report it)"
    add("--accept-null-island", action="store_true", help=text)
    add_camera(parser)


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of :func:`geowarp_ros.readers.read_source` that the options are."""
    return {READ_AS[name]: value for name, value in vars(args).items() if name in READ_AS}


def count(text: str) -> int:
    """Parse a number of things, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, at least 1")
    return int(text)


def not_negative(text: str) -> float:
    """Parse a number that is not below 0."""
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return value
