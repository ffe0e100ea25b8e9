"""Describing a gallery's photographs anew with another model, from the images that it stores or refers to.

What the new model makes lies in a folder of the segment that has the model's fingerprint as its name. Everything
else stays where it is: positions, images, keypoints and cameras, so the alignment and its compared pairs, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError, ImageError
from geowarp_ros.gallery.local import CODEBOOK, layout
from geowarp_ros.gallery.making.filling import check_finite, load_ahead
from geowarp_ros.gallery.making.segment import DescriptionWriter, Journal
from geowarp_ros.gallery.manifest import DESCRIPTORS, Manifest, Segment, StoredFile, sync
from geowarp_ros.gallery.store import OpenSegment
from geowarp_ros.images import read_image
from geowarp_ros.progress import Progress
from geowarp_ros.types import Image

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer

_NOTHING: Image = np.zeros((64, 64, 3), np.uint8)
"""Described in place of a removed photograph whose image is gone: its row stays, and no search returns it."""


def check_resolution(gallery: Path, manifest: Manifest, describer: Describer) -> None:
    """Refuse a model of another working resolution, to which stored images, keypoints and cameras do not fit.

    Raises:
        GalleryError: The resolutions differ.
    """
    stored, new = manifest.model.config.resolution, describer.model.config.resolution
    if stored != new:
        has, works = (f"{px} px" if px else "that of the images" for px in (stored, new))
        raise GalleryError(
            f"{gallery}: its working resolution is {has}, that of model {describer.fingerprint} is {works};"
            " images, keypoints and cameras do not fit: build it again from its source (geowarp gallery build)"
        )


class Remodel:
    """What another model makes of the photographs of a gallery, segment by segment.

    Args:
        describer: The other model.
        batch_size: Images described at once, and between two lines of the journal.
        progress: Shows the images described.

    Attributes:
        described: Number of photographs described, those of a stopped run included.
    """

    def __init__(self, describer: Describer, batch_size: int, progress: Progress) -> None:
        self._describer = describer
        self._batch_size = batch_size
        self._progress = progress
        self._codebooks: dict[str, NDArray[np.float32]] = {}  # by the checksum of the one that each replaces
        self.described = 0

    def run(self, segment: OpenSegment, info: Segment) -> Segment:
        """Write what is new of a segment; returns ``info``, its entry, with this in place of the old.

        Raises:
            GalleryError: An image is absent or broken.
            ModelError: A descriptor is not finite.
        """
        own = self._describer.fingerprint
        folder = segment.folder / own
        folder.mkdir(exist_ok=True)
        writer = self._write(segment, folder)
        old_codebook = info.files.get(info.of_model(CODEBOOK))
        codebook = self._codebooks.get(old_codebook.blake2b) if old_codebook else None
        names = writer.finish(info.images, info.local_features, codebook, self._progress)
        if old_codebook:
            self._codebooks[old_codebook.blake2b] = np.load(folder / CODEBOOK, allow_pickle=False)
        made = {f"{own}/{name}": StoredFile.of(folder / name) for name in names}
        sync(folder)
        sync(segment.folder)
        old = {info.of_model(name) for name in (DESCRIPTORS, *layout(info.local_features, 1, 1))}
        kept = {name: file for name, file in info.files.items() if name not in old}
        return info.model_copy(update={"files": made | kept})

    def _write(self, segment: OpenSegment, folder: Path) -> DescriptionWriter:
        """Describe the photographs that a stopped run has not described."""
        describer, done = self._describer, 0
        writer = DescriptionWriter(folder, describer.model.descriptor_dim, describer.model.channels)

        def take(entry: Mapping[str, Any]) -> bool:
            nonlocal done
            if not writer.holds(done + entry["described"]):
                return False
            done += entry["described"]
            return True

        def load(number: int) -> Image:
            return describer.prepare(_read(segment, number))

        journal = Journal(folder)
        journal.start({"fingerprint": describer.fingerprint, "images": segment.info.images}, take)
        writer.cut(done)
        todo = range(done, segment.info.images)
        with closing(load_ahead(load, todo, 2 * self._batch_size)) as ahead:
            images = iter(self._progress(ahead, len(todo), f"describing segment {segment.info.name} anew, images"))
            while batch := list(islice(images, self._batch_size)):
                descriptors, local_features = describer.describe_batch(batch)
                check_finite([segment.table[done + k].place.name for k in range(len(batch))], descriptors)
                writer.append(descriptors, local_features)
                journal.append({"described": len(batch)})
                done += len(batch)
        self.described += done
        return writer


def _read(segment: OpenSegment, number: int) -> Image:
    row = segment.table[number]
    try:
        return read_image(segment.folder / row.image)  # an absolute one stays itself
    except ImageError as error:
        if number in segment.removed:
            return _NOTHING
        raise GalleryError(f"image of {row.place.name}: {error}; remove it first, or put it back") from None
