"""Geotagged images from a folder tree, by their names (``@utm_east@utm_north@…@.jpg``) or their EXIF."""

from __future__ import annotations

from pathlib import Path

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import local_to_wgs84
from geowarp_ros.images import SUFFIXES
from geowarp_ros.readers.camera_files import CameraFiles
from geowarp_ros.readers.exif_positions import NO_POSITION, exif_place
from geowarp_ros.readers.source import (
    RAW_SUFFIXES,
    Skipped,
    Source,
    SourceImage,
    canonical_split,
    image_file,
    not_read,
    printable,
)
from geowarp_ros.readers.utm_names import NO_ZONE, UtmName, parse_name, place_names
from geowarp_ros.types import Place

_SPLITS = {"train", "val", "test", "gallery", "queries"}

LEFT_ALONE = {"@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "__MACOSX"}
"""Folders of thumbnails and of what was deleted, besides those whose names begin with a dot."""

NEITHER = "with neither @utm_east@utm_north@ in its name nor a GPS position in its EXIF"
LOCAL = "whose name gives metres of a local frame, among images with positions on the earth"


def read_folder(folder: Path, utm_zone: str | None) -> Source:
    """Read a folder tree; each image is where its name says, else where its EXIF says.

    Where no image has a position on the earth and all names give metres that no UTM zone has
    (``@0@00002.3@@@@@1@…``: Nordland, AmsterTime, SPED), these are of a local frame.

    Args:
        folder: The folder.
        utm_zone: Zone and hemisphere of names that give none, such as ``32N``; None leaves those out.

    Raises:
        SourceError: There is no image, most names give no zone, or one contradicts ``utm_zone``.
    """
    there = photographs_below(folder)
    if not there:
        raise SourceError(
            f"{folder}: no images in it, expected {', '.join(SUFFIXES)}, a positions.csv or a ROS bag"
        )
    not_files = {path: _not_read(folder, path) for path in there}
    skipped = [Skipped(_name(folder, path), reason) for path, reason in not_files.items() if reason]
    files = [path for path, reason in not_files.items() if not reason]
    named = {path: name for path in files if (name := parse_name(path.name))}
    loose = {path: name for path, name in named.items() if name.loose and not utm_zone}
    if files and len(loose) == len(files) and not any(name.in_a_zone for name in named.values()):
        return _read_local(folder, named, skipped)
    degrees, reasons = place_names(list(named.values()), utm_zone)
    placed, refused = {}, dict[Path, str]()
    for (path, name), (latitude, longitude), reason in zip(named.items(), degrees.tolist(), reasons, strict=True):
        if reason:
            refused[path] = reason
        else:
            placed[path] = Place(_name(folder, path), latitude, longitude, heading_deg=name.heading_deg)
    for path in files if len(loose) < len(files) else ():
        if path in placed or (path in refused and path not in loose):
            continue
        found = exif_place(_name(folder, path), path)
        if isinstance(found, Place):
            placed[path] = found
        elif path in loose:
            refused[path] = NO_ZONE if named[path].in_a_zone else LOCAL
        else:
            skipped.append(Skipped(found.name, NEITHER if named and found.reason == NO_POSITION else found.reason))
    if sum(reason == NO_ZONE for reason in refused.values()) > len(placed):
        first = next(path for path, reason in refused.items() if reason == NO_ZONE)
        raise SourceError(f"{first}: {NO_ZONE}")
    skipped += [Skipped(_name(folder, path), reason) for path, reason in refused.items()]
    by = " and ".join(way for way, used in {"the names": named, "EXIF": len(named) < len(files)}.items() if used)
    images = _images(folder, placed)
    return Source(
        images, tuple(sorted(skipped, key=lambda each: each.name)), f"folder {folder}, positions from {by}"
    )


def split_of(relative: Path) -> str:
    """Return the split that the folders of a path name: ``train/gallery`` for ``images/train/database/x.jpg``."""
    return "/".join(name for name in canonical_split(relative.parent.as_posix()).split("/") if name in _SPLITS)


def photographs_below(folder: Path) -> list[Path]:
    """Return the files with a photograph's suffix, and links to nothing, in a folder and those below it.

    Links to folders are followed. A folder that several lead to is read once for each split, from where it really
    is if that is inside, too.

    Raises:
        SourceError: A link leads to a folder that it is in itself.
    """
    found: list[Path] = []
    seen: set[tuple[Path, str]] = set()
    folders: list[tuple[Path, tuple[Path, ...]]] = [(folder, ())]
    links: list[tuple[Path, tuple[Path, ...]]] = []
    while folders or links:
        path, above = folders.pop() if folders else links.pop(0)
        real = path.resolve()
        if any(each.is_relative_to(real) for each in above):
            raise SourceError(f"{path}: is a link to {real}, in which it is itself, expected no loop")
        key = (real, split_of((path / "x").relative_to(folder)))
        if key in seen:
            continue
        seen.add(key)
        for entry in sorted(path.iterdir()):
            if entry.name.startswith(".") or entry.name in LEFT_ALONE:
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append((entry, (*above, real)))
            elif entry.suffix.lower() in (*SUFFIXES, *RAW_SUFFIXES) or (entry.is_symlink() and not entry.exists()):
                found.append(entry)
    return sorted(found)


def _read_local(folder: Path, named: dict[Path, UtmName], skipped: list[Skipped]) -> Source:
    metres = [[name.east_m, name.north_m] for name in named.values()]
    degrees = zip(*local_to_wgs84(*zip(*metres, strict=True)), strict=True)
    placed = {
        path: Place(_name(folder, path), float(latitude), float(longitude), heading_deg=name.heading_deg)
        for (path, name), (latitude, longitude) in zip(named.items(), degrees, strict=True)
    }
    said = f"folder {folder}, positions from the names, metres of a local frame"
    return Source(_images(folder, placed), tuple(skipped), said, local=True)


def _images(folder: Path, placed: dict[Path, Place]) -> tuple[SourceImage, ...]:
    cameras = CameraFiles(folder)
    found = (
        image_file(place, path, cameras, split_of(path.relative_to(folder))) for path, place in placed.items()
    )
    return tuple(sorted(found, key=lambda image: image.place.name))


def _name(folder: Path, path: Path) -> str:
    return printable(path.relative_to(folder).as_posix())


def _not_read(folder: Path, path: Path) -> str:
    if _name(folder, path) != path.relative_to(folder).as_posix():
        return "whose name is not UTF-8, as a gallery's names are"
    return not_read(path) if path.is_file() else "links to nothing"
