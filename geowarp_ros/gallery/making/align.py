"""Aligning a gallery: its photographs' own poses and points, from its keypoints, cameras and tags."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from geowarp_ros.attitude import BODY_FROM_OPTICAL, heading
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import Report, align
from geowarp_ros.gallery.alignment.comparisons import ComparedPairs
from geowarp_ros.gallery.alignment.focal import Size, estimating
from geowarp_ros.gallery.alignment.options import DEFAULTS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import Tagged
from geowarp_ros.gallery.alignment.picture import AlignedMap, alignment_picture
from geowarp_ros.gallery.alignment.stored import store_alignment
from geowarp_ros.gallery.making.build import commit
from geowarp_ros.gallery.manifest import AlignmentSummary, SuspiciousTag, now, read_manifest, writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Image

NAME_LENGTH = 32
"""Number of characters, the last ones, by which a photograph is named on the map."""


def align_gallery(
    gallery: Path, options: AlignOptions = DEFAULTS, progress: Progress = silent
) -> AlignmentSummary:
    """Find the poses of a gallery's photographs, and the points that they see; the gallery keeps them.

    Tags stay as they are. Pairs of photographs that an earlier run compared, a stopped one too, are not compared
    again. The old alignment answers until the new one is complete.

    Args:
        gallery: Folder of the gallery.
        options: Standard deviations of the tags, and how cameras are held.
        progress: Shows the pairs compared.

    Raises:
        GalleryError: The gallery stores no keypoints, another process writes to it, or the disk refuses.
        ModuleNotFoundError: PoseLib is not installed (extra ``map``).
    """
    began = time.monotonic()
    read_manifest(gallery)  # before the lock's file is made in what may be no gallery
    with writing(gallery):
        manifest = read_manifest(gallery)
        before = manifest.alignment.cameras if manifest.alignment else ()
        known = {(max(size), min(size)): c.focal_px for c in before for size in [(c.width_px, c.height_px)]}
        manifest = manifest.model_copy(update={"alignment": None})
        if manifest.keypoints is None:
            raise GalleryError(
                f"{gallery}: stores no keypoints, which an alignment needs; make them first"
                f" (geowarp gallery upgrade {gallery})"
            )
        opened = Gallery.of_manifest(gallery, manifest)
        photographs = tagged(opened)
        datum = opened.frame.datum

        def run(given: Sequence[Tagged], focal_px: Mapping[Size, float]) -> tuple[Alignment, Report]:
            compared = ComparedPairs(gallery, manifest.segments, focal_px)
            return align(given, datum, options, compared, progress)

        alignment, report = estimating(photographs, run, options, known, progress)
        summary = _summary(report, opened, time.monotonic() - began)
        stored = store_alignment(gallery, manifest.segments, alignment, options.model_dump(), summary)
        commit(gallery, manifest.model_copy(update={"modified": now(), "alignment": stored}))
    return stored.summary


def tagged(gallery: Gallery) -> Sequence[Tagged]:
    """Return the photographs as they came, by stored row; a removed one has neither camera nor keypoints."""
    kept = gallery.numbers.stored(np.arange(len(gallery)))
    nothing = Tagged(np.array([0.0, 0.0, math.nan]), math.nan, None, Keypoints.none())
    found = [nothing] * len(gallery.stored)
    enu, geodetic = gallery.positions_enu, gallery.geodetic
    for row, place in enumerate(gallery.places):
        position = enu[row].copy()
        position[2] = position[2] if math.isfinite(geodetic[row, 2]) else math.nan
        keypoints = gallery.keypoints(row) or Keypoints.none()
        camera = gallery.camera(row)
        size = _size(gallery, row) if camera is None and len(keypoints) else None
        found[int(kept[row])] = Tagged(position, place.heading_deg, camera, keypoints, size)
    return found


def _size(gallery: Gallery, row: int) -> tuple[int, int] | None:
    """Return width and height of a photograph at working resolution; None where it cannot be read any more."""
    try:
        height, width = gallery.image(row).shape[:2]
    except GalleryError:
        return None
    return width, height


def _summary(report: Report, gallery: Gallery, seconds: float) -> AlignmentSummary:
    names = dict(zip(gallery.numbers.stored(np.arange(len(gallery))).tolist(), gallery.places, strict=True))
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
        raise GalleryError(f"{gallery.path}: is not aligned (geowarp gallery align {gallery.path})")
    summary = stored.summary
    latitude, longitude, _ = gallery.geodetic.T
    tags = LocalFrame(*stored.datum).to_enu(latitude, longitude)[:, :2]
    positions, headings, points = (
        np.full((len(gallery), 2), np.nan),
        np.full(len(gallery), np.nan),
        np.empty((0, 2)),
    )
    if alignment is not None:
        for row, number in enumerate(gallery.numbers.stored(np.arange(len(gallery))).tolist()):
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
