"""Filling a segment: images are read, described and stored, batch by batch."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError, ImageError, ModelError, SourceError
from geowarp_ros.gallery.local import Form
from geowarp_ros.gallery.making.segment import IMAGES, SegmentWriter, read_plan
from geowarp_ros.gallery.manifest import SEGMENTS, Segment, checksum, in_turn, sync
from geowarp_ros.gallery.places import Row
from geowarp_ros.model.matching import GRID
from geowarp_ros.progress import Progress
from geowarp_ros.readers import Skipped, Source, SourceImage
from geowarp_ros.types import Image

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer

JPEG_QUALITY = 95
_LOADERS = 2  # threads that read and decode while the network describes
_PARTIAL = ".partial"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Filled:
    """A finished segment.

    Attributes:
        segment: What the manifest says of it.
        resumed: Images that a run which was stopped had described.
        skipped: Images that could not be read.
    """

    segment: Segment
    resumed: int
    skipped: tuple[Skipped, ...]


def fill_segment(
    source: Source,
    describer: Describer,
    gallery: Path,
    named: Collection[str],
    *,
    copy_images: bool,
    batch_size: int,
    form: Form,
    codebook: NDArray[np.float32] | None = None,
    part_of: str = "",
    options: Mapping[str, str],
    progress: Progress,
) -> Filled:
    """Write a segment, or go on with the one that a run with the same source and model left unfinished.

    Args:
        source: Its images.
        describer: The model.
        gallery: The gallery's folder, locked.
        named: Segments of the gallery as it is; they are left alone.
        copy_images: Store images, or refer to the source's files.
        batch_size: Images described at once.
        form: How the local features are stored.
        codebook: Of their product quantiser, where the gallery has one.
        part_of: Tells a part of a build by several processes from the same images built otherwise.
        options: How the source was read, for people.
        progress: Shows the images described.

    Raises:
        SourceError: No image, or none that can be read.
        GalleryError: Images of a bag are to be referred to.
        ModelError: The model makes descriptors that are not finite.
    """
    if not source.images:
        raise SourceError(f"{source.description}: no usable image")
    if not copy_images and any(image.path is None for image in source.images):
        raise GalleryError(
            f"{source.description}: its images have no files to refer to; store them in the gallery instead"
        )
    source = by_place(source)
    plan = {
        "fingerprint": describer.fingerprint,
        "source": identity_of(source),
        "images": len(source.images),
        "copied": copy_images,
        "part_of": part_of,
    }
    folder = _unfinished(gallery, plan, named) or _new_folder(gallery)
    writer = SegmentWriter(folder, describer.model.descriptor_dim, describer.model.channels, GRID)
    writer.start(plan)
    resumed = len(writer.rows)
    if writer.done:
        _log.info("%s: going on after %d of %d images", gallery, writer.done, len(source.images))
    todo = source.images[writer.done :]
    with _Loader(describer, copy_images) as load, ThreadPoolExecutor(1) as behind:
        loaded = progress(load(todo, 2 * batch_size), len(todo), "describing images")
        written: Future[None] | None = None
        for batch in _batches(loaded, batch_size):
            described = describer.describe_batch([one.image for one in batch if one.image is not None])
            if written is not None:
                written.result()  # at most one batch waits for the disk
            written = behind.submit(_append, writer, batch, *described, copy_images)
        if written is not None:
            written.result()
    if not writer.rows:
        shutil.rmtree(folder)
        raise SourceError(
            f"{source.description}: none of its {len(source.images)} images can be read,"
            f" the first is {writer.skipped[0].name}"
        )
    files = writer.finish(form, codebook, progress)
    final = folder.rename(folder.with_suffix(""))
    sync(final.parent)
    segment = Segment(
        name=final.name,
        images=len(writer.rows),
        image_bytes=sum(row.image_size for row in writer.rows),
        source=source.description,
        copied=copy_images,
        options={**options, "batch_size": str(batch_size), "jpeg_quality": str(JPEG_QUALITY)},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files=files,
        local_features=form,
    )
    return Filled(segment, resumed, tuple(writer.skipped))


def by_place(source: Source) -> Source:
    """Return the source with its images in the order of a Z-curve over the ground (Morton), names breaking ties.

    What lies together on the ground then lies together in the files: a search within a circle reads few pages. A
    bag's images keep their order, in which they are quickest read and in which a robot drove past them.
    """
    if any(image.path is None for image in source.images):
        return source
    places = [image.place for image in source.images]
    position = np.array([(p.latitude_deg, p.longitude_deg) for p in places]).reshape(-1, 2)
    span = np.array([180.0, 360.0])
    cells = ((position / span + 0.5) * (2**31 - 1)).astype(np.uint64)  # 1 cm
    code = np.zeros(len(cells), np.uint64)
    for bit in range(31):
        for axis in range(2):
            code |= ((cells[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(2 * bit + axis)
    order = sorted(range(len(places)), key=lambda number: (int(code[number]), places[number].name))
    return replace(source, images=tuple(source.images[number] for number in order))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An image at working resolution and, where it is to be stored, its JPEG."""

    source: SourceImage
    image: Image | None
    jpeg: bytes
    problem: str = ""


class _Loader:
    """Reads images ahead in threads, a bounded number of them."""

    def __init__(self, describer: Describer, encode: bool) -> None:
        self._describer = describer
        self._encode = encode
        self._pool = ThreadPoolExecutor(_LOADERS)

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, images: Sequence[SourceImage], ahead: int) -> Iterator[_Loaded]:
        waiting: deque[Future[_Loaded]] = deque()
        for image in images:
            waiting.append(self._pool.submit(self._load, image))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _load(self, source: SourceImage) -> _Loaded:
        try:
            image = self._describer.prepare(source.read())
        except ImageError as error:
            return _Loaded(source, None, b"", str(error))
        jpeg = b""
        if self._encode:
            bgr = np.ascontiguousarray(image[:, :, ::-1])
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        return _Loaded(source, image, jpeg)


def _append(
    writer: SegmentWriter,
    batch: Sequence[_Loaded],
    descriptors: NDArray[np.float32],
    local_features: NDArray[np.float16],
    copy_images: bool,
) -> None:
    skipped = []
    for loaded in batch:
        if loaded.image is None:
            _log.warning("skipped: %s", loaded.problem)
            skipped.append(Skipped(loaded.source.place.name, "unreadable"))
    readable = [loaded for loaded in batch if loaded.image is not None]
    for loaded, descriptor in zip(readable, descriptors, strict=True):
        if not np.isfinite(descriptor).all():
            raise ModelError(f"the model's descriptor of {loaded.source.place.name} has NaN or infinite values")
    rows = []
    for number, loaded in enumerate(readable, start=len(writer.rows)):
        path = None if copy_images else loaded.source.path
        rows.append(_refer_to_image(loaded, path.resolve()) if path else _store_image(writer, number, loaded))
    writer.append(rows, skipped, descriptors, local_features)


def _store_image(writer: SegmentWriter, number: int, loaded: _Loaded) -> Row:
    path = writer.image_path(number)
    path.write_bytes(loaded.jpeg)
    digest = hashlib.blake2b(loaded.jpeg, digest_size=16).hexdigest()
    return Row(loaded.source.place, loaded.source.split, f"{IMAGES}/{path.name}", len(loaded.jpeg), digest)


def _refer_to_image(loaded: _Loaded, path: Path) -> Row:
    return Row(loaded.source.place, loaded.source.split, str(path), path.stat().st_size, checksum(path))


def _batches(items: Iterable[_Loaded], size: int) -> Iterator[list[_Loaded]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def identity_of(source: Source) -> str:
    """Digest of names and positions: the same source gives the same one in another run."""
    digest = hashlib.blake2b(digest_size=16)
    for image in source.images:
        digest.update(json.dumps(Row(image.place, image.split, "", 0, "").to_text()).encode())
    return digest.hexdigest()


def _unfinished(gallery: Path, plan: Mapping[str, Any], named: Collection[str]) -> Path | None:
    """Return the segment that a run with this plan left unfinished, or finished but not named in the manifest."""
    folders = [
        path for path in (gallery / SEGMENTS).glob("*") if path.name not in named and read_plan(path) == plan
    ]
    if not folders:
        return None
    found = max(folders)
    if found.suffix == _PARTIAL:
        return found
    return found.rename(found.with_name(found.name + _PARTIAL))


def _new_folder(gallery: Path) -> Path:
    """Make a folder whose number nobody else has: other parts of the same build may do so at the same time."""
    root = gallery / SEGMENTS
    root.mkdir(exist_ok=True)
    with in_turn(gallery):
        taken = [int(path.stem) for path in root.glob("*") if path.stem.isdecimal()]
        new = root / f"{max(taken, default=0) + 1:04d}{_PARTIAL}"
        new.mkdir()
    return new
