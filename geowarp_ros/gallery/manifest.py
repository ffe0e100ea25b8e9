"""``gallery.json``, the manifest of a gallery. A change replaces it in one step, so a gallery is always whole.

A gallery is a folder::

    gallery.json           format, model, segments with the checksums of their files, removed names
    segments/0001/         written once, never changed but by an upgrade, which adds files and then drops old ones
        descriptors.npy        (N, D) float32
        local_features.npy     (N, C, 15, 15) float16, or compressed: see :mod:`geowarp_ros.gallery.local`
        places.csv             one row per image: position, and the image's file, size and checksum
        places.npy             the same positions and the byte offset of each row; absent before format 2
        keypoints.npy …        ragged, and the cameras: :mod:`geowarp_ros.gallery.photographs`; since format 3
        images/000000.jpg …    at working resolution, unless referenced
        0123456789abcdef/      descriptors and local features by another model than the first, by its fingerprint
    index/0001/            compressed index, if there is one: see :mod:`geowarp_ros.gallery.index.indexing`
    alignment/0001/        the photographs' own poses, if aligned: see :mod:`geowarp_ros.gallery.alignment.stored`
    segments/0002.partial/ being written: see :mod:`geowarp_ros.gallery.making.segment`
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from geowarp_ros import __version__
from geowarp_ros.cameras import Camera
from geowarp_ros.config import Section, first_problem
from geowarp_ros.errors import GalleryError
from geowarp_ros.files import quoted, write_whole
from geowarp_ros.gallery.index.compressed import Kind
from geowarp_ros.gallery.local import Form
from geowarp_ros.keypoints.detector import KeypointConfig

FORMAT = "geowarp-gallery"
FORMAT_VERSION = 3
MANIFEST = "gallery.json"
CALIBRATION = "calibration.json"
SEGMENTS = "segments"
INDEX = "index"
ALIGNMENT = "alignment"
DESCRIPTORS = "descriptors.npy"
PLACES = "places.csv"
POSITIONS_FILE = "places.npy"
IMAGES = "images"
_LOCK = ".lock"


class StoredFile(Section):
    """A file of a segment or an index."""

    size: int = Field(ge=0, description="Size in bytes.")
    blake2b: str = Field(description="BLAKE2b checksum, 32 hex digits.")

    @classmethod
    def of(cls, path: Path) -> StoredFile:
        """Return size and checksum of a file, after its content is on the disk."""
        sync(path)
        return cls(size=path.stat().st_size, blake2b=checksum(path))


class Segment(Section):
    """A folder of images that were added together."""

    name: str = Field(pattern=r"^\d{4,}$", description="Folder under segments/.")
    images: int = Field(ge=1, description="Number of rows, including removed ones.")
    image_bytes: int = Field(ge=0, description="Size of all images in bytes.")
    source: str = Field(description="Description of the source, for people.")
    copied: bool = Field(description="Whether the images are stored here; otherwise the source's are referenced.")
    options: dict[str, str] = Field(description="Options of the reader and the model, for people.")
    created: str = Field(description="Time of creation, UTC, ISO 8601.")
    files: dict[str, StoredFile] = Field(description="Size and checksum of each file, by name.")
    local_features: Form = Field("half", description="Storage form of the local features.")
    removed: tuple[str, ...] = Field((), description="Names of removed images.")

    def of_model(self, name: str) -> str:
        """Return the entry in ``files`` of what the model made: one after the first has its own folder."""
        folders = (known.removesuffix(DESCRIPTORS) for known in self.files if known.endswith(f"/{DESCRIPTORS}"))
        return next(folders, "") + name


class StoredModelConfig(Section):
    """Configuration of a model: the entries that a gallery needs, and all others as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    encoder: str = Field(description="Name of the encoder.")
    aggregation: str = Field(description="Name of the aggregation.")
    resolution: int = Field(ge=0, description="Shorter side of images at working resolution, px; 0: not resized.")


def _entries(config: Any) -> Any:
    return config.model_dump() if isinstance(config, Section) else config


class StoredModel(Section):
    """The model that made the descriptors."""

    fingerprint: str
    config: Annotated[StoredModelConfig, BeforeValidator(_entries)]
    descriptor_dim: int = Field(ge=1)
    channels: int = Field(ge=1)
    file: str = Field("", description="Its file, see model.installed.noted_file; empty: not noted.")


def _with_contrast(keypoints: Any) -> Any:
    """Earlier versions detected keypoints with a contrast threshold that they did not name."""
    return {"contrast": 0.04} | keypoints if isinstance(keypoints, dict) else keypoints


class IndexedSegment(Section):
    """A segment at the time it was indexed."""

    name: str
    images: int = Field(ge=1, description="Number of rows, including removed ones.")
    descriptors_blake2b: str = Field(description="Checksum of its descriptors.")


class StoredIndex(Section):
    """A compressed index."""

    name: str = Field(pattern=r"^\d{4,}$", description="Folder under index/.")
    kind: Kind
    segments: tuple[IndexedSegment, ...] = Field(description="Segments indexed: the gallery's first ones.")
    on_disk: bool = Field(False, description="Whether inverted lists stay on the disk.")
    effort: int = Field(ge=1, description="Inverted lists visited, or graph nodes kept in view, per query.")
    shortlist: int = Field(ge=1, description="Number of rows whose distances are measured, per query.")
    recall: float = Field(ge=0.0, le=1.0, description="Share of the 20 nearest that it finds.")
    created: str = Field(description="Time of creation, UTC, ISO 8601.")
    files: dict[str, StoredFile] = Field(description="Size and checksum of each file, by name.")

    @property
    def rows(self) -> int:
        """Number of rows indexed, including removed ones."""
        return sum(segment.images for segment in self.segments)


class AlignedSegment(Section):
    """A segment at the time it was aligned."""

    name: str
    images: int = Field(ge=1, description="Number of rows, including removed ones.")
    keypoints_blake2b: str = Field(description="Checksum of its keypoints' descriptors.")
    cameras_blake2b: str | None = Field(None, description="Checksums of its cameras' files; null: not noted.")


class SuspiciousTag(Section):
    """A tag that the geometry contradicts."""

    name: str = Field(description="The photograph.")
    off_m: float = Field(description="Distance of the tag from where the photograph was taken (m).")


class AlignmentSummary(Section):
    """What an alignment found, for people."""

    photographs: int = Field(description="Number of photographs, without removed ones.")
    tied: int = Field(description="Number of those whose own pose is known.")
    components: tuple[int, ...] = Field((), description="Photographs of each group of tied ones, largest first.")
    residual_m: float | None = Field(None, description="Median distance of tied photographs from their tags (m).")
    tag_std_m: float | None = Field(None, description="Standard deviation of the tags that was found (m).")
    suspicious: tuple[SuspiciousTag, ...] = Field((), description="Tags that are wrong, the worst first.")
    headings: int = Field(0, description="Number of headings found where the tags gave none.")
    points: int = Field(0, description="Number of triangulated points.")
    reprojection_px: float | None = Field(None, description="Median reprojection error (px).")
    pairs: int = Field(0, description="Number of pairs of photographs that see the same.")
    lines: tuple[str, ...] = Field((), description="What there is to say.")
    seconds: float = Field(0.0, description="Duration (s).")


_Latitude: TypeAlias = Annotated[float, Field(ge=-90.0, le=90.0)]
_Longitude: TypeAlias = Annotated[float, Field(ge=-180.0, le=180.0)]
Datum: TypeAlias = tuple[_Latitude, _Longitude, float]
"""Latitude (deg), longitude (deg) and altitude (m) of an origin."""


class StoredAlignment(Section):
    """The photographs' own poses."""

    name: str = Field(pattern=r"^\d{4,}$", description="Folder under alignment/.")
    segments: tuple[AlignedSegment, ...] = Field(description="Segments aligned, in the order of their rows.")
    datum: tuple[float, float, float] = Field(description="Latitude (deg), longitude (deg), altitude (m).")
    options: dict[str, Any] = Field(description="Options of the alignment.")
    summary: AlignmentSummary
    cameras: tuple[Camera, ...] = Field((), description="Cameras that it estimated, at working resolution.")
    created: str = Field(description="Time of creation, UTC, ISO 8601.")
    files: dict[str, StoredFile] = Field(description="Size and checksum of each file, by name.")


class Manifest(Section):
    """Content of ``gallery.json``."""

    format: Literal["geowarp-gallery"] = "geowarp-gallery"
    format_version: int = FORMAT_VERSION
    tool: str = f"geowarp_ros {__version__}"
    created: str
    modified: str
    model: StoredModel
    segments: tuple[Segment, ...] = ()
    keypoints: Annotated[KeypointConfig | None, BeforeValidator(_with_contrast)] = Field(
        None, description="Keypoints of its photographs; null: none stored."
    )
    index: StoredIndex | None = None
    alignment: StoredAlignment | None = None
    datum: Datum | None = Field(
        None, description="Origin of the map frame; null: the middle of the gallery's extent, wherever that moves."
    )

    @property
    def images(self) -> int:
        """Number of images, without removed ones."""
        return sum(segment.images - len(segment.removed) for segment in self.segments)


def read_manifest(folder: Path, *, with_index: bool = True) -> Manifest:
    """Read the manifest of the gallery in ``folder``.

    Args:
        folder: Folder of the gallery.
        with_index: False ignores the index.

    Raises:
        GalleryError: There is no gallery, its format is newer, its manifest is truncated or edited, or its index
            is of PCA-whitened descriptors, which earlier versions could make.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise GalleryError(f"{folder}: {_what_it_is(folder)}, expected a gallery (a folder with {MANIFEST})")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GalleryError(f"{path}: is truncated or no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise GalleryError(f"{path}: is not a gallery's manifest, expected format {FORMAT!r}")
    version = values.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise GalleryError(
            f"{path}: format_version is {version!r}, this geowarp_ros reads up to {FORMAT_VERSION}; update it"
        )
    index = values.get("index")
    if not with_index:
        values["index"] = None
    elif isinstance(index, dict) and index.pop("whitened", 0) != 0:
        raise GalleryError(
            f"{path}: its index is of PCA-whitened descriptors, which are no longer supported; make it again"
            f" (geowarp gallery index {quoted(folder)}), then calibrate again if it was calibrated"
            " (geowarp calibrate)"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise GalleryError(f"{path}: {first_problem(error)}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step, after every file that it names is on the disk.

    Raises:
        GalleryError: It cannot be written.
    """
    manifest = manifest.model_copy(update={"format_version": FORMAT_VERSION})
    write_whole(folder / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n", GalleryError)
    sync(folder)


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def sync(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """Return the BLAKE2b of a file, 16 bytes as hex."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def writing(folder: Path, part: str = "") -> Iterator[None]:
    """Hold the lock of a gallery while it is changed.

    Args:
        folder: Folder of the gallery; made if absent.
        part: Name of this part of a build by several processes, which share the lock; empty: hold it alone.

    Raises:
        GalleryError: Another process holds it, or the disk refuses: no permission, no space.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            _lock(locks, folder, _LOCK, fcntl.LOCK_SH if part else fcntl.LOCK_EX)
            if part:
                _lock(locks, folder, f"{_LOCK}.{part}", fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise GalleryError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error};"
            " nothing that was there is lost, and a second run goes on where this one stopped"
        ) from None


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Let one process of a build at a time in; wait for the others."""
    with (folder / f"{_LOCK}.turn").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock(locks: ExitStack, folder: Path, name: str, how: int) -> None:
    file = locks.enter_context((folder / name).open("w"))
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GalleryError(f"{folder}: another process is writing to this gallery; wait for it") from None


def _what_it_is(folder: Path) -> str:
    if (folder / SEGMENTS).is_dir():
        return "has an unfinished gallery (build it again to go on)"
    if not folder.exists():
        return "does not exist"
    return "has no gallery in it" if folder.is_dir() else "is a file"
