"""``gallery.json``: the one file that says what a gallery is. It is replaced whole, so a gallery is always whole.

A gallery is a folder::

    gallery.json           format, model, segments with the checksums of their files, removed names
    segments/0001/         written once, never changed
        descriptors.npy        (N, D) float32
        local_features.npy     (N, C, 15, 15) float16, or compressed: see :mod:`geowarp_ros.gallery.local`
        places.csv             one row per image: position, and the image's file, size and checksum
        places.npy             the same positions and where each row begins; absent before format 2
        images/000000.jpg …    at working resolution, unless referenced
    index/0001/            of the descriptors, if there is one: see :mod:`geowarp_ros.gallery.index.indexing`
    segments/0002.partial/ being written, see :mod:`geowarp_ros.gallery.making.segment`
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from geowarp_ros import __version__
from geowarp_ros.config import Section, first_problem
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.compressed import Kind
from geowarp_ros.gallery.local import Form
from geowarp_ros.lab.baselines.densevlad import DenseVladConfig
from geowarp_ros.model.geowarp import ModelConfig

FORMAT = "geowarp-gallery"
FORMAT_VERSION = 2
MANIFEST = "gallery.json"
SEGMENTS = "segments"
INDEX = "index"
_LOCK = ".lock"


class StoredFile(Section):
    """One file of a segment or an index."""

    size: int = Field(ge=0, description="Bytes.")
    blake2b: str = Field(description="Checksum, 32 hex digits.")


class Segment(Section):
    """A folder of images that were added together."""

    name: str = Field(pattern=r"^\d{4,}$", description="Its folder under segments/.")
    images: int = Field(ge=1, description="Rows, the removed ones included.")
    image_bytes: int = Field(ge=0, description="Size of the stored images together.")
    source: str = Field(description="Where they came from, for people.")
    copied: bool = Field(description="Whether images lie here; else the source's files are referenced.")
    options: dict[str, str] = Field(description="How the source was read and the images described.")
    created: str = Field(description="UTC, ISO 8601.")
    files: dict[str, StoredFile] = Field(description="Name -> size and checksum.")
    local_features: Form = Field("half", description="How the local features are stored.")
    removed: tuple[str, ...] = Field((), description="Names that no longer count.")


class StoredModel(Section):
    """The model whose descriptors these are."""

    fingerprint: str
    config: ModelConfig | DenseVladConfig
    descriptor_dim: int = Field(ge=1)
    channels: int = Field(ge=1)


class IndexedSegment(Section):
    """A segment as it was when it was indexed."""

    name: str
    images: int = Field(ge=1, description="Rows, the removed ones included.")
    descriptors_blake2b: str = Field(description="Checksum of the descriptors that were indexed.")


class StoredIndex(Section):
    """What finds the nearest descriptors, where that is not a comparison with all of them as they are."""

    name: str = Field(pattern=r"^\d{4,}$", description="Its folder under index/.")
    kind: Kind
    segments: tuple[IndexedSegment, ...] = Field(description="The gallery's first ones, whose rows it numbers.")
    whitened: int = Field(0, ge=0, description="Dimensions that PCA-whitening keeps; 0: not whitened.")
    on_disk: bool = Field(False, description="Whether inverted lists stay there.")
    effort: int = Field(0, ge=0, description="Inverted lists visited, or nodes of the graph kept in view.")
    shortlist: int = Field(0, ge=0, description="Rows whose distances are measured.")
    recall: float = Field(1.0, ge=0.0, le=1.0, description="Share of the 20 nearest that it finds.")
    created: str = Field(description="UTC, ISO 8601.")
    files: dict[str, StoredFile] = Field(description="Name -> size and checksum.")

    @property
    def rows(self) -> int:
        """Number of rows it numbers."""
        return sum(segment.images for segment in self.segments)


class Manifest(Section):
    """What gallery.json holds."""

    format: Literal["geowarp-gallery"] = "geowarp-gallery"
    format_version: int = FORMAT_VERSION
    tool: str = f"geowarp_ros {__version__}"
    created: str
    modified: str
    model: StoredModel
    segments: tuple[Segment, ...] = ()
    index: StoredIndex | None = None

    @property
    def images(self) -> int:
        """Number of images, without the removed ones."""
        return sum(segment.images - len(segment.removed) for segment in self.segments)


def read_manifest(folder: Path) -> Manifest:
    """Read ``folder``'s manifest.

    Raises:
        GalleryError: No gallery, a newer format, or a manifest that is truncated or edited.
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
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise GalleryError(f"{path}: {first_problem(error)}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace ``folder``'s manifest in one step, after everything it names is on the disk."""
    manifest = manifest.model_copy(update={"format_version": FORMAT_VERSION})
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)
    sync(folder)


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
    """Hold the gallery's lock; a failure of the disk within becomes one line.

    Args:
        folder: The gallery's.
        part: Of a build by several processes: those of other parts may write at the same time, nobody else.

    Raises:
        GalleryError: Another process writes there, no permission, a full disk.
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
    """Wait until no other part of a build by several processes is in here."""
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
