"""A gallery as it is read: files mapped and checked by size, descriptors searched exactly or by an index."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import ESTIMATED, Camera
from geowarp_ros.errors import GalleryError, ImageError
from geowarp_ros.files import quoted
from geowarp_ros.gallery.alignment.aligned import Alignment, Photograph
from geowarp_ros.gallery.alignment.stored import open_alignment
from geowarp_ros.gallery.files import check_size, map_array
from geowarp_ros.gallery.index.indexing import open_index
from geowarp_ros.gallery.index.search import Index, check_queries, search_rows
from geowarp_ros.gallery.local import layout, read_local_features
from geowarp_ros.gallery.manifest import (
    ALIGNMENT,
    DESCRIPTORS,
    INDEX,
    PLACES,
    POSITIONS_FILE,
    SEGMENTS,
    Manifest,
    Segment,
    StoredModel,
    checksum,
    read_manifest,
)
from geowarp_ros.gallery.photographs import (
    KEYPOINT_FILES,
    NO_CAMERA,
    StoredCameras,
    StoredKeypoints,
    photograph_of,
)
from geowarp_ros.gallery.places import POSITIONS, PlaceTable, Row
from geowarp_ros.gallery.rows import RowNumbers, Stacked, among
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import read_image, resize_shorter
from geowarp_ros.keypoints.detector import KeypointConfig, Keypoints
from geowarp_ros.model import GRID
from geowarp_ros.model.installed import OWN, find_noted
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Candidate, Image, Near, Place

if TYPE_CHECKING:  # they take a second: what a gallery holds is told without
    import torch
    from scipy.spatial import cKDTree

SPOT_M = 0.5
"""Distance below which places count as one spot."""

UNKNOWN_SPACING_M = 10.0
"""Spacing of a gallery with one spot only."""

PHOTOGRAPHS_KEPT = 64
"""Number of photographs that stay in memory (0.7 MB each, with 600 keypoints): successive queries see the same."""


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment whose arrays are mapped.

    Attributes:
        folder: Folder of the segment.
        info: Entry of the segment in the manifest.
        table: Its places, including removed ones.
        removed: (R,) numbers of the removed rows, ascending.
        descriptors: (N, D).
        local_features: Arrays of the local features by file name.
        keypoints: Keypoints of its photographs; None where the gallery stores none.
        cameras: Cameras of its photographs; None where none is known.
    """

    folder: Path
    info: Segment
    table: PlaceTable
    removed: NDArray[np.int64]
    descriptors: NDArray[np.float32]
    local_features: dict[str, NDArray[Any]]
    keypoints: StoredKeypoints | None
    cameras: StoredCameras | None

    def rows(self) -> Iterator[Row]:
        """Parse all rows that are not removed."""
        removed = set(self.removed.tolist())
        return (row for number, row in enumerate(self.table) if number not in removed)


class Places(Sequence[Place]):
    """The places of a gallery, each parsed when it is asked for."""

    def __init__(self, segments: Sequence[OpenSegment], numbers: RowNumbers, starts: NDArray[np.int64]) -> None:
        self._segments = segments
        self._numbers = numbers
        self._starts = starts

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Place: ...
    @overload
    def __getitem__(self, index: slice) -> list[Place]: ...
    def __getitem__(self, index: int | slice) -> Place | list[Place]:
        """Parse one place, or several."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        segment, number = self.locate(range(len(self))[index])
        return segment.table[number].place

    def __iter__(self) -> Iterator[Place]:
        """Parse all places, faster than one by one."""
        return (row.place for segment in self._segments for row in segment.rows())

    def locate(self, index: int) -> tuple[OpenSegment, int]:
        """Return the segment that holds row ``index``, and the number of the row in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a gallery of {len(self)}")
        stored = int(self._numbers.stored(np.int64(index)))
        number = int(np.searchsorted(self._starts, stored, side="right")) - 1
        return self._segments[number], stored - int(self._starts[number])


class Gallery:
    """Geotagged places with descriptors, local features and images. Open one with :meth:`open`.

    Rows are numbered over all segments, without removed ones.

    Attributes:
        path: Folder of the gallery.
        manifest: Content of its manifest.
        segments: Its segments, in the manifest's order.
        places: The place of each row.
        stored: (N, D) descriptors of all stored rows, including removed ones.
        numbers: Mapping between rows and stored rows.
    """

    def __init__(
        self, path: Path, manifest: Manifest, segments: Sequence[OpenSegment], device: torch.device | str
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.segments = segments
        self._device = device
        none = np.empty((0, manifest.model.descriptor_dim), np.float32)
        self.stored = Stacked([segment.descriptors for segment in segments] or [none])
        starts = self.stored.starts[: len(segments)]
        removed = [segment.removed + first for segment, first in zip(segments, starts, strict=True)]
        self.numbers = RowNumbers(len(self.stored), np.concatenate([np.empty(0, np.int64), *removed]))
        self.places = Places(segments, self.numbers, starts)
        # by a weak reference: a gallery that nobody holds closes its files at once, not when cycles are collected
        self.photograph = lru_cache(PHOTOGRAPHS_KEPT)(partial(Gallery._photograph, weakref.proxy(self)))

    @classmethod
    def open(cls, path: Path | str, device: torch.device | str = "cpu") -> Gallery:
        """Open a gallery; descriptors, positions and local features are mapped, not read.

        Args:
            path: Folder of the gallery.
            device: Device of exact search.

        Raises:
            GalleryError: There is no gallery, its format is newer, a file is absent or of another size than
                written, or its index was made from other descriptors.
        """
        folder = Path(path)
        return cls.of_manifest(folder, read_manifest(folder), device)

    @classmethod
    def of_manifest(cls, folder: Path, manifest: Manifest, device: torch.device | str = "cpu") -> Gallery:
        """Open the gallery that ``manifest`` describes; it need not be written yet."""
        segments = [_open_segment(folder, manifest, info) for info in manifest.segments]
        gallery = cls(folder, manifest, segments, device)
        if manifest.index is not None:
            _ = gallery._index  # so that a foreign index is refused now
        _ = gallery.alignment
        return gallery

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def model_fingerprint(self) -> str:
        """Fingerprint of the model that made the descriptors."""
        return self.manifest.model.fingerprint

    def check_model(self, fingerprint: str, name: str = "FILE") -> None:
        """Refuse a model that did not make this gallery.

        Args:
            fingerprint: The model's.
            name: Its file or ``default``, for the message; ``gallery`` where :func:`own_model` found it.

        Raises:
            GalleryError: The fingerprints differ; the message names both, and the command that upgrades.
        """
        model = self.manifest.model
        if fingerprint != model.fingerprint:
            kind = f"{model.config.encoder}, {model.config.aggregation}"
            if name == OWN:
                raise _without_model(self.path, model, f"is model {fingerprint} now")
            raise GalleryError(
                f"{self.path}: was made by model {model.fingerprint} ({kind}), the model given is {fingerprint};"
                f" use its model, or upgrade the gallery"
                f" (geowarp gallery upgrade {quoted(self.path)} --model {name})"
            )

    @cached_property
    def descriptors(self) -> NDArray[np.float32]:
        """(N, D) float32; a memory map where there is one segment with nothing removed."""
        if len(self.stored.arrays) == 1 and not len(self.numbers.removed):
            return self.stored.arrays[0]
        return self.stored[self.numbers.stored(np.arange(len(self)))]

    def local_features(self, indices: Sequence[int]) -> NDArray[np.float16]:
        """Return the local features (P, C, 15, 15) of the rows ``indices``."""
        features = np.empty((len(indices), self.manifest.model.channels, GRID, GRID), np.float16)
        for position, index in enumerate(indices):
            segment, number = self.places.locate(index)
            features[position] = read_local_features(segment.info.local_features, segment.local_features, number)
        return features

    @property
    def keypoint_config(self) -> KeypointConfig | None:
        """Kind and settings of the stored keypoints; None where the gallery stores none."""
        return self.manifest.keypoints

    def check_keypoints(self, kind: str, weights: str = "") -> None:
        """Refuse keypoints of another kind or with other weights than those that the gallery stores, if it does.

        Args:
            kind: The kind.
            weights: Fingerprint of a network's weights; empty: none were given.

        Raises:
            GalleryError: They differ; the message names both.
        """
        stored = self.keypoint_config
        if stored is None or (stored.kind, stored.weights) == (kind, weights):
            return
        if stored.kind != kind:
            raise GalleryError(
                f"{self.path}: its keypoints are {stored}, not {kind}; use their kind, or build another gallery"
            )
        raise GalleryError(
            f"{self.path}: its keypoints are {stored.kind} with weights {stored.weights}, and those given are"
            f" {weights or 'none'}; give their file (keypoint_weights, --keypoint-weights)"
        )

    def keypoints(self, index: int) -> Keypoints | None:
        """Return the keypoints of row ``index``, mapped and not read yet; None where the gallery stores none."""
        segment, number = self.places.locate(index)
        return None if segment.keypoints is None else segment.keypoints[number]

    def camera(self, index: int) -> Camera | None:
        """Return the camera of row ``index`` for its image at working resolution; None where unknown."""
        segment, number = self.places.locate(index)
        camera = None if segment.cameras is None else segment.cameras[number]
        if camera is None and self.alignment is not None:
            camera = self.alignment.estimated_camera(int(self.numbers.stored(np.int64(index))))
        return camera

    @cached_property
    def only_camera(self) -> Camera | None:
        """The camera that took all photographs, at its images' size; None where several did, or one is unknown."""
        found: set[Camera | None] = set()
        alignment = self.alignment
        for segment, first in zip(self.segments, self.stored.starts, strict=False):
            kept, known = np.delete(np.arange(segment.info.images), segment.removed), segment.cameras
            numbers = np.full(len(kept), NO_CAMERA) if known is None else known.numbers[kept]
            found |= {known.cameras[number] for number in set(numbers.tolist()) - {NO_CAMERA}} if known else set()
            rest = first + kept[numbers == NO_CAMERA]
            if alignment is None or alignment.camera is None:
                found |= {None} if len(rest) else set()
            else:
                _, one_of_each = np.unique(alignment.camera[rest], return_index=True)
                found |= {alignment.estimated_camera(int(row)) for row in rest[one_of_each]}
        different = {camera and replace(camera, source="") for camera in found}
        if len(different) != 1 or (camera := different.pop()) is None:
            return None
        estimated = any(one is not None and one.source == ESTIMATED for one in found)
        return replace(camera, source="the gallery's camera" + (f" ({ESTIMATED})" if estimated else ""))

    @cached_property
    def alignment(self) -> Alignment | None:
        """The photographs' own poses, by stored row; None where the gallery is not aligned or nothing is tied."""
        stored = self.manifest.alignment
        return None if stored is None else open_alignment(self.path, stored, self.manifest.segments)

    @property
    def tied(self) -> int:
        """Number of places, without those removed, that the alignment ties; 0 without one."""
        numbers = self.numbers.stored(np.arange(len(self)))
        return 0 if self.alignment is None else int(np.count_nonzero(self.alignment.tied[numbers]))

    def _photograph(self, index: int) -> Photograph | None:
        """Return what a camera's pose is measured against; None without keypoints, a camera or an alignment.

        :attr:`photograph` keeps those asked for last.
        """
        keypoints, camera = self.keypoints(index), self.camera(index)
        if keypoints is None or camera is None or self.alignment is None:
            return None
        return photograph_of(index, int(self.numbers.stored(np.int64(index))), keypoints, camera, self.alignment)

    def image(self, index: int) -> Image:
        """Return the image (H, W, 3) of row ``index`` at working resolution.

        Raises:
            GalleryError: Its file is absent or broken.
        """
        segment, number = self.places.locate(index)
        row = segment.table[number]
        try:
            image = read_image(segment.folder / row.image)
        except ImageError as error:
            raise GalleryError(f"{self.path}: image of {row.place.name}: {error}") from None
        return image if segment.info.copied else resize_shorter(image, self.manifest.model.config.resolution)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Split of each row in its source; may be empty."""
        return tuple(row.split for segment in self.segments for row in segment.rows())

    @cached_property
    def frame(self) -> LocalFrame:
        """Local east-north-up frame at the middle of the gallery's extent and its median altitude."""
        if not len(self):
            return LocalFrame(0.0, 0.0)
        latitude, longitude, altitude = self.geodetic.T
        # about the first place, so that a gallery across the antimeridian has its middle there
        around = LocalFrame(latitude[0], longitude[0])
        enu = around.to_enu(latitude, longitude)
        middle_lat, middle_lon, _ = around.to_geodetic((enu.min(axis=0) + enu.max(axis=0)) / 2)
        known = altitude[np.isfinite(altitude)]
        return LocalFrame(float(middle_lat), float(middle_lon), float(np.median(known)) if known.size else 0.0)

    @cached_property
    def datum(self) -> LocalFrame:
        """The map frame: its origin stays where it is whatever is added or removed.

        A gallery made before its origin was stored has :attr:`frame`, which moves with the extent.
        """
        stored = self.manifest.datum
        return self.frame if stored is None else LocalFrame(*stored)

    @cached_property
    def positions_enu(self) -> NDArray[np.float64]:
        """(N, 3) positions in :attr:`frame`, m; a place without an altitude lies at the frame's."""
        latitude, longitude, altitude = self.geodetic.T
        known = np.where(np.isfinite(altitude), altitude, self.frame.datum_altitude_m)
        return self.frame.to_enu(latitude, longitude, known)

    @cached_property
    def spacing_m(self) -> float:
        """Median distance of a spot from its nearest neighbour, m; UNKNOWN_SPACING_M where there is one spot only.

        Places nearer than SPOT_M to one another are one spot. In a large gallery some of the spots are measured.
        """
        from scipy.spatial import cKDTree

        spots = np.unique(np.round(self.positions_enu[:, :2] / SPOT_M), axis=0) * SPOT_M
        if len(spots) < 2:
            return UNKNOWN_SPACING_M
        distances, _ = cKDTree(spots).query(spots[:: -(-len(spots) // 2000)], k=2)
        return float(np.median(distances[:, 1]))

    @property
    def geodetic(self) -> NDArray[np.float64]:
        """(N, 3) latitude and longitude in degrees, altitude in m or NaN."""
        columns = ("latitude", "longitude", "altitude")
        parts = [np.stack([s.table.positions[c] for c in columns], axis=1) for s in self.segments]
        every = np.concatenate([np.empty((0, 3)), *parts])
        return np.delete(every, self.numbers.removed, axis=0) if len(self.numbers.removed) else every

    def search(
        self,
        descriptor: NDArray[np.float32],
        count: int = 20,
        near: Near | None = None,
        without: Collection[int] = frozenset(),
    ) -> list[Candidate]:
        """Find the places whose descriptors are nearest.

        Args:
            descriptor: (D,) descriptor of the query.
            count: Number of places to find, at least 1.
            near: Circle to search, every place of which is compared; None searches the whole gallery by its index.
            without: Rows to leave out, as if the gallery lacked them.

        Returns:
            ``count`` candidates, or all that are left where there are fewer; nearest first.

        Raises:
            GalleryError: The descriptor has another length than the gallery's, or is not finite.
        """
        query = check_queries(descriptor[None], self.manifest.model.descriptor_dim)
        rows = np.unique(np.fromiter(without, np.int64, len(without)))
        if near is None:
            left_out = self.numbers.removed
            if len(rows):
                left_out = np.sort(np.concatenate([left_out, self.numbers.stored(rows)]), kind="stable")
            distances, stored = self._index.search(query, count, left_out)
        else:
            within = self.rows_within(near)
            within = self.numbers.stored(within[~among(within, rows)])
            distances, stored = search_rows(query, within, self.stored.__getitem__, count)
        return [
            Candidate(int(row), self.places[int(row)], float(distance))
            for row, distance in zip(self.numbers.rows(stored[0]), distances[0], strict=True)
        ]

    def rows_within(self, near: Near) -> NDArray[np.int64]:
        """Return the rows of the places in a circle, ascending; the cost grows with their number."""
        east, north, _ = self.frame.to_enu(near.latitude_deg, near.longitude_deg)
        found = self._ground.query_ball_point((east, north), near.radius_m, return_sorted=True)
        return np.asarray(found, np.int64)

    def verify(self, progress: Progress = silent) -> list[str]:
        """Compare every file with its checksum and decode every image; returns one line per problem."""
        folders = [(segment.folder, segment.info.files) for segment in self.segments]
        if (index := self.manifest.index) is not None:
            folders.append((self.path / INDEX / index.name, index.files))
        if (alignment := self.manifest.alignment) is not None:
            folders.append((self.path / ALIGNMENT / alignment.name, alignment.files))
        problems = [
            f"{folder / name}: content has changed, its checksum differs"
            for folder, files in folders
            for name, stored in files.items()
            if checksum(folder / name) != stored.blake2b
        ]
        for row in progress(range(len(self)), len(self), "verifying images"):
            problems += self._verify_image(row)
        return problems

    def _verify_image(self, index: int) -> list[str]:
        segment, number = self.places.locate(index)
        try:
            row = segment.table[number]
            path = segment.folder / row.image
            if checksum(path) != row.image_blake2b:
                return [f"{path}: content has changed, its checksum differs"]
            self.image(index)
        except OSError as error:
            return [f"{path}: cannot be read: {error.strerror}"]
        except GalleryError as error:
            return [str(error)]
        return []

    @cached_property
    def _index(self) -> Index:
        manifest = self.manifest
        return open_index(self.path, manifest.index, manifest.segments, self.stored, self._device)

    @cached_property
    def _ground(self) -> cKDTree:
        from scipy.spatial import cKDTree

        # neither balanced nor compact: built three times as fast, and as fast to ask for circles
        return cKDTree(self.positions_enu[:, :2], balanced_tree=False, compact_nodes=False)


def own_model(folder: Path) -> Path:
    """Return the file of the model that made the gallery in a folder: the one that ships, or where it was then.

    Raises:
        GalleryError: There is no gallery, or the file is not there.
    """
    model = read_manifest(folder).model
    file = find_noted(model.file, folder)
    if not file.is_file():
        raise _without_model(folder, model, "is not there")
    return file


def _without_model(folder: Path, model: StoredModel, lack: str) -> GalleryError:
    kind = f"{model.config.encoder}, {model.config.aggregation}"
    file = f"its file, {find_noted(model.file, folder)}, {lack}"
    if not model.file:
        file = "its file was not noted, and the model that ships is another one"
    return GalleryError(
        f"{folder}: was made by model {model.fingerprint} ({kind}); {file}: give it (--model FILE;"
        f" geowarp gallery upgrade {quoted(folder)} --model FILE notes it), or describe the gallery anew"
        f" (geowarp gallery upgrade {quoted(folder)} --model default)"
    )


def _open_segment(folder: Path, manifest: Manifest, info: Segment) -> OpenSegment:
    where = folder / SEGMENTS / info.name
    local = layout(info.local_features, info.images, manifest.model.channels)
    keypoint_files = KEYPOINT_FILES if manifest.keypoints else ()
    for name in (*map(info.of_model, (DESCRIPTORS, *local)), PLACES, *keypoint_files):
        if name not in info.files:
            raise GalleryError(f"{folder}: segment {info.name} names no {name}; the manifest was edited")
    for name, stored in info.files.items():
        check_size(where / name, stored.size)
    shape = (info.images, manifest.model.descriptor_dim)
    descriptors = map_array(where / info.of_model(DESCRIPTORS), np.dtype("<f4"), shape)
    local_features = {name: map_array(where / info.of_model(name), *form) for name, form in local.items()}
    positions = None
    if POSITIONS_FILE in info.files:
        positions = map_array(where / POSITIONS_FILE, POSITIONS, (info.images,))
    table = PlaceTable(where / PLACES, positions)
    if len(table) != info.images:
        raise GalleryError(f"{where / PLACES}: has {len(table)} rows, expected {info.images}")
    names = set(info.removed)
    removed = [number for number, row in enumerate(table) if row.place.name in names] if names else []
    dim = manifest.keypoints.descriptor_dim if manifest.keypoints else 0
    keypoints = StoredKeypoints.open(where, info.images, dim) if manifest.keypoints else None
    cameras = StoredCameras.open(where, info.files, info.images)
    rows = np.array(removed, np.int64)
    return OpenSegment(where, info, table, rows, descriptors, local_features, keypoints, cameras)
