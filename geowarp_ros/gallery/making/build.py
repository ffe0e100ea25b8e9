"""Building, extending, thinning and indexing a gallery. Until a change is complete, the old gallery stays."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geowarp_ros.errors import GalleryError, SourceError, did_you_mean
from geowarp_ros.gallery.index.indexing import IndexOptions, make_index
from geowarp_ros.gallery.local import CODEBOOK, Form
from geowarp_ros.gallery.making.filling import by_place, fill_segment, identity_of
from geowarp_ros.gallery.making.segment import forget_journal
from geowarp_ros.gallery.making.shards import ALONE, Shard, finished_shards, note_finished
from geowarp_ros.gallery.manifest import (
    ALIGNMENT,
    CALIBRATION,
    INDEX,
    MANIFEST,
    SEGMENTS,
    Datum,
    Manifest,
    StoredIndex,
    StoredModel,
    in_turn,
    now,
    read_manifest,
    write_manifest,
    writing,
)
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.model.installed import noted_file
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped, Source

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer

DEFAULT_KEYPOINTS = KeypointConfig()


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Result of a build.

    Attributes:
        gallery: Folder of the gallery.
        images: Number of images in the gallery.
        added: Number of images added by this build, resumed ones included.
        resumed: Number of images that an earlier, stopped run had described.
        skipped: Images left out by the source, and images that could not be read.
        seconds: Duration.
        missing: Number of unfinished parts in a build by several processes; above 0 there is no new gallery yet.
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
    keypoints: KeypointConfig | None = DEFAULT_KEYPOINTS,
    index: IndexOptions | None = None,
    replace_existing: bool = False,
    shard: Shard = ALONE,
    options: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> BuildReport:
    """Describe and store the images of ``source`` as a new gallery.

    A stopped build goes on after its last batch when it is started again with the same source and model.
    The origin of the map frame is the middle of the gallery's extent, or that of the gallery that is replaced.

    Args:
        source: Source from :func:`geowarp_ros.readers.read_source`.
        describer: The model.
        output: Folder of the gallery.
        copy_images: Store the images at working resolution; False references the source's files.
        batch_size: Images described at once.
        local_features: Storage form of the local features; later additions keep it.
        keypoints: Keypoints to detect and store, in later additions too; None: none.
        index: Kind of index; None chooses it by size.
        replace_existing: Replace the gallery in ``output`` once the new one is complete.
        shard: Part of this process, in a build by several (:mod:`geowarp_ros.gallery.making.shards`).
        options: Options of the reader and the model, stored for people.
        progress: Shows the images described.

    Raises:
        SourceError: There is no image, or none that can be read.
        GalleryError: There is a gallery already, another process writes to it, or the disk refuses.
        ModelError: A descriptor is not finite.
        CameraError: An image's camera is not of that image.
    """
    started = time.monotonic()
    check_output(output, replace_existing=replace_existing)
    source = by_place(source)
    with writing(output, f"{shard.index}-{shard.count}" if shard.count > 1 else ""):
        here = check_output(output, replace_existing=replace_existing)
        part = shard.part(source, batch_size)
        how = f"by {describer.fingerprint}, {batch_size} at once, {shard.count} parts, keypoints {keypoints}"
        build = f"{identity_of(source)} {how}"
        segment, resumed, unreadable = fill_segment(
            part,
            describer,
            output,
            [segment.name for segment in here.segments] if here else [],
            copy_images=copy_images,
            batch_size=batch_size,
            form=local_features,
            keypoints=keypoints,
            part_of="" if shard == ALONE else f"{build}, {shard}",
            options=options or {},
            progress=progress,
        )
        note_finished(output, build, shard, segment)
        with in_turn(output):
            manifest, missing = _existing(output), 0
            datum = None if manifest is None else manifest.datum  # that of the gallery to replace stays
            if manifest is None or segment not in manifest.segments:  # else another part was the last to finish
                finished = finished_shards(output, build)
                missing = shard.count - len(finished)
                segments = tuple(finished[number] for number in sorted(finished))
                manifest = Manifest(
                    created=now(),
                    modified=now(),
                    model=stored_model(describer, output),
                    segments=segments,
                    keypoints=keypoints,
                )
                if not missing:
                    (output / CALIBRATION).unlink(missing_ok=True)  # that of the gallery to replace
                    datum = datum or Gallery.of_manifest(output, manifest).frame.datum
                    manifest = manifest.model_copy(update={"datum": datum})
                    commit(output, indexed(output, manifest, index or IndexOptions(), progress))
    skipped = (*part.skipped, *unreadable)
    seconds = time.monotonic() - started
    return BuildReport(output, manifest.images, segment.images, resumed, skipped, seconds, missing)


def _existing(gallery: Path) -> Manifest | None:
    return read_manifest(gallery, with_index=False) if (gallery / MANIFEST).exists() else None


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
    """Add the images of ``source`` to a gallery; those that it has already are skipped.

    Its index stays as it is: new images are searched exactly beside it until :func:`index_gallery`.

    Args:
        source: Source from :func:`geowarp_ros.readers.read_source`.
        describer: The model that made the gallery.
        gallery: Folder of the gallery.
        prefix: Put before each name with a slash, for sources that use the same names.
        copy_images: Store the images at working resolution; False references the source's files.
        batch_size: Images described at once.
        options: Options of the reader and the model, stored for people.
        progress: Shows the images described.

    Raises:
        GalleryError: Another model made the gallery, a name is in it at another position, another process writes
            to it, or the disk refuses.
        SourceError: There is no new image, or none that can be read.
        ModelError: A descriptor is not finite.
        CameraError: An image's camera is not of that image.
    """
    started = time.monotonic()
    read_manifest(gallery)  # before the lock's file is made in what may be no gallery
    with writing(gallery):
        opened = Gallery.open(gallery)
        manifest = opened.manifest
        opened.check_model(describer.fingerprint, (options or {}).get("model", "FILE"))
        new = _only_new(source, opened, prefix)
        last = manifest.segments[-1] if manifest.segments else None
        form = last.local_features if last else "half"
        codebook = gallery / SEGMENTS / last.name / last.of_model(CODEBOOK) if last and form == "pq" else None
        named = [segment.name for segment in manifest.segments]
        if manifest.alignment:  # of deleted segments too
            named += [segment.name for segment in manifest.alignment.segments]
        segment, resumed, unreadable = fill_segment(
            by_place(new),
            describer,
            gallery,
            named,
            copy_images=copy_images,
            batch_size=batch_size,
            form=form,
            codebook=np.load(codebook, allow_pickle=False) if codebook else None,
            keypoints=manifest.keypoints,
            options=options or {},
            progress=progress,
        )
        segments = (*manifest.segments, segment)
        manifest = manifest.model_copy(update={"modified": now(), "segments": segments})
        commit(gallery, manifest)
    skipped = (*new.skipped, *unreadable)
    seconds = time.monotonic() - started
    return BuildReport(gallery, manifest.images, segment.images, resumed, skipped, seconds)


def remove_from_gallery(gallery: Path, names: Sequence[str]) -> int:
    """Remove images by name; returns the number of images left.

    Files stay as they are. A segment with nothing left is deleted; one that is indexed, by the next
    :func:`index_gallery`.

    Raises:
        GalleryError: A name is not in the gallery (nothing is removed then), another process writes to it, or the
            disk refuses.
    """
    read_manifest(gallery)
    with writing(gallery):
        opened = Gallery.open(gallery)
        manifest = opened.manifest
        here = [{row.place.name for row in segment.rows()} for segment in opened.segments]
        there = set().union(*here)
        unknown = [name for name in names if name not in there]
        if unknown:
            raise GalleryError(
                f"{gallery}: has no image {unknown[0]!r}{did_you_mean(unknown[0], there)};"
                f" {len(unknown)} of {len(names)} names are not in it, nothing was removed"
            )
        segments, gone = [], set(names)
        indexed = len(manifest.index.segments) if manifest.index else 0
        for number, (segment, in_segment) in enumerate(zip(manifest.segments, here, strict=True)):
            if number < indexed or not in_segment <= gone:
                removed = tuple(sorted({*segment.removed, *(in_segment & gone)}))
                segments.append(segment.model_copy(update={"removed": removed}))
        commit(gallery, manifest.model_copy(update={"modified": now(), "segments": tuple(segments)}))
    return len(there) - len(gone)


def set_datum(gallery: Path, datum: Datum | None = None) -> LocalFrame:
    """Put the origin of a gallery's map frame elsewhere; returns the new map frame.

    Args:
        gallery: Folder of the gallery.
        datum: Latitude (deg), longitude (deg) and altitude (m); None: the middle of the gallery's extent.

    Raises:
        GalleryError: No such position, another process writes to the gallery, or the disk refuses.
    """
    read_manifest(gallery)
    if datum and not (abs(datum[0]) <= 90 and abs(datum[1]) <= 180 and math.isfinite(datum[2])):  # NaN is neither
        raise GalleryError(
            "datum {:g}, {:g}, {:g}: expected a latitude of -90 to 90°, a longitude of -180 to 180° and an"
            " altitude in m".format(*datum)
        )
    with writing(gallery):
        opened = Gallery.open(gallery)
        frame = opened.frame if datum is None else LocalFrame(*datum)
        commit(gallery, opened.manifest.model_copy(update={"modified": now(), "datum": frame.datum}))
    return frame


def index_gallery(gallery: Path, options: IndexOptions, progress: Progress = silent) -> StoredIndex | None:
    """Make the index of a gallery again; returns it, or None where search is exact.

    Raises:
        GalleryError: There are too few images for this kind of index, another process writes to the gallery, or
            the disk refuses.
    """
    read_manifest(gallery, with_index=False)
    with writing(gallery):
        manifest = read_manifest(gallery, with_index=False)
        segments = tuple(s for s in manifest.segments if len(s.removed) < s.images)
        manifest = manifest.model_copy(update={"modified": now(), "segments": segments})
        manifest = indexed(gallery, manifest, options, progress)
        commit(gallery, manifest)
    return manifest.index


def stored_model(describer: Describer, gallery: Path) -> StoredModel:
    """Return the entry for a model in the manifest of the gallery in a folder."""
    return StoredModel(
        fingerprint=describer.fingerprint,
        config=describer.model.config,
        descriptor_dim=describer.model.descriptor_dim,
        channels=describer.model.channels,
        file=noted_file(describer.model.file, gallery),
    )


def indexed(gallery: Path, manifest: Manifest, options: IndexOptions, progress: Progress) -> Manifest:
    """Return the manifest, which has no index yet, with one whose files are written."""
    stored = Gallery.of_manifest(gallery, manifest).stored
    index = make_index(gallery, manifest.segments, stored, options, progress)
    return manifest.model_copy(update={"index": index})


def check_output(output: Path, *, replace_existing: bool) -> Manifest | None:
    """Return the manifest of the gallery that is to be replaced; None without one.

    Raises:
        GalleryError: There is a gallery that is not to be replaced, or something else than a stopped build, which
            has segments and no manifest.
    """
    if output.exists() and not output.is_dir():
        raise GalleryError(f"{output}: is a file, expected a folder for the gallery")
    names = [path.name for path in output.glob("*") if not path.name.startswith(".")]
    if names and MANIFEST not in names and SEGMENTS not in names:
        raise GalleryError(f"{output}: is no gallery and has {names[0]!r} in it; expected a new or empty folder")
    here = _existing(output)
    if here and not replace_existing:
        raise GalleryError(
            f"{output}: has a gallery of {here.images} images already;"
            " add to it, replace it (--replace), or choose another folder"
        )
    return here


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


def commit(gallery: Path, manifest: Manifest) -> None:
    """Put the manifest in place, then delete what it does not name."""
    write_manifest(gallery, manifest)
    named = {segment.name: segment.files for segment in manifest.segments}
    with suppress(OSError):  # what stays behind only costs room, and the next change deletes it
        for path in (gallery / SEGMENTS).iterdir():
            if path.name in named:
                forget_journal(path, named[path.name])
            else:
                shutil.rmtree(path)
        for folder, stored in ((INDEX, manifest.index), (ALIGNMENT, manifest.alignment)):
            for path in (gallery / folder).glob("[0-9]*"):
                if stored is None or path.name != stored.name:
                    shutil.rmtree(path)
