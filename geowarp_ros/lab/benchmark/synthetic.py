"""Synthetic descriptors and galleries for search benchmarks of arbitrary size.

Gaussian mixture of low intrinsic dimension on the unit sphere: a place is a latent vector z ~ N(0, I) of 32
dimensions, its ten images are z + N(0, 0.35² I), and a descriptor is A z plus isotropic noise of 5 % of its
length, normalised. A is a fixed random map to D dimensions that weights latent dimension k by k^-1/4. A query is a
descriptor displaced by a normal vector of length 0.3, about the distance between images of a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.local import LOCAL_FEATURES, layout
from geowarp_ros.gallery.manifest import (
    DESCRIPTORS,
    PLACES,
    POSITIONS_FILE,
    SEGMENTS,
    Manifest,
    Segment,
    StoredFile,
    StoredModel,
    checksum,
    write_manifest,
)
from geowarp_ros.gallery.places import POSITIONS, Row, table_of
from geowarp_ros.model.geowarp import ModelConfig
from geowarp_ros.types import Place

FloatArray = NDArray[np.float32]

SYNTHETIC = StoredModel(
    fingerprint="synthetic", config=ModelConfig(encoder="resnet18"), descriptor_dim=1, channels=1
)
"""Placeholder for the model of the gallery."""

INTRINSIC = 32
PER_PLACE = 10
_WITHIN_PLACE = 0.35
_NOISE = 0.05
_QUERY_NOISE = 0.3
_BLOCK = 20_000  # rows; a multiple of PER_PLACE
_CREATED = "2000-01-01T00:00:00+00:00"


def descriptor_blocks(rows: int, dim: int, seed: int) -> Iterator[FloatArray]:
    """Yield unit descriptors in blocks (B, D); smaller galleries are prefixes of larger ones."""
    for number in range(-(-rows // _BLOCK)):
        yield _block(number, dim, seed)[: rows - number * _BLOCK]


def queries_of(rows: int, dim: int, count: int, seed: int) -> FloatArray:
    """Return query descriptors (count, D) of the same places."""
    rng = np.random.default_rng((seed, 1))
    blocks = rng.integers(0, -(-rows // _BLOCK), min(count, 8))  # a few blocks only: each must be regenerated
    moved = []
    for number, part in zip(blocks, np.array_split(np.arange(count), len(blocks)), strict=True):
        block = _block(int(number), dim, seed)[: rows - int(number) * _BLOCK]
        seen = block[rng.integers(0, len(block), len(part))]
        again = seen + _QUERY_NOISE / np.sqrt(dim) * rng.standard_normal(seen.shape, np.float32)
        moved.append(again / np.linalg.norm(again, axis=1, keepdims=True))
    return np.concatenate(moved).astype(np.float32)


def write_gallery(
    folder: Path, rows: int, dim: int, seed: int, model: StoredModel = SYNTHETIC, image: Path | None = None
) -> None:
    """Write a synthetic gallery: places on a square lattice with 10 m spacing, local features zero.

    Args:
        folder: Gallery folder, created if absent.
        rows: Number of images N.
        dim: Descriptor dimension D.
        seed: Seed of the descriptors.
        model: Model recorded in the gallery.
        image: Image of all places; None: no images.
    """
    segment = folder / SEGMENTS / "0001"
    segment.mkdir(parents=True)
    descriptors = np.lib.format.open_memmap(
        segment / DESCRIPTORS, mode="w+", dtype=np.dtype("<f4"), shape=(rows, dim)
    )
    first = 0
    for block in descriptor_blocks(rows, dim, seed):
        descriptors[first : first + len(block)] = block
        first += len(block)
    descriptors.flush()
    _write_places(segment, rows, image)
    dtype, shape = layout("half", rows, model.channels)[LOCAL_FEATURES]
    np.lib.format.open_memmap(segment / LOCAL_FEATURES, mode="w+", dtype=dtype, shape=shape)  # sparse file
    checksums = {DESCRIPTORS: checksum(segment / DESCRIPTORS)}
    files = {
        name: StoredFile(size=(segment / name).stat().st_size, blake2b=checksums.get(name, "unread"))
        for name in (DESCRIPTORS, PLACES, POSITIONS_FILE, LOCAL_FEATURES)
    }
    model = model.model_copy(update={"descriptor_dim": dim})
    stored = Segment(
        name="0001",
        images=rows,
        image_bytes=0,
        source=f"synthetic, seed {seed}",
        copied=False,
        options={},
        created=_CREATED,
        files=files,
    )
    write_manifest(folder, Manifest(created=_CREATED, modified=_CREATED, model=model, segments=(stored,)))


def _write_places(segment: Path, rows: int, image: Path | None) -> None:
    """Write the table of places in blocks to limit memory."""
    header, _ = table_of([])
    positions = np.lib.format.open_memmap(segment / POSITIONS_FILE, mode="w+", dtype=POSITIONS, shape=(rows,))
    with (segment / PLACES).open("wb") as file:
        file.write(header)
        for first in range(0, rows, _BLOCK):
            numbers = range(first, min(first + _BLOCK, rows))
            table, block = table_of([_row(number, rows, image) for number in numbers])
            block["offset"] += file.tell() - len(header)
            positions[first : first + len(block)] = block
            file.write(table[len(header) :])
    positions.flush()


def _block(number: int, dim: int, seed: int) -> FloatArray:
    fixed = np.random.default_rng((seed, 0))
    weights = np.arange(1, INTRINSIC + 1, dtype=np.float32) ** -0.25
    mixing = fixed.standard_normal((INTRINSIC, dim), np.float32) * weights[:, None]
    mixing /= np.linalg.norm(mixing)
    rng = np.random.default_rng((seed, 2, number))
    centres = rng.standard_normal((_BLOCK // PER_PLACE, INTRINSIC), np.float32)
    latent = np.repeat(centres, PER_PLACE, axis=0)
    latent += _WITHIN_PLACE * rng.standard_normal(latent.shape, np.float32)
    rows = latent @ mixing + _NOISE / np.sqrt(dim) * rng.standard_normal((_BLOCK, dim), np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _row(number: int, rows: int, image: Path | None) -> Row:
    """Return a row of the table of places: ten images per lattice point, 10 m spacing at 45° N."""
    side = int(np.ceil(np.sqrt(-(-rows // PER_PLACE))))
    north, east = divmod(number // PER_PLACE, side)
    latitude, longitude = 45 + north * 10 / 111_132, 9 + east * 10 / 78_847
    return Row(Place(f"{number:08d}.jpg", latitude, longitude), "", str(image or ""), 0, "")
