"""Filling a segment: images are read, described and stored, batch by batch."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError, GalleryError, ImageError, ModelError, SourceError
from geowarp_ros.gallery.files import next_folder
from geowarp_ros.gallery.local import Form
from geowarp_ros.gallery.making.segment import Batch, SegmentWriter, read_plan
from geowarp_ros.gallery.manifest import IMAGES, SEGMENTS, Segment, checksum, in_turn, now, sync
from geowarp_ros.gallery.places import Row
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.progress import Progress
from geowarp_ros.readers import Skipped, Source, SourceImage
from geowarp_ros.types import Image

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer

T = TypeVar("T")
U = TypeVar("U")

JPEG_QUALITY = 95
LOADERS = 2  # threads that read and decode while the network describes
_PARTIAL = ".partial"

_log = logging.getLogger(__name__)


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
    keypoints: KeypointConfig | None,
    part_of: str = "",
    options: Mapping[str, str],
    progress: Progress,
) -> tuple[Segment, int, list[Skipped]]:
    """Write a segment, or go on with the one that a stopped run with the same source and model left.

    Args:
        source: Images in the order of :func:`by_place`.
        describer: The model.
        gallery: Folder of the gallery, locked.
        named: Segments that the manifest names; they are left alone, and their names are not used again.
        copy_images: Store the images at working resolution; False references the source's files.
        batch_size: Images described at once.
        form: Storage form of the local features.
        codebook: Codebook of the gallery's earlier segments, for ``pq``; None learns one.
        keypoints: Keypoints of the gallery; None stores none.
        part_of: Identity of the part in a build by several processes, otherwise empty.
        options: Options of the reader and the model, stored for people.
        progress: Shows the images described.

    Returns:
        Entry of the segment for the manifest, number of images that the stopped run had described, images that
        could not be read.

    Raises:
        SourceError: There is no image, or none that can be read.
        GalleryError: The source's images are no files that could be referenced.
        ModelError: A descriptor is not finite, or XFeat's weights were not loaded.
        CameraError: An image's camera is not of that image.
    """
    if not source.images:
        raise SourceError(f"{source.description}: no usable image")
    if not copy_images and any(image.path is None for image in source.images):
        raise GalleryError(
            f"{source.description}: its images have no files to refer to; store them in the gallery instead"
        )
    if keypoints:
        KeypointDetector(keypoints)  # refuses weights that are not loaded before anything is written
    plan = {
        "fingerprint": describer.fingerprint,
        "source": identity_of(source),
        "images": len(source.images),
        "copied": copy_images,
        "keypoints": keypoints and keypoints.model_dump(),
        "part_of": part_of,
    }
    folder = _unfinished(gallery, plan, named) or _new_folder(gallery, named)
    model = describer.model
    writer = SegmentWriter(folder, model.descriptor_dim, model.channels, keypoints)
    writer.start(plan)
    resumed = len(writer.rows)
    if writer.done:
        _log.info("%s: going on after %d of %d images", gallery, writer.done, len(source.images))
    todo = source.images[writer.done :]
    loading = _load(todo, describer, keypoints, copy_images, 2 * batch_size)
    with closing(loading) as ahead, ThreadPoolExecutor(1) as behind:
        loaded = iter(progress(ahead, len(todo), "describing images"))
        written: Future[None] | None = None
        while batch := list(islice(loaded, batch_size)):
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
        created=now(),
        files=files,
        local_features=form,
    )
    return segment, resumed, writer.skipped


def by_place(source: Source) -> Source:
    """Sort the images along a Z-curve over the ground (Morton order), names breaking ties.

    Neighbours on the ground are then neighbours in the files, so a search in a circle reads few pages. A bag's
    images keep their order, in which they are quickest to read and in which the robot passed them.
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
    """An image at working resolution, with its JPEG where it is to be stored; None where it cannot be read."""

    source: SourceImage
    image: Image | None
    jpeg: bytes = b""
    keypoints: Keypoints | None = None
    camera: Camera | None = None


def _load(
    images: Iterable[SourceImage], describer: Describer, config: KeypointConfig | None, encode: bool, ahead: int
) -> Generator[_Loaded, None, None]:
    """Read images and detect their keypoints in threads, at most ``ahead`` of them in advance."""

    def load(source: SourceImage) -> _Loaded:
        try:
            original = source.read()
        except ImageError as error:
            _log.warning("skipped: %s", error)
            return _Loaded(source, None)
        image = describer.prepare(original)
        height, width = image.shape[:2]
        try:
            camera = source.camera_at(width, height)
        except (
            CameraError
        ) as error:  # a photograph without its camera would answer by cluster, for no visible reason
            raise CameraError(f"{source.place.name}: {error}") from None
        # a detector of its own: making one costs nothing, and none serves two threads
        keypoints = KeypointDetector(config)(original, width, height) if config else None
        return _Loaded(source, image, _encoded(image) if encode else b"", keypoints, camera)

    return load_ahead(load, images, ahead)


def load_ahead(load: Callable[[T], U], items: Iterable[T], ahead: int) -> Generator[U, None, None]:
    """Load items in threads and in order, at most ``ahead`` of them in advance; to be closed."""
    with ThreadPoolExecutor(LOADERS) as pool:
        waiting: deque[Future[U]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _encoded(image: Image) -> bytes:
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _append(
    writer: SegmentWriter,
    batch: Sequence[_Loaded],
    descriptors: NDArray[np.float32],
    local_features: NDArray[np.float16],
    copy_images: bool,
) -> None:
    skipped = [Skipped(loaded.source.place.name, "unreadable") for loaded in batch if loaded.image is None]
    readable = [loaded for loaded in batch if loaded.image is not None]
    check_finite([loaded.source.place.name for loaded in readable], descriptors)
    rows = []
    for number, loaded in enumerate(readable, start=len(writer.rows)):
        path = None if copy_images else loaded.source.path
        rows.append(_refer_to_image(loaded, path.resolve()) if path else _store_image(writer, number, loaded))
    keypoints = [loaded.keypoints for loaded in readable if loaded.keypoints is not None]
    cameras = [loaded.camera for loaded in readable]
    writer.append(Batch(rows, skipped, descriptors, local_features, keypoints, cameras))


def check_finite(names: Sequence[str], descriptors: NDArray[np.float32]) -> None:
    """Refuse a batch if the descriptor of one of the images ``names`` is not finite."""
    for name, descriptor in zip(names, descriptors, strict=True):
        if not np.isfinite(descriptor).all():
            raise ModelError(f"the model's descriptor of {name} has NaN or infinite values")


def _store_image(writer: SegmentWriter, number: int, loaded: _Loaded) -> Row:
    name = f"{IMAGES}/{number:06d}.jpg"
    (writer.folder / name).write_bytes(loaded.jpeg)
    digest = hashlib.blake2b(loaded.jpeg, digest_size=16).hexdigest()
    return Row(loaded.source.place, loaded.source.split, name, len(loaded.jpeg), digest)


def _refer_to_image(loaded: _Loaded, path: Path) -> Row:
    return Row(loaded.source.place, loaded.source.split, str(path), path.stat().st_size, checksum(path))


def identity_of(source: Source) -> str:
    """Return a digest of names, positions and cameras, equal for the same source in another run."""
    digest = hashlib.blake2b(digest_size=16)
    for image in source.images:
        digest.update(json.dumps(Row(image.place, image.split, "", 0, "").to_text()).encode())
        digest.update(repr(image.camera).encode())
    return digest.hexdigest()


def _unfinished(gallery: Path, plan: Mapping[str, Any], named: Collection[str]) -> Path | None:
    """Return the segment that a run with this plan left unfinished, or finished but not named in the manifest."""
    folders = [
        path for path in (gallery / SEGMENTS).glob("*") if path.name not in named and read_plan(path) == plan
    ]
    if not folders:
        return None
    found = max(folders)
    return found if found.suffix == _PARTIAL else found.rename(found.with_name(found.name + _PARTIAL))


def _new_folder(gallery: Path, named: Collection[str]) -> Path:
    """Make a folder whose number nobody else has: other parts of the same build may do so at the same time."""
    root = gallery / SEGMENTS
    root.mkdir(exist_ok=True)
    with in_turn(gallery):
        new = next_folder(root, named).with_suffix(_PARTIAL)
        new.mkdir()
    return new
