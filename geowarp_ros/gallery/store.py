"""A gallery as it is read: opened by memory map, checked by sizes, searched exactly."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geowarp_ros.config import RetrievalConfig
from geowarp_ros.errors import GalleryError, ImageError
from geowarp_ros.gallery.manifest import (
    SEGMENTS,
    Manifest,
    Segment,
    checksum,
    read_manifest,
)
from geowarp_ros.gallery.search import ExactIndex, Index
from geowarp_ros.gallery.segment import COLUMNS, DESCRIPTORS, LOCAL_FEATURES, PLACES, Row
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import read_image, resize_shorter
from geowarp_ros.model.densevlad import DenseVladConfig
from geowarp_ros.model.geowarp import ModelConfig
from geowarp_ros.model.matching import GRID
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Candidate, Image, Near, Place


@dataclass(frozen=True, slots=True)
class _OpenSegment:
    """A segment's arrays and the rows that are not removed."""

    folder: Path
    info: Segment
    rows: tuple[Row, ...]
    kept: NDArray[np.int64]
    descriptors: NDArray[np.float32]
    local_features: NDArray[np.float16]


class Gallery:
    """Places with their descriptors, local features and images. Open one with :meth:`open`.

    Rows are numbered over all segments, without the removed ones.
    """

    def __init__(
        self, path: Path, manifest: Manifest, segments: Sequence[_OpenSegment], device: torch.device | str
    ) -> None:
        self.path = path
        self.manifest = manifest
        self._segments = segments
        self._device = device
        self._rows = [(segment, int(row)) for segment in segments for row in segment.kept]
        self.places: tuple[Place, ...] = tuple(segment.rows[row].place for segment, row in self._rows)

    @classmethod
    def open(cls, path: Path | str, device: torch.device | str = "cpu") -> Gallery:
        """Open a gallery; descriptors and local features are mapped, not read.

        Args:
            path: Its folder.
            device: Where descriptors are compared.

        Raises:
            GalleryError: No gallery, a newer format, a file that is absent or of another size than written.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        return cls(folder, manifest, [_open_segment(folder, manifest, info) for info in manifest.segments], device)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def model_fingerprint(self) -> str:
        """Of the model that made the descriptors."""
        return self.manifest.model.fingerprint

    @property
    def model_config(self) -> ModelConfig | DenseVladConfig:
        """Of the model that made the descriptors."""
        return self.manifest.model.config

    def check_model(self, fingerprint: str) -> None:
        """Refuse another model than the gallery's.

        Raises:
            GalleryError: Naming both.
        """
        check_model(self.path, self.manifest, fingerprint)

    @cached_property
    def descriptors(self) -> NDArray[np.float32]:
        """(N, D) float32; a memory map while there is one segment with nothing removed."""
        parts = [
            s.descriptors if len(s.kept) == len(s.descriptors) else s.descriptors[s.kept] for s in self._segments
        ]
        if not parts:
            return np.empty((0, self.manifest.model.descriptor_dim), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def local_features(self, indices: Sequence[int]) -> NDArray[np.float16]:
        """Return (P, C, 15, 15) of the rows ``indices``."""
        features = np.empty((len(indices), self.manifest.model.channels, GRID, GRID), np.float16)
        for position, index in enumerate(indices):
            segment, row = self._rows[index]
            features[position] = segment.local_features[row]
        return features

    def image(self, index: int) -> Image:
        """Return the image of row ``index`` at working resolution, (H, W, 3).

        Raises:
            GalleryError: Its file is absent or broken.
        """
        segment, row = self._rows[index]
        try:
            image = read_image(segment.folder / segment.rows[row].image)
        except ImageError as error:
            raise GalleryError(f"{self.path}: image of {self.places[index].name}: {error}") from None
        return image if segment.info.copied else resize_shorter(image, self.model_config.resolution)

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Each row's split in its source; may be empty."""
        return tuple(segment.rows[row].split for segment, row in self._rows)

    @cached_property
    def frame(self) -> LocalFrame:
        """Local east-north-up frame about the middle of the gallery's extent, at its median altitude."""
        if not self.places:
            return LocalFrame(0.0, 0.0)
        latitude, longitude, altitude = self._geodetic.T
        # about the first place, so that a gallery across the antimeridian has its middle there
        around = LocalFrame(latitude[0], longitude[0])
        enu = around.to_enu(latitude, longitude)
        middle_lat, middle_lon, _ = around.to_geodetic((enu.min(axis=0) + enu.max(axis=0)) / 2)
        known = altitude[np.isfinite(altitude)]
        return LocalFrame(float(middle_lat), float(middle_lon), float(np.median(known)) if known.size else 0.0)

    @cached_property
    def positions_enu(self) -> NDArray[np.float64]:
        """(N, 3) metres in :attr:`frame`; a place without an altitude lies at the frame's."""
        latitude, longitude, altitude = self._geodetic.T
        known = np.where(np.isfinite(altitude), altitude, self.frame.datum_altitude_m)
        return self.frame.to_enu(latitude, longitude, known)

    @property
    def names_by_segment(self) -> list[tuple[str, ...]]:
        """Names of the rows that are not removed, one tuple per segment."""
        return [tuple(segment.rows[row].place.name for row in segment.kept) for segment in self._segments]

    def search(
        self,
        descriptor: NDArray[np.float32],
        config: RetrievalConfig | None = None,
        near: Near | None = None,
    ) -> list[Candidate]:
        """Return the places whose descriptors are nearest, best first; none from an empty gallery.

        Args:
            descriptor: (D,) of the query.
            config: How many.
            near: Only places in this circle; None: all.
        """
        count = (config or RetrievalConfig()).candidates
        if near is None:
            distances, rows = self._index.search(descriptor[None], count)
        else:
            within = self.rows_within(near)
            distances, found = ExactIndex(self.descriptors[within], "cpu").search(descriptor[None], count)
            rows = within[found]
        return [
            Candidate(int(row), self.places[row], float(distance))
            for row, distance in zip(rows[0], distances[0], strict=True)
        ]

    def rows_within(self, near: Near) -> NDArray[np.int64]:
        """Return the rows of the places in a circle, ascending."""
        east, north, _ = self.frame.to_enu(near.latitude_deg, near.longitude_deg)
        offsets = self.positions_enu[:, :2] - (east, north)
        return np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1]) <= near.radius_m)

    def verify(self, progress: Progress = silent) -> list[str]:
        """Read everything and compare it with its checksums; returns one line per problem."""
        problems = []
        for segment in self._segments:
            for name, stored in segment.info.files.items():
                if checksum(segment.folder / name) != stored.blake2b:
                    problems.append(f"{segment.folder / name}: content has changed, its checksum differs")
        for index in progress(range(len(self)), len(self), "verifying images"):
            segment, row = self._rows[index]
            stored_row = segment.rows[row]
            path = segment.folder / stored_row.image
            try:
                if checksum(path) != stored_row.image_blake2b:
                    problems.append(f"{path}: content has changed, its checksum differs")
                else:
                    self.image(index)
            except OSError as error:
                problems.append(f"{path}: cannot be read: {error.strerror}")
            except GalleryError as error:
                problems.append(str(error))
        return problems

    @cached_property
    def _index(self) -> Index:
        return ExactIndex(self.descriptors, self._device)

    @cached_property
    def _geodetic(self) -> NDArray[np.float64]:
        values = [(place.latitude_deg, place.longitude_deg, place.altitude_m) for place in self.places]
        return np.array(values, np.float64).reshape(-1, 3)


def check_model(path: Path, manifest: Manifest, fingerprint: str) -> None:
    """Refuse another model than the gallery's.

    Raises:
        GalleryError: Naming both.
    """
    if fingerprint != manifest.model.fingerprint:
        config = manifest.model.config
        raise GalleryError(
            f"{path}: was made by model {manifest.model.fingerprint} ({config.encoder}, {config.aggregation}),"
            f" the model given is {fingerprint}; use its model or build the gallery again"
        )


def _open_segment(folder: Path, manifest: Manifest, info: Segment) -> _OpenSegment:
    where = folder / SEGMENTS / info.name
    for name in (DESCRIPTORS, LOCAL_FEATURES, PLACES):
        if name not in info.files:
            raise GalleryError(f"{folder}: segment {info.name} names no {name}; the manifest was edited")
        _check_size(where / name, info.files[name].size)
    descriptors = _map(where / DESCRIPTORS, np.dtype("<f4"), (info.images, manifest.model.descriptor_dim))
    shape = (info.images, manifest.model.channels, GRID, GRID)
    local_features = _map(where / LOCAL_FEATURES, np.dtype("<f2"), shape)
    rows = _read_rows(where / PLACES, info.images)
    removed = set(info.removed)
    kept = np.array([row for row, item in enumerate(rows) if item.place.name not in removed], np.int64)
    return _OpenSegment(where, info, rows, kept, descriptors, local_features)


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise GalleryError(f"{path}: is missing, expected {expected} bytes")
    size = path.stat().st_size
    if size != expected:
        state = "is truncated" if size < expected else "has changed"
        raise GalleryError(f"{path}: {state}: {size} bytes, expected {expected}")


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GalleryError(f"{path}: is no array: {error}") from None
    if array.dtype != dtype or array.shape != shape:
        raise GalleryError(f"{path}: holds {array.dtype} {array.shape}, expected {dtype} {shape}")
    return np.asarray(array)


def _read_rows(path: Path, count: int) -> tuple[Row, ...]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(next(reader, ()))
            rows = tuple(Row.from_text(values) for values in reader)
    except (OSError, ValueError, csv.Error) as error:
        raise GalleryError(f"{path}: cannot be read as places: {error}") from None
    if header != COLUMNS or len(rows) != count:
        raise GalleryError(f"{path}: has {len(rows)} rows under {', '.join(header)}, expected {count}")
    return rows
