"""Aligning a gallery on the command line: the options, whether it can be done, and the report in words."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.verbs import require
from geowarp_ros.config import parse_config
from geowarp_ros.files import quoted
from geowarp_ros.gallery.alignment.options import MIN_PHOTOGRAPHS, AlignOptions

if TYPE_CHECKING:
    from geowarp_ros.gallery.manifest import AlignmentSummary
    from geowarp_ros.gallery.store import Gallery

OPTIONS = {
    "position-std": ("position_std_m", "M"),
    "heading-std": ("heading_std_deg", "DEG"),
    "free-tilt": ("free_tilt", ""),
    "neighbours": ("neighbours", "N"),
}
"""Option -> its name in ``AlignOptions``, and what it takes."""

NAMED = 5
"""Number of suspicious tags that are named."""


def add_align_options(parser: argparse.ArgumentParser, *options: str) -> None:
    """Add some of :data:`OPTIONS`, or all; what is left out keeps its default."""
    for option in options or OPTIONS:
        name, metavar = OPTIONS[option]
        field = AlignOptions.model_fields[name]
        line = str(field.description).removesuffix(".")
        told: dict[str, Any] = {"action": "store_true"}
        if metavar:
            told = {"type": type(field.default), "metavar": metavar}
            line += f" (default: {field.default:g})"
        parser.add_argument(
            f"--{option}", dest=name, default=argparse.SUPPRESS, help=line[0].lower() + line[1:], **told
        )


def align_options(args: argparse.Namespace) -> AlignOptions:
    """Return what was given.

    Raises:
        ConfigError: A value is out of range.
    """
    names = [name for name, _ in OPTIONS.values()]
    return parse_config(AlignOptions, {name: value for name, value in vars(args).items() if name in names})


def unaligned(path: Path) -> Gallery:
    """Open a gallery without its alignment, which may be of other keypoints."""
    from geowarp_ros.gallery.manifest import read_manifest
    from geowarp_ros.gallery.store import Gallery

    return Gallery.of_manifest(path, read_manifest(path).model_copy(update={"alignment": None}))


def obstacle(gallery: Gallery) -> str:
    """Return why a gallery cannot be aligned, and the command that helps; empty if it can."""
    if len(gallery) < MIN_PHOTOGRAPHS:
        return f"it has {len(gallery)} photographs, {MIN_PHOTOGRAPHS} are needed; 'geowarp gallery add' adds more"
    if gallery.keypoint_config is None:
        return f"it stores no keypoints; 'geowarp gallery upgrade {quoted(gallery.path)}' makes them"
    return ""


def align_if_possible(path: Path, options: AlignOptions) -> None:
    """Align a gallery that was built or extended, or say in a line why not."""
    from geowarp_ros.cli import EXTRAS

    if why := obstacle(unaligned(path)):
        print(f"  not aligned: {why}")
        return
    try:
        require("poselib")
    except ModuleNotFoundError:
        extra = f"pip install 'geowarp_ros[{EXTRAS['poselib']}]'"
        print(f"  not aligned: needs poselib, not installed: {extra}; then 'geowarp gallery align {quoted(path)}'")
        return
    align_and_report(path, options)


def align_and_report(
    path: Path, options: AlignOptions, picture: Path | None = None, *, anew: bool = False
) -> None:
    """Align a gallery, say in words what was found, and draw it.

    Args:
        path: Folder of the gallery.
        options: Standard deviations of the tags, and how cameras are held.
        picture: File for the map; None: beside what is stored, so that it goes with it.
        anew: Align all photographs, those too that an alignment has.

    Raises:
        GalleryError: The gallery cannot be aligned, or the picture not be written.
    """
    import cv2

    from geowarp_ros.errors import GalleryError
    from geowarp_ros.files import write_whole
    from geowarp_ros.gallery.making.align import align_gallery, draw_alignment
    from geowarp_ros.gallery.manifest import ALIGNMENT
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.progress import bar

    summary = align_gallery(path, options, bar, anew=anew)
    _print_report(path, summary)
    gallery = Gallery.open(path)
    if gallery.manifest.alignment is None:  # another process has changed it meanwhile
        return
    where = picture or path / ALIGNMENT / gallery.manifest.alignment.name / "alignment.png"
    write_whole(where, bytes(cv2.imencode(".png", draw_alignment(gallery)[..., ::-1])[1]), GalleryError)
    print(f"  picture: {where}")


def _print_report(path: Path, summary: AlignmentSummary) -> None:
    groups = _groups(summary.components)
    lines = [f"{summary.tied:,} of {summary.photographs:,} photographs tied{groups}, in {summary.seconds:.1f} s"]
    if summary.residual_m is not None:
        lines.append(f"{summary.residual_m:.2f} m off their tags in the median")
    if summary.tag_std_m is not None:
        lines[-1] += f"; standard deviation of the tags {summary.tag_std_m:.2f} m per axis"
    if tags := summary.suspicious:
        named = ", ".join(f"{tag.name} by {tag.off_m:.1f} m" for tag in tags[:NAMED])
        more = f" and {len(tags) - NAMED:,} more" if len(tags) > NAMED else ""
        lines.append(f"{_tags(len(tags))}, off {named}{more}")
    if summary.tied:
        lines.append(f"{summary.headings:,} headings found that the tags lack; {summary.points:,} points")
        if summary.reprojection_px is not None:
            lines[-1] += f", off by {summary.reprojection_px:.2f} px in the median"
    else:
        lines.append("nothing ties its photographs: they stay tags")
    print(f"{path}: " + "\n  ".join([*lines, *summary.lines]))


def _tags(count: int) -> str:
    return f"{count:,} suspicious tag{'s' * (count != 1)}"


def _groups(components: tuple[int, ...]) -> str:
    if len(components) < 2:
        return ""
    named = ", ".join(f"{count:,}" for count in components[:NAMED])
    return f" in {len(components):,} groups ({named}{', …' if len(components) > NAMED else ''})"


def camera_summary(gallery: Gallery) -> dict[str, int]:
    """Return how many photographs have a camera, and how many cameras there are."""
    numbers = [(s.cameras, s.cameras.kept(s.removed)) for s in gallery.segments if s.cameras]
    different = {cameras.cameras[number] for cameras, kept in numbers for number in set(kept.tolist())}
    return {"photographs": sum(len(kept) for _, kept in numbers), "different": len(different)}


def estimated_cameras(gallery: Gallery) -> list[str]:
    """Return the cameras that the alignment estimated, each in a line."""
    stored = gallery.manifest.alignment
    return [str(camera) for camera in stored.cameras] if stored else []


def alignment_summary(gallery: Gallery) -> dict[str, Any] | None:
    """Return what the manifest says of the alignment; ``later``: photographs added after it."""
    stored = gallery.manifest.alignment
    if stored is None:
        return None
    aligned = {segment.name for segment in stored.segments}
    later = [s.images - len(s.removed) for s in gallery.manifest.segments if s.name not in aligned]
    return {
        **stored.summary.model_dump(mode="json"),
        "created": stored.created,
        "options": stored.options,
        "later": sum(later),
    }


def describe_alignment(summary: Mapping[str, Any]) -> str:
    """Return the alignment of a gallery's plain values as one line."""
    found = summary["alignment"]
    command = f"'geowarp gallery align {quoted(summary['gallery'])}'"
    if found is None:
        return f"none; {command} makes one"
    line = f"{found['tied']:,} of {found['photographs']:,} photographs tied{_groups(tuple(found['components']))}"
    if found["residual_m"] is not None:
        line += f", {found['residual_m']:.2f} m off their tags in the median"
    line += f", {_tags(len(found['suspicious']))}, {found['points']:,} points"
    return line + (f"; {found['later']:,} added later are not aligned yet: {command}" if found["later"] else "")
