"""Upgrading a gallery from its own images: keypoints and cameras that it lacks, another model's descriptions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError, GalleryError, ImageError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS, commit, indexed, stored_model
from geowarp_ros.gallery.making.filling import LOADERS
from geowarp_ros.gallery.making.remodel import Remodel, check_resolution
from geowarp_ros.gallery.making.segment import Journal, KeypointWriter, write_cameras
from geowarp_ros.gallery.manifest import (
    POSITIONS_FILE,
    Manifest,
    Segment,
    StoredFile,
    now,
    read_manifest,
    sync,
    writing,
)
from geowarp_ros.gallery.photographs import camera_list
from geowarp_ros.gallery.store import Gallery, OpenSegment
from geowarp_ros.images import read_image, resize_shorter
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.installed import noted_file
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers.camera_files import CameraFiles, exif_camera

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer

_AT_ONCE = 16
"""Photographs between two lines of the journal."""


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What an upgrade made.

    Attributes:
        keypoints: Number of photographs whose keypoints it stored, those of a stopped run included.
        cameras: Number of photographs that have a camera now and had none.
        described: Number of photographs that the new model described, those of a stopped run included.
        adopted: Whether the gallery has a new model that describes as its own did, with a warp beside.
        seconds: Duration.
    """

    keypoints: int
    cameras: int
    described: int
    adopted: bool
    seconds: float


def upgrade_gallery(
    gallery: Path,
    keypoints: KeypointConfig = DEFAULT_KEYPOINTS,
    camera: Camera | None = None,
    progress: Progress = silent,
    *,
    describer: Describer | None = None,
    batch_size: int = 16,
    options: Mapping[str, str] | None = None,
) -> UpgradeReport:
    """Make the keypoints and cameras that a gallery lacks, and describe it anew if its model is another one.

    Its files stay as they are; new ones are written beside them, and the manifest names them when all are there.
    Until then the old gallery is what is read, and a stopped upgrade goes on after its last batch. Stored images
    are at working resolution: keypoints of originals that were larger can only be had by building again.

    A model that is the gallery's own with a warping regression (``geowarp train warp``) describes as that did, and
    the gallery takes it over as it is. Any other changes descriptors and local features, and the index, of the
    same kind, is made again of them. A calibration that was measured with the old model stays beside the gallery;
    the localizer says that it does not apply. Of the same model the place of its file is noted.

    Args:
        gallery: Folder of the gallery.
        keypoints: Keypoints to detect where the gallery stores none.
        camera: Camera of all photographs of the segments that know none; None: that of ``camera.yaml`` or EXIF
            where the gallery refers to the source's images.
        progress: Shows the photographs.
        describer: The model that the gallery is to have; None: the one that made it.
        batch_size: Images described at once.
        options: Options of the model, stored for people.

    Raises:
        GalleryError: An image is absent or broken, the model works at another resolution, another process writes
            to the gallery, or the disk refuses.
        CameraError: The camera is not that of an image.
        ModelError: A descriptor is not finite.
    """
    started = time.monotonic()
    read_manifest(gallery)  # before the lock's file is made in what may be no gallery
    with writing(gallery):
        opened = Gallery.open(gallery)
        manifest, model = opened.manifest, opened.manifest.model
        if describer is not None:
            check_resolution(gallery, manifest, describer)
            if describer.fingerprint == model.fingerprint:  # it may lie elsewhere now
                model = model.model_copy(update={"file": noted_file(describer.model.file, gallery) or model.file})
                describer = None
        resolution = manifest.model.config.resolution
        lacking = keypoints if manifest.keypoints is None else None
        upgraded = [_Upgrade(segment, resolution, lacking, camera) for segment in opened.segments]
        segments = tuple(each.run(progress) for each in upgraded)
        update = {"segments": segments, "keypoints": manifest.keypoints or keypoints, "model": model}
        new, described = manifest.model_copy(update=update), 0
        adopted = describer is not None and _is_with_warp(describer, manifest)
        if describer is not None and adopted:
            new = new.model_copy(update={"model": stored_model(describer, gallery)})
        elif describer is not None:
            remodel = Remodel(describer, batch_size, progress)
            again = [remodel.run(one, info) for one, info in zip(opened.segments, segments, strict=True)]
            again = [s.model_copy(update={"options": s.options | dict(options or {})}) for s in again]
            update = {"model": stored_model(describer, gallery), "segments": tuple(again), "index": None}
            new, described = new.model_copy(update=update), remodel.described
            if (old := manifest.index) is not None:
                how = IndexOptions(kind=old.kind, on_disk=old.on_disk)
                new = indexed(gallery, new, how, progress)
        if new != manifest:
            commit(gallery, new.model_copy(update={"modified": now()}))
        elif any(each.cameras for each in upgraded):
            commit(gallery, manifest)  # the journal of a look that found nothing goes
    made = sum(len(each.writer.counts) for each in upgraded if each.writer)
    cameras = sum(one is not None for each in upgraded for one in each.cameras)
    return UpgradeReport(made, cameras, described, adopted, time.monotonic() - started)


def _is_with_warp(describer: Describer, manifest: Manifest) -> bool:
    """Whether a model is the gallery's own, which has no warping regression, with one."""
    if manifest.model.config.model_dump().get("regression", True) or not describer.model.config.regression:
        return False
    return fingerprint(describer.model, warp=False) == manifest.model.fingerprint


class _Upgrade:
    """The upgrade of one segment.

    Args:
        segment: The segment.
        resolution: Working resolution.
        keypoints: Keypoints to make; None: they are there.
        camera: Camera for photographs of a segment that knows none; None: as its files tell.
    """

    def __init__(
        self, segment: OpenSegment, resolution: int, keypoints: KeypointConfig | None, camera: Camera | None
    ) -> None:
        self._segment = segment
        self._resolution = resolution
        self._config = keypoints
        self._camera = camera if segment.cameras is None else None
        tells = segment.cameras is None and camera is None and not segment.info.copied
        self._files = CameraFiles(None) if tells else None
        self._removed = frozenset(segment.removed.tolist())
        self.writer = KeypointWriter(segment.folder, keypoints.descriptor_dim) if keypoints else None
        self.cameras: list[Camera | None] = []

    def run(self, progress: Progress) -> Segment:
        """Write the files that are missing; returns the segment's new entry for the manifest."""
        info, folder = self._segment.info, self._segment.folder
        names: list[str] = []
        if POSITIONS_FILE not in info.files:  # format 1
            np.save(folder / POSITIONS_FILE, self._segment.table.positions, allow_pickle=False)
            names.append(POSITIONS_FILE)
        if self._config or self._camera or self._files:
            names += self._look(progress)
        if not names:
            return info
        files = {name: StoredFile.of(folder / name) for name in names}
        sync(folder)
        made_from = {"keypoints": "of the stored images"} if self._config and info.copied else {}
        return info.model_copy(update={"files": info.files | files, "options": info.options | made_from})

    def _look(self, progress: Progress) -> tuple[str, ...]:
        """Detect keypoints and scale cameras, batch by batch; returns the names of the files."""
        info = self._segment.info
        journal = Journal(self._segment.folder)
        plan = {"keypoints": self._config and self._config.model_dump(), "camera": repr(self._camera)}
        journal.start(plan, self._take_over)
        if self.writer:
            self.writer.cut()
        starts = range(len(self.cameras), info.images, _AT_ONCE)
        with ThreadPoolExecutor(LOADERS) as pool:
            for start in progress(starts, len(starts), f"looking at segment {info.name} in batches"):
                batch = list(pool.map(self._photograph, range(start, min(start + _AT_ONCE, info.images))))
                counts = self.writer.append([found for found, _ in batch]) if self.writer else []
                cameras = [camera for _, camera in batch]
                self.cameras += cameras
                journal.append({"keypoints": counts, "cameras": camera_list.dump_python(cameras, mode="json")})
        keypoint_files = self.writer.finish() if self.writer else ()
        camera_files = write_cameras(self._segment.folder, self.cameras) if self._segment.cameras is None else ()
        return (*keypoint_files, *camera_files)

    def _take_over(self, entry: Mapping[str, Any]) -> bool:
        cameras = camera_list.validate_python(entry["cameras"])
        if self.writer and not self.writer.take(entry["keypoints"]):
            return False
        self.cameras += cameras
        return True

    def _photograph(self, number: int) -> tuple[Keypoints, Camera | None]:
        """Look at one image; a removed one has neither."""
        if number in self._removed:
            return Keypoints.none(), None
        row = self._segment.table[number]
        try:
            path = self._segment.folder / row.image  # an absolute one stays itself
            original = read_image(path)
            height, width = resize_shorter(original, self._resolution).shape[:2]
            camera = self._files.of(path) or exif_camera(path) if self._files else self._camera
            camera = camera and camera.scaled_to(width, height)
        except ImageError as error:
            raise GalleryError(f"image of {row.place.name}: {error}; remove it first, or put it back") from None
        except CameraError as error:
            raise CameraError(f"{row.place.name}: {error}") from None
        found = KeypointDetector(self._config)(original, width, height) if self._config else Keypoints.none()
        return found, camera
