"""Making a gallery, adding to it, removing from it. Whatever happens, the gallery that was there stays whole."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError, SourceError, did_you_mean
from geowarp_ros.gallery.index.indexing import IndexOptions, make_index
from geowarp_ros.gallery.local import CODEBOOK, Form
from geowarp_ros.gallery.making.filling import Filled, by_place, fill_segment, identity_of
from geowarp_ros.gallery.making.segment import forget_journal
from geowarp_ros.gallery.making.shards import ALONE, Shard, finished_shards, note_finished
from geowarp_ros.gallery.manifest import (
    INDEX,
    MANIFEST,
    SEGMENTS,
    Manifest,
    Segment,
    StoredIndex,
    StoredModel,
    in_turn,
    read_manifest,
    write_manifest,
    writing,
)
from geowarp_ros.gallery.store import Gallery, check_model
from geowarp_ros.integrity.calibration import CALIBRATION_FILE
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped, Source

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Attributes:
        gallery: Its folder.
        images: In the gallery now.
        added: Of them by this build, the resumed ones included.
        resumed: Taken over from a run that was stopped.
        skipped: What was left out, by the source and because it could not be read.
        seconds: How long it took.
        missing: Parts of a build by several processes that are not whole yet; until then there is no new gallery.
    """

    gallery: Path
    images: int
    added: int
    resumed: int
    skipped: tuple[Skipped, ...]
    seconds: float
    missing: int = 0


def build_gallery(
    source: Source,
    describer: Describer,
    output: Path,
    *,
    copy_images: bool = True,
    batch_size: int = 16,
    local_features: Form = "half",
    index: IndexOptions | None = None,
    replace_existing: bool = False,
    shard: Shard = ALONE,
    options: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> BuildReport:
    """Describe and store the images of ``source`` as a new gallery.

    Stopped at any moment and started again with the same source and model, it goes on after its last batch.

    Args:
        source: As :func:`geowarp_ros.readers.read_source` returns it.
        describer: The model.
        output: The gallery's folder.
        copy_images: Store the images at working resolution; False refers to the source's files.
        batch_size: Images described at once.
        local_features: How they are stored; images that are added later follow.
        index: Which index it gets; None: by its size.
        replace_existing: Put the new gallery in the place of the one there, once it is complete.
        shard: This process's part, where several build together (:mod:`geowarp_ros.gallery.making.shards`).
        options: How the source was read, kept for people.
        progress: Shows the images described.

    Raises:
        SourceError: No image, or none that can be read.
        GalleryError: There is a gallery already, another process writes there, or the disk refuses.
        ModelError: The model makes descriptors that are not finite.
    """
    started = time.monotonic()
    _check_output(output)
    source = by_place(source)
    with writing(output, f"{shard.index}-{shard.count}" if shard.count > 1 else ""):
        here = read_manifest(output) if (output / MANIFEST).exists() else None
        if here and not replace_existing:
            raise GalleryError(
                f"{output}: has a gallery of {here.images} images already;"
                " add to it, replace it (--replace), or choose another folder"
            )
        part = shard.part(source, batch_size)
        build = f"{identity_of(source)} by {describer.fingerprint}, {batch_size} at once" if shard != ALONE else ""
        filled = fill_segment(
            part,
            describer,
            output,
            [segment.name for segment in here.segments] if here else [],
            copy_images=copy_images,
            batch_size=batch_size,
            form=local_features,
            part_of=f"{build}, {shard}" if build else "",
            options=options or {},
            progress=progress,
        )
        model = StoredModel(
            fingerprint=describer.fingerprint,
            config=describer.model.config,
            descriptor_dim=describer.model.descriptor_dim,
            channels=describer.model.channels,
        )
        manifest = Manifest(created=_now(), modified=_now(), model=model, segments=(filled.segment,))
        if shard == ALONE:
            _commit(output, _indexed(output, manifest, index or IndexOptions(), progress))
            return _report(manifest, filled, output, part, started)
        build = f"{build}, {shard.count} parts"
        note_finished(output, build, shard, filled.segment)
        with in_turn(output):
            segments = finished_shards(output, build)
            missing = 0 if _is_named(output, filled.segment) else shard.count - len(segments)
            if len(segments) == shard.count:
                whole = tuple(segments[number] for number in sorted(segments))
                manifest = manifest.model_copy(update={"segments": whole})
                _commit(output, _indexed(output, manifest, index or IndexOptions(), progress))
    return replace(_report(manifest, filled, output, part, started), missing=missing)


def _is_named(gallery: Path, segment: Segment) -> bool:
    """Whether the gallery has this segment already: another part of the build, finished meanwhile, saw to it."""
    return (gallery / MANIFEST).exists() and segment in read_manifest(gallery).segments


def add_to_gallery(
    source: Source,
    describer: Describer,
    gallery: Path,
    *,
    prefix: str = "",
    copy_images: bool = True,
    batch_size: int = 16,
    options: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> BuildReport:
    """Add the images of ``source`` to a gallery; those that are in it already are skipped.

    An index stays as it is: what is added is searched exactly beside it, until :func:`index_gallery` takes it in.

    Args:
        source: As :func:`geowarp_ros.readers.read_source` returns it.
        describer: The model that made the gallery.
        gallery: Its folder.
        prefix: Put before each name with a slash; two sources may use the same names.
        copy_images: As in :func:`build_gallery`, likewise the rest.
        batch_size: Images described at once.
        options: How the source was read, kept for people.
        progress: Shows the images described.

    Raises:
        GalleryError: Another model's gallery, or a name that is in it with another position; and as
            :func:`build_gallery`.
        SourceError: No new image, or none that can be read.
    """
    started = time.monotonic()
    read_manifest(gallery)  # before the lock's file is made in what may be no gallery
    with writing(gallery):
        manifest = read_manifest(gallery)
        check_model(gallery, manifest, describer.fingerprint)
        new = _only_new(source, Gallery.open(gallery), prefix)
        filled = fill_segment(
            new,
            describer,
            gallery,
            [segment.name for segment in manifest.segments],
            copy_images=copy_images,
            batch_size=batch_size,
            form=manifest.segments[-1].local_features if manifest.segments else "half",
            codebook=_codebook(gallery, manifest),
            options=options or {},
            progress=progress,
        )
        segments = (*manifest.segments, filled.segment)
        manifest = manifest.model_copy(update={"modified": _now(), "segments": segments})
        _commit(gallery, manifest)
    return _report(manifest, filled, gallery, new, started)


def remove_from_gallery(gallery: Path, names: Sequence[str]) -> int:
    """Remove images by name; returns how many are left.

    The rest of the files stays as it is; a segment of which nothing is left is deleted, unless the gallery's index
    numbers its rows: then the next :func:`index_gallery` does.

    Raises:
        GalleryError: A name that is not in the gallery (nothing is removed then), and as :func:`build_gallery`.
    """
    read_manifest(gallery)
    with writing(gallery):
        manifest = read_manifest(gallery)
        opened = Gallery.open(gallery)
        there = {place.name for place in opened.places}
        unknown = [name for name in names if name not in there]
        if unknown:
            raise GalleryError(
                f"{gallery}: has no image {unknown[0]!r}{did_you_mean(unknown[0], there)};"
                f" {len(unknown)} of {len(names)} names are not in it, nothing was removed"
            )
        segments = []
        indexed = len(manifest.index.segments) if manifest.index else 0
        for number, (segment, here) in enumerate(zip(manifest.segments, opened.names_by_segment, strict=True)):
            gone = set(names) & set(here)
            if len(gone) < len(here) or number < indexed:
                removed = tuple(sorted({*segment.removed, *gone}))
                segments.append(segment.model_copy(update={"removed": removed}))
        _commit(gallery, manifest.model_copy(update={"modified": _now(), "segments": tuple(segments)}))
    return len(there) - len(set(names))


def index_gallery(gallery: Path, options: IndexOptions, progress: Progress = silent) -> StoredIndex | None:
    """Index a gallery anew, or let it go without an index; returns what it has then.

    Raises:
        GalleryError: As :func:`geowarp_ros.gallery.index.indexing.make_index` and :func:`build_gallery`.
    """
    read_manifest(gallery)
    with writing(gallery):
        manifest = read_manifest(gallery)
        _check_calibration(gallery, manifest.index.whitened if manifest.index else 0, options.whitened)
        segments = tuple(s for s in manifest.segments if len(s.removed) < s.images)
        manifest = manifest.model_copy(update={"modified": _now(), "segments": segments})
        manifest = _indexed(gallery, manifest, options, progress)
        _commit(gallery, manifest)
    return manifest.index


def _check_calibration(gallery: Path, before: int, after: int) -> None:
    """Refuse to change distances under a calibration that was measured with them."""
    calibration = gallery / CALIBRATION_FILE
    if before != after and calibration.exists():
        raise GalleryError(
            f"{calibration}: was measured with descriptors whitened to {before} dimensions (0: not at all),"
            f" and {after} would change their distances; delete it, and calibrate again afterwards"
        )


def _indexed(gallery: Path, manifest: Manifest, options: IndexOptions, progress: Progress) -> Manifest:
    """Return the manifest with a new index, whose files are written."""
    opened = Gallery.of_manifest(gallery, manifest.model_copy(update={"index": None}))
    index = make_index(gallery, manifest.segments, opened.stored, opened.numbers, options, progress)
    return manifest.model_copy(update={"index": index})


def _codebook(gallery: Path, manifest: Manifest) -> NDArray[np.float32] | None:
    if not manifest.segments or manifest.segments[-1].local_features != "pq":
        return None
    codebook: NDArray[np.float32] = np.load(
        gallery / SEGMENTS / manifest.segments[-1].name / CODEBOOK, allow_pickle=False
    )
    return codebook


def _check_output(output: Path) -> None:
    """Refuse a folder that holds something else; a stopped build's folder has segments and no manifest."""
    if output.exists() and not output.is_dir():
        raise GalleryError(f"{output}: is a file, expected a folder for the gallery")
    if not output.exists() or (output / MANIFEST).exists() or (output / SEGMENTS).exists():
        return
    for path in output.iterdir():
        if not path.name.startswith("."):
            raise GalleryError(
                f"{output}: is no gallery and has {path.name!r} in it; expected a new or empty folder"
            )


def _only_new(source: Source, gallery: Gallery, prefix: str) -> Source:
    there = {place.name: place for place in gallery.places}
    images, skipped = [], list(source.skipped)
    for image in source.images:
        name = f"{prefix.rstrip('/')}/{image.place.name}" if prefix else image.place.name
        place = replace(image.place, name=name)
        known = there.get(name)
        if known is None:
            images.append(replace(image, place=place))
        elif (known.latitude_deg, known.longitude_deg) == (place.latitude_deg, place.longitude_deg):
            skipped.append(Skipped(name, "already in the gallery"))
        else:
            raise GalleryError(
                f"{gallery.path}: has an image {name!r} at {known.latitude_deg:.7f}, {known.longitude_deg:.7f},"
                f" and the new one is at {place.latitude_deg:.7f}, {place.longitude_deg:.7f};"
                " remove the old one first, or give the new ones a prefix"
            )
    if not images:
        raise SourceError(
            f"{source.description}: nothing new for {gallery.path}: all its images are in it already"
        )
    return replace(source, images=tuple(images), skipped=tuple(skipped))


def _commit(gallery: Path, manifest: Manifest) -> None:
    """Put the manifest in place, then delete what it does not name."""
    write_manifest(gallery, manifest)
    named = {segment.name: segment.files for segment in manifest.segments}
    with suppress(OSError):  # what stays behind only costs room, and the next change deletes it
        for path in (gallery / SEGMENTS).iterdir():
            if path.name in named:
                forget_journal(path, named[path.name])
            else:
                shutil.rmtree(path)
        for path in (gallery / INDEX).iterdir():
            if manifest.index is None or path.name != manifest.index.name:
                shutil.rmtree(path)


def _report(manifest: Manifest, filled: Filled, gallery: Path, source: Source, started: float) -> BuildReport:
    return BuildReport(
        gallery=gallery,
        images=manifest.images,
        added=filled.segment.images,
        resumed=filled.resumed,
        skipped=(*source.skipped, *filled.skipped),
        seconds=time.monotonic() - started,
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
