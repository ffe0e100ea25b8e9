"""Geotagged images from folders, CSVs and ROS bags, all as one :class:`Source`."""

from __future__ import annotations

from pathlib import Path

from geowarp_ros.errors import SourceError, did_you_mean
from geowarp_ros.readers.bag import read_bag
from geowarp_ros.readers.bag_files import BAG_SUFFIXES, is_bag
from geowarp_ros.readers.folders import read_folder
from geowarp_ros.readers.positions import read_positions
from geowarp_ros.readers.source import Skipped, Source, SourceImage, count_reasons

__all__ = ["Skipped", "Source", "SourceImage", "count_reasons", "read_source"]


def read_source(
    source: Path,
    *,
    split: str | None = None,
    utm_zone: str | None = "32N",
    image_topic: str = "",
    fix_topic: str = "",
    max_gap_s: float = 1.0,
    min_spacing_m: float = 0.0,
) -> Source:
    """Find out what ``source`` is and read it; images are decoded only when asked for.

    In this order: a CSV file; a bag (folder with metadata.yaml or storage files, .mcap, .db3, .bag); a folder
    with positions.csv; a folder tree of ``@utm_east@utm_north@…`` names; one of images with GPS in their EXIF.

    Args:
        source: File or folder.
        split: Only the images of this split: ``gallery`` or ``query`` of a CSV's column, ``train/queries`` or
            ``test`` of a folder tree. ``database`` also finds ``gallery``, ``query`` also ``queries``.
        utm_zone: Zone and hemisphere of names that give none themselves; None refuses those.
        image_topic: Of a bag; may be empty where there is only one.
        fix_topic: Of a bag; may be empty where there is only one.
        max_gap_s: Of a bag: images farther than this from a fix are left out.
        min_spacing_m: Of a bag: images closer than this to the one before are left out.

    Raises:
        SourceError: Nothing of the above, a source that cannot be trusted, or no usable image in it.
    """
    if not source.exists():
        raise SourceError(f"{source}: does not exist, expected a folder of images, a CSV or a ROS bag")
    if source.suffix.lower() == ".csv" and source.is_file():
        found = read_positions(source)
    elif is_bag(source):
        found = read_bag(
            source,
            image_topic=image_topic,
            fix_topic=fix_topic,
            max_gap_s=max_gap_s,
            min_spacing_m=min_spacing_m,
        )
    elif source.is_file():
        raise SourceError(f"{source}: is no source, expected a folder of images, .csv, {', '.join(BAG_SUFFIXES)}")
    elif (source / "positions.csv").is_file():
        found = read_positions(source / "positions.csv")
    else:
        found = read_folder(source, utm_zone)
    if not found.images:
        raise SourceError(f"{source}: no usable image: {count_reasons(found.skipped)}")
    return found if split is None else _only(found, split, source)


def _only(found: Source, split: str, source: Path) -> Source:
    wanted = _canonical(split)
    images = tuple(
        image for image in found.images if f"{_canonical(image.split)}/".startswith(f"{wanted}/") and image.split
    )
    if not images:
        splits = {name: count for name, count in found.splits.items() if name}
        there = ", ".join(f"{name} ({count} images)" for name, count in splits.items()) or "no split"
        raise SourceError(f"{source}: no image of split {split!r}{did_you_mean(split, splits)}; it has {there}")
    return Source(images, found.skipped, f"{found.description}, split {split}")


def _canonical(split: str) -> str:
    names = {"database": "gallery", "query": "queries"}
    return "/".join(names.get(part, part) for part in split.strip("/").lower().split("/"))
