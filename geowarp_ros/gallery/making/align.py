"""Aligning a gallery: its photographs' own poses and points, from its keypoints, cameras and tags."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.attitude import BODY_FROM_OPTICAL, heading
from geowarp_ros.cameras import Camera
from geowarp_ros.errors import GalleryError
from geowarp_ros.files import quoted
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import Report, Suspect, align
from geowarp_ros.gallery.alignment.comparisons import ComparedPairs
from geowarp_ros.gallery.alignment.extending import extend
from geowarp_ros.gallery.alignment.focal import Size, estimating, known_cameras, with_cameras
from geowarp_ros.gallery.alignment.options import DEFAULTS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import Tagged
from geowarp_ros.gallery.alignment.picture import AlignedMap, alignment_picture
from geowarp_ros.gallery.alignment.stored import kept_alignment, store_alignment
from geowarp_ros.gallery.making.build import commit
from geowarp_ros.gallery.manifest import (
    AlignmentSummary,
    StoredAlignment,
    SuspiciousTag,
    now,
    read_manifest,
    writing,
)
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Image

_log = logging.getLogger(__name__)

NAME_LENGTH = 32
"""Number of characters, the last ones, by which a photograph is named on the map."""


def align_gallery(
    gallery: Path, options: AlignOptions = DEFAULTS, progress: Progress = silent, *, anew: bool = False
) -> AlignmentSummary:
    """Find the poses of a gallery's photographs, and the points that they see; the gallery keeps them.

    Where it is aligned already with these options, only photographs that came since and the groups that these, or
    removed ones, touch are aligned; all others keep their poses and points to the bit.

    Tags stay as they are. Pairs of photographs that an earlier run compared, a stopped one too, are not compared
    again. The old alignment answers until the new one is complete.

    Args:
        gallery: Folder of the gallery.
        options: Standard deviations of the tags, and how cameras are held.
        progress: Shows the pairs compared.
        anew: Align all photographs.

    Raises:
        GalleryError: The gallery stores no keypoints, another process writes to it, or the disk refuses.
        ModuleNotFoundError: PoseLib is not installed (extra ``map``).
    """
    began = time.monotonic()
    read_manifest(gallery)  # before the lock's file is made in what may be no gallery
    with writing(gallery):
        manifest = read_manifest(gallery)
        stored = manifest.alignment
        manifest = manifest.model_copy(update={"alignment": None})
        if manifest.keypoints is None:
            raise GalleryError(
                f"{gallery}: stores no keypoints, which an alignment needs; make them first"
                f" (geowarp gallery upgrade {quoted(gallery)})"
            )
        opened = Gallery.of_manifest(gallery, manifest)
        found = None
        if stored is not None and not anew and stored.summary.tied and stored.options == options.model_dump():
            found = _extended(opened, stored, options, progress)
        alignment, report = found or _aligned(opened, stored.cameras if stored else (), options, progress)
        summary = _summary(report, opened, time.monotonic() - began)
        stored = store_alignment(gallery, manifest.segments, alignment, options.model_dump(), summary)
        commit(gallery, manifest.model_copy(update={"modified": now(), "alignment": stored}))
    return stored.summary


def _aligned(
    opened: Gallery, before: Sequence[Camera], options: AlignOptions, progress: Progress
) -> tuple[Alignment, Report]:
    """Align all photographs; estimated cameras begin as they were before."""
    frame = opened.frame

    def run(given: Sequence[Tagged], focal_px: Mapping[Size, float]) -> tuple[Alignment, Report]:
        compared = ComparedPairs(opened.path, opened.manifest.segments, focal_px)
        return align(given, frame.datum, options, compared, progress)

    return estimating(tagged(opened, frame), run, options, _focal_px(before), progress)


def _extended(
    opened: Gallery, stored: StoredAlignment, options: AlignOptions, progress: Progress
) -> tuple[Alignment, Report] | None:
    """Align what came since; None where all must be: nothing holds any more, or a camera is to be estimated."""
    segments = opened.manifest.segments
    try:
        before, torn = kept_alignment(opened.path, stored, segments, opened.numbers.removed)
    except GalleryError as error:  # a file of the old alignment is gone or damaged
        _log.warning("all photographs are aligned anew: %s", error)
        return None
    if not before.tied.any():
        return None
    photographs = tagged(opened, LocalFrame(*stored.datum))
    estimated = known_cameras(photographs, stored.cameras)
    for row, p in enumerate(photographs):  # an image that is no longer there does not tell its size
        if p.camera is None and p.size is None and len(p.keypoints):
            estimated[row] = before.estimated_camera(row)
    given = [replace(p, camera=p.camera or camera) for p, camera in zip(photographs, estimated, strict=True)]
    if any(new and not p.camera and p.size for new, p in zip(before.came_later(), given, strict=True)):
        return None
    rows = {place.name: int(row) for place, row in zip(opened.places, _rows(opened), strict=True)}
    suspects = [Suspect(rows[s.name], s.off_m) for s in stored.summary.suspicious if s.name in rows]
    std = stored.summary.tag_std_m
    compared = ComparedPairs(opened.path, segments, _focal_px(stored.cameras))
    alignment, report = extend(
        given, before, torn, suspects, math.nan if std is None else std, options, compared, progress
    )
    return with_cameras(alignment, estimated), report


def _focal_px(cameras: Sequence[Camera]) -> dict[Size, float]:
    """Return the focal lengths of estimated cameras by size."""
    return {(max(size), min(size)): c.focal_px for c in cameras for size in [(c.width_px, c.height_px)]}


def _rows(gallery: Gallery) -> NDArray[np.int64]:
    return gallery.numbers.stored(np.arange(len(gallery)))


def tagged(gallery: Gallery, frame: LocalFrame | None = None) -> Sequence[Tagged]:
    """Return the photographs as they came, by stored row; a removed one has neither camera nor keypoints.

    Args:
        gallery: The gallery.
        frame: Frame of the positions; None: the gallery's.
    """
    nothing = Tagged(np.array([0.0, 0.0, math.nan]), math.nan, None, Keypoints.none())
    found = [nothing] * len(gallery.stored)
    frame = frame or gallery.frame
    latitude, longitude, altitude = gallery.geodetic.T
    enu = frame.to_enu(latitude, longitude, np.where(np.isfinite(altitude), altitude, frame.datum_altitude_m))
    enu[~np.isfinite(altitude), 2] = math.nan
    for row, (place, kept) in enumerate(zip(gallery.places, _rows(gallery), strict=True)):
        keypoints = gallery.keypoints(row) or Keypoints.none()
        camera = gallery.camera(row)
        size = _size(gallery, row) if camera is None and len(keypoints) else None
        found[int(kept)] = Tagged(enu[row], place.heading_deg, camera, keypoints, size)
    return found


def _size(gallery: Gallery, row: int) -> tuple[int, int] | None:
    """Return width and height of a photograph at working resolution; None where it cannot be read any more."""
    try:
        height, width = gallery.image(row).shape[:2]
    except GalleryError:
        return None
    return width, height


def _summary(report: Report, gallery: Gallery, seconds: float) -> AlignmentSummary:
    names = dict(zip(_rows(gallery).tolist(), gallery.places, strict=True))
    return AlignmentSummary(
        photographs=len(gallery),
        tied=report.tied,
        components=report.components,
        residual_m=_known(report.residual_m),
        tag_std_m=_known(report.tag_std_m),
        suspicious=tuple(SuspiciousTag(name=names[s.row].name, off_m=s.off_m) for s in report.suspects),
        headings=report.headings,
        points=report.points,
        reprojection_px=_known(report.reprojection_px),
        pairs=report.pairs,
        lines=report.lines,
        seconds=seconds,
    )


def draw_alignment(gallery: Gallery) -> Image:
    """Draw an aligned gallery as a map; see :func:`geowarp_ros.gallery.alignment.picture.alignment_picture`."""
    stored, alignment = gallery.manifest.alignment, gallery.alignment
    if stored is None:
        raise GalleryError(f"{gallery.path}: is not aligned (geowarp gallery align {quoted(gallery.path)})")
    summary = stored.summary
    latitude, longitude, _ = gallery.geodetic.T
    tags = LocalFrame(*stored.datum).to_enu(latitude, longitude)[:, :2]
    positions, headings, points = (
        np.full((len(gallery), 2), np.nan),
        np.full(len(gallery), np.nan),
        np.empty((0, 2)),
    )
    if alignment is not None:
        for row, number in enumerate(_rows(gallery).tolist()):
            if alignment.tied[number]:
                positions[row] = alignment.position_m[number, :2]
                headings[row] = heading(alignment.rotation[number] @ BODY_FROM_OPTICAL.T)
        points = alignment.points_m[:, :2]
    row_of = {place.name: row for row, place in enumerate(gallery.places)}
    suspicious = {
        row_of[s.name]: f"{_short(s.name)}  {s.off_m:.0f} m" for s in summary.suspicious if s.name in row_of
    }
    title = f"{summary.tied:,} of {summary.photographs:,} photographs tied"
    if summary.residual_m is not None:
        title += f", {summary.residual_m:.2f} m off their tags in the median"
    if suspicious:
        title += f", {len(suspicious):,} suspicious tag{'s' * (len(suspicious) > 1)}"
    return alignment_picture(AlignedMap(tags, positions, headings, points, suspicious, title))


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"…{name[-NAME_LENGTH:]}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
