"""Readers of geotagged images: folders, CSVs, ROS bags and videos, all as a :class:`Source`."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path

from geowarp_ros.errors import SourceError, did_you_mean
from geowarp_ros.readers.bag import read_bag
from geowarp_ros.readers.bag_files import BAG_SUFFIXES, is_bag
from geowarp_ros.readers.camera_files import read_camera
from geowarp_ros.readers.folders import read_folder
from geowarp_ros.readers.panoramas import cut_panoramas
from geowarp_ros.readers.positions import doubts, without_null_island
from geowarp_ros.readers.source import (
    Skipped,
    Source,
    SourceImage,
    canonical_split,
    centre_of,
    count_reasons,
    printable,
)
from geowarp_ros.readers.spacing import spaced
from geowarp_ros.readers.table import read_table
from geowarp_ros.readers.video import EVERY, VIDEO_SUFFIXES, read_video

_log = logging.getLogger(__name__)

__all__ = ["Skipped", "Source", "SourceImage", "centre_of", "count_reasons", "read_source"]


def read_source(
    source: Path,
    *,
    split: str | None = None,
    utm_zone: str | None = None,
    image_topic: str = "",
    fix_topic: str = "",
    max_gap_s: float = 1.0,
    min_spacing_m: float = 0.0,
    camera: Path | None = None,
    accept_null_island: bool = False,
    fix_offset_s: float | None = None,
    track: Path | None = None,
    track_offset_s: float = 0.0,
    every: str = EVERY,
    panorama_views: int = 0,
) -> Source:
    """Read geotagged images; they are decoded on demand.

    A source is, in this order: a CSV file; a video with its track; a bag (folder with metadata.yaml or storage
    files, .mcap, .db3, .bag); a folder with positions.csv; a folder tree of images with ``@utm_east@utm_north@…``
    names or GPS in their EXIF.

    Args:
        source: File or folder.
        split: Split to read: ``gallery`` or ``query`` of a CSV's column, ``train/queries`` or ``test`` of a folder
            tree; ``database`` equals ``gallery``, ``query`` equals ``queries``. None reads all images.
        utm_zone: Zone and hemisphere of names that give none, such as ``32N``; None refuses those.
        image_topic: Topic of a bag's images; may be empty where it has only one.
        fix_topic: Topic of a bag's fixes; may be empty where it has only one.
        max_gap_s: Maximum time between a bag's image and the nearest fix, s; images beyond are left out.
        min_spacing_m: Minimum distance, m: from the bag's image before, or between any two of other images that
            look the same way (:mod:`geowarp_ros.readers.spacing`); closer images are left out.
        camera: Calibration file of all images; None: each image's own, from the bag's CameraInfo, from
            ``camera.yaml`` in its folder or one above it within the source, else from its EXIF.
        accept_null_island: Keep images at exactly 0°, 0°, which is what receivers report without a fix.
        fix_offset_s: Offset added to the stamps of a bag's fixes, s; None: 0, and clocks that differ are refused.
        track: GPX file with the positions of a video.
        track_offset_s: Time to add to a video's, s.
        every: Distance or time between two pictures of a video, such as ``2m`` or ``0.5s``.
        panorama_views: The images are 360° panoramas, each to be cut into so many views; 0: they are none.

    Raises:
        SourceError: The source is none of these, has an error, or holds no usable image; or an option is given
            that tells positions in another kind of source.
        CameraError: A calibration file that is none.
    """
    if not source.exists():
        raise SourceError(f"{source}: does not exist, expected a folder of images, a CSV, a ROS bag or a video")
    video, bag = source.suffix.lower() in VIDEO_SUFFIXES and source.is_file(), is_bag(source)
    for option, given, of in (
        ("image_topic (--image-topic)", image_topic, bag),
        ("fix_topic (--fix-topic)", fix_topic, bag),
        ("fix_offset_s (--fix-offset)", fix_offset_s is not None, bag),
        ("track (--track)", track is not None, video),
        ("track_offset_s (--track-offset)", track_offset_s, video),
    ):
        if given and not of:
            raise SourceError(f"{source}: {option} is for {'a bag' if 'track' not in option else 'a video'}")
    if source.suffix.lower() == ".csv" and source.is_file():
        found = read_table(source)
    elif video:
        found = read_video(source, track, every, track_offset_s, max_gap_s, accept_null_island)
    elif bag:
        found = read_bag(
            source, image_topic, fix_topic, max_gap_s, min_spacing_m, camera,
            accept_null_island=accept_null_island, fix_offset_s=fix_offset_s,
        )  # fmt: skip
    elif source.is_file():
        known = (*BAG_SUFFIXES, *VIDEO_SUFFIXES)
        raise SourceError(f"{source}: is no source, expected a folder of images, .csv, {', '.join(known)}")
    elif (source / "positions.csv").is_file():
        found = read_table(source / "positions.csv")
    else:
        found = read_folder(source, utm_zone)
    if not (accept_null_island or found.local or bag):
        found = without_null_island(found)
    if camera is not None and not bag:
        of_all = read_camera(camera)
        found = replace(found, images=tuple(replace(image, camera=of_all) for image in found.images))
    if not found.images:
        raise SourceError(f"{source}: no usable image: {count_reasons(found.skipped)}")
    found = replace(found, description=printable(found.description))
    found = found if split is None else _only(found, split, source)
    found = found if bag else spaced(found, min_spacing_m, all_round=panorama_views > 0)
    for doubt in () if found.local else doubts(found.images):
        _warn(f"{source}: {doubt}")
    return cut_panoramas(found, panorama_views) if panorama_views else found


@cache  # an evaluation reads its source several times
def _warn(text: str) -> None:
    _log.warning(text)


def _only(found: Source, split: str, source: Path) -> Source:
    wanted = canonical_split(split)
    images = tuple(
        image
        for image in found.images
        if f"{canonical_split(image.split)}/".startswith(f"{wanted}/") and image.split
    )
    if not images:
        splits = {name: count for name, count in found.splits.items() if name}
        there = ", ".join(f"{name} ({count} images)" for name, count in splits.items()) or "no split"
        raise SourceError(f"{source}: no image of split {split!r}{did_you_mean(split, splits)}; it has {there}")
    return replace(found, images=images, description=f"{found.description}, split {split}")
