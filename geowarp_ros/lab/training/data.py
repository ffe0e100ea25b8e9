"""Training images: cached decoding, background batching, augmentation on the device."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.errors import ImageError, SourceError, TrainingError
from geowarp_ros.files import expanded
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.geometry import full_frame, warp
from geowarp_ros.images import MEAN, STD, resize_shorter, to_tensor
from geowarp_ros.lab.training.mining import Indices, within
from geowarp_ros.lab.training.parameters import Reading
from geowarp_ros.lab.training.processes import gather_objects, process_count, process_index
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Source, SourceImage, read_source
from geowarp_ros.types import FloatArray, Image

logger = logging.getLogger(__name__)
T = TypeVar("T")
Autocast: TypeAlias = Callable[[], AbstractContextManager[Any]]
"""Returns the context in which networks compute, such as torch.autocast of a precision."""

PLACE_M = 10.0
"""Side of the squares by which places are counted (m)."""

LEAST_PLACES = 5
"""Minimum number of places to train on, and to validate with."""

READERS = min(16, max(4, os.cpu_count() or 1))
"""Decoding threads; decoding releases the GIL."""


class Photographs:
    """Geotagged images at working resolution, decoded on first use and cached.

    Attributes:
        names: Image names.
        positions_m: (N, 2) east and north in a common frame.
        queries: (N,) whether an image belongs to a query split.
        unreadable: Indices of images that failed to decode and are skipped.
    """

    def __init__(
        self, images: Sequence[SourceImage], frame: LocalFrame, *, resolution: int = 0, memory_mb: int = 4096
    ) -> None:
        """Store the parameters; nothing is decoded yet.

        Args:
            images: Images to read.
            frame: Frame of the positions; share it between sets that are compared.
            resolution: Shorter side after resizing (px); 0: original size.
            memory_mb: Cache limit (MiB); images beyond it are decoded on every access.
        """
        self.images = tuple(images)
        self.names = tuple(image.place.name for image in self.images)
        self.positions_m = positions_in(frame, self.images)
        self.queries = np.array([is_query(image.split) for image in self.images], bool)
        self.unreadable: set[int] = set()
        self.resolution = resolution
        self._kept: dict[int, Image] = {}
        self._bytes_left = memory_mb << 20

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image | None:
        """Return an image at working resolution, or None if it cannot be decoded (logged once)."""
        if index in self.unreadable:
            return None
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        try:
            image = resize_shorter(self.images[index].read(), self.resolution)
        except (ImageError, SourceError, OSError) as error:
            self.unreadable.add(index)
            logger.warning("skipping unreadable image (%d so far): %s", len(self.unreadable), error)
            return None
        if image.nbytes <= self._bytes_left:  # approximate limit: two threads may both count one image
            self._bytes_left -= image.nbytes
            self._kept[index] = image
        return image

    def roles(self) -> tuple[Indices, Indices]:
        """Return queries and gallery; where all images are of one kind, each is a query to all others."""
        every = np.arange(len(self))
        queries, gallery = every[self.queries], every[~self.queries]
        return (queries, gallery) if len(queries) and len(gallery) else (every, every)

    def near(self, radius_m: float, queries: Indices, gallery: Indices) -> list[Indices]:
        """Return the gallery images within the radius of each query, excluding itself."""
        found = within(self.positions_m[queries], self.positions_m[gallery], radius_m)
        near = (gallery[rows] for rows in found)
        return [images[images != query] for query, images in zip(queries, near, strict=True)]

    def batch(self, indices: Sequence[int] | Indices, height: int, width: int) -> tuple[Tensor, Indices]:
        """Return images scaled and centre-cropped to one size; unreadable ones show their neighbour in the batch.

        Returns:
            (B, 3, height, width) uint8; (B,) indices of the images shown.

        Raises:
            TrainingError: None of the images can be read.
        """
        images = {row: self[int(index)] for row, index in enumerate(indices)}
        cut = {row: cover(image, height, width) for row, image in images.items() if image is not None}
        if not cut:
            some = ", ".join(self.names[index] for index in indices[:8])
            raise TrainingError(f"none of {len(images)} images can be read: {some} …")
        shown = [min(cut, key=row.__xor__) for row in images]  # a readable row shows itself: row ^ row = 0
        return torch.from_numpy(np.stack([cut[row] for row in shown])).permute(0, 3, 1, 2), np.asarray(indices)[
            shown
        ]


def is_query(split: str) -> bool:
    """Return whether a split holds queries, such as ``query`` or ``train/queries``."""
    return split.rsplit("/", 1)[-1].lower() in ("query", "queries")


def cover(image: Image, height: int, width: int) -> Image:
    """Scale ``image`` to cover height × width, keeping its aspect ratio, and crop the centre."""
    scale = max(height / image.shape[0], width / image.shape[1])
    if scale != 1.0:
        size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
        image = np.asarray(
            cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def read_photographs(
    sources: Sequence[Path],
    split: str | None,
    *,
    hold_out: Sequence[str] = (),
    only: Sequence[str] = (),
    reading: Reading | None = None,
) -> tuple[SourceImage, ...]:
    """Read one split of each source.

    Args:
        sources: Sources as for :func:`read_source`.
        split: Split such as ``train`` or ``val/queries``; None: all images.
        hold_out: Name patterns (``*name*``) to exclude.
        only: Name patterns to include; empty: all.
        reading: How the positions are read.

    Raises:
        SourceError: A source cannot be read or lacks the split.
        TrainingError: The patterns leave no image.
    """
    found = [image for path in sources for image in read_as(path, reading, split).images]
    kept = [
        image
        for image in found
        if not matches_any(image.place.name, hold_out) and (not only or matches_any(image.place.name, only))
    ]
    if not kept:
        raise TrainingError(
            f"none of {len(found)} images is left after hold-out {list(hold_out)} and {list(only)}"
        )
    return tuple(kept)


def read_as(source: Path, reading: Reading | None = None, split: str | None = None) -> Source:
    """Read a source with the parameters of a training; None: their defaults."""
    how = reading or Reading()
    return read_source(
        source,
        split=split,
        utm_zone=how.utm_zone or None,
        accept_null_island=how.accept_null_island,
        fix_offset_s=how.fix_offset,
        image_topic=how.image_topic,
        fix_topic=how.fix_topic,
        track=expanded(how.track) if how.track else None,
        track_offset_s=how.track_offset,
        every=how.every,
        panorama_views=how.panorama,
    )


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Return whether a name matches one of the patterns (``*name*``)."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def share_of(hold_out: Sequence[str]) -> float | None:
    """Return the share of the places that ``hold_out`` asks for; None where it has name patterns, or nothing.

    Raises:
        TrainingError: It is a number that is no share.
    """
    try:
        (share,) = map(float, hold_out)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise TrainingError(
            f"hold_out {share:g}: expected a share between 0 and 1, or name patterns such as *video*"
        )
    return share


def split_by_area(
    images: Sequence[SourceImage], share: float, gap_m: float, seed: int
) -> tuple[list[SourceImage], list[SourceImage]]:
    """Split images into those to train on and those held out, by where they were taken.

    The ground is divided into squares of four gaps a side; some, drawn at random, are held out whole. Images
    outside of them and within the gap of an image in them belong to neither: no held-out place is trained on.

    Args:
        images: Images without splits for training and validation.
        share: Least share of the images that is held out, 0..1; squares are not cut to meet it exactly.
        gap_m: Least distance between the two, m.
        seed: Seed of the draw.

    Raises:
        TrainingError: The images have such splits already, or one of the two has fewer than LEAST_PLACES places.
    """
    given = sorted({image.split for image in images if {"train", "val", "test"} & {*image.split.split("/")}})
    if given:
        raise TrainingError(
            f"hold_out {share:g}: the images have the splits {', '.join(given)} already; train with these, or hold"
            " out by name patterns (*video*)"
        )
    from sklearn.neighbors import KDTree

    where = positions_in(common_frame(images), images)
    # the first image lies in the middle of its square, not a street on the border of two
    _, block = np.unique(np.floor(where / (4 * gap_m) + 0.5), axis=0, return_inverse=True)
    block = block.reshape(-1)
    counts = np.bincount(block)
    drawn = np.random.default_rng(seed).permutation(len(counts))
    before = np.concatenate([[0], np.cumsum(counts[drawn])[:-1]])
    held = np.isin(block, drawn[before < share * len(images)])
    near = np.zeros(len(images), bool)
    if held.any() and not held.all():
        near[~held] = KDTree(where[held]).query_radius(where[~held], gap_m, count_only=True) > 0
    kept = ~held & ~near
    places = [len(np.unique(np.floor(where[rows] / PLACE_M + 0.5), axis=0)) for rows in (kept, held)]
    said = (
        f"{places[0]} places ({kept.sum()} images) to train on and {places[1]} ({held.sum()}) held out, in squares"
        f" of {4 * gap_m:g} m; {near.sum()} images within {gap_m:g} m of these are used by neither"
    )
    if min(places) < LEAST_PLACES:
        raise TrainingError(
            f"hold_out {share:g}: {said}: expected at least {LEAST_PLACES} places of both; give photographs of a"
            " larger area, another share, or name patterns (*video*)"
        )
    logger.info("hold_out %g: %s", share, said)
    kept_images, held_images = ([images[row] for row in np.flatnonzero(rows).tolist()] for rows in (kept, held))
    return kept_images, held_images


def common_frame(images: Sequence[SourceImage]) -> LocalFrame:
    """Return the ENU frame at the first image."""
    return LocalFrame(images[0].place.latitude_deg, images[0].place.longitude_deg)


def positions_in(frame: LocalFrame, images: Sequence[SourceImage]) -> FloatArray:
    """Return the east and north coordinates (N, 2) of images in a frame (m)."""
    places = [image.place for image in images]
    enu: FloatArray = frame.to_enu([p.latitude_deg for p in places], [p.longitude_deg for p in places])
    return enu[:, :2]


def ahead(make: Callable[[int], T], items: Iterable[int], depth: int = READERS - 1) -> Iterator[T]:
    """Yield ``make(item)`` in order, computing the next ``depth`` results in background threads."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


@torch.no_grad()
def describe(
    model: GeoWarp,
    photographs: Photographs,
    indices: Sequence[int] | Indices | None = None,
    *,
    autocast: Autocast = nullcontext,
    batch_size: int = 16,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Compute global descriptors of uncropped images in eval mode, distributed over the processes.

    Returns:
        (N, D); NaN for unreadable images.
    """
    wanted = np.arange(len(photographs)) if indices is None else np.asarray(indices)
    mine = np.array_split(wanted, process_count())[process_index()]
    found = np.full((len(mine), model.descriptor_dim), np.nan, np.float32)
    starts = range(0, len(mine), 64)
    device = next(model.parameters()).device
    training = model.training
    model.eval()

    def decode(start: int) -> list[tuple[int, Image]]:
        images = (photographs[int(index)] for index in mine[start : start + 64])
        return [(row, image) for row, image in enumerate(images, start) if image is not None]

    for decoded in progress(ahead(decode, starts), len(starts), "describing images in batches"):
        for shape in sorted({image.shape for _, image in decoded}):
            alike = [(row, image) for row, image in decoded if image.shape == shape]
            for start in range(0, len(alike), batch_size):
                rows, images = zip(*alike[start : start + batch_size], strict=True)
                tensor = to_tensor(images, device).contiguous(memory_format=torch.channels_last)
                with autocast():
                    encoded = model.encode(tensor)
                found[list(rows)] = model.aggregate(encoded).float().cpu().numpy()
    model.train(training)
    return np.concatenate(gather_objects(found))


@torch.no_grad()
def random_maps(
    model: GeoWarp, photographs: Photographs, rng: np.random.Generator, count: int
) -> Iterator[Tensor]:
    """Yield the feature maps (C, h·w) of up to ``count`` random images, in eval mode.

    Raises:
        TrainingError: None of them can be read.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    any_readable = False
    for index in rng.permutation(len(photographs))[:count]:
        if (image := photographs[int(index)]) is not None:
            any_readable = True
            yield model.feature_map(to_tensor(image, device))[0].flatten(1)
    model.train(training)
    if not any_readable:
        raise TrainingError("none of the images can be read")


@dataclass(frozen=True, slots=True)
class Views:
    """Augmented images.

    Attributes:
        images: (B, 3, H, W) normalised.
        quads: (B, 4, 2) corners of each view on its source image, clockwise from the view's top-left.
        mirrored: Whether the batch was flipped horizontally.
    """

    images: Tensor
    quads: Tensor
    mirrored: bool


class Augmentation:
    """Random homographic crop, horizontal flip and colour jitter on the batch's device."""

    def __init__(
        self, *, tilt: float = 0.25, zoom: float = 0.5, colour: float = 0.35, mirror: bool = True
    ) -> None:
        """Set the strengths.

        Args:
            tilt: Maximum corner displacement, relative to half the crop's side.
            zoom: Maximum share of each side cropped away.
            colour: Strength of brightness, contrast, saturation and gamma jitter; 0: off.
            mirror: Flip half of the batches, always whole batches: a mirrored place is a different place.
        """
        self.tilt, self.zoom, self.colour, self.mirror = tilt, zoom, colour, mirror

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) uint8 -> normalised float32 of the same size; ``generator`` is a CPU generator."""
        return self.views(pixels, generator).images

    def views(self, pixels: Tensor, generator: torch.Generator) -> Views:
        """Return the views and their geometry."""
        batch = pixels.shape[0]

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return (torch.rand(shape, generator=generator) * (high - low) + low).to(pixels.device)

        x = pixels.float() / 255
        quads = full_frame(batch, x)
        if self.tilt or self.zoom:
            quads = self._quads(batch, uniform)
            x = warp(x, quads)
        mirrored = self.mirror and float(torch.rand((), generator=generator)) < 0.5
        if mirrored:
            x = x.flip(3)
        if self.colour:
            x = self._colours(x, uniform)
        mean = torch.tensor(MEAN, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=x.device).view(1, 3, 1, 1)
        images = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        return Views(images, quads[:, [1, 0, 3, 2]] if mirrored else quads, mirrored)

    def _quads(self, batch: int, uniform: Callable[..., Tensor]) -> Tensor:
        size = 1 - uniform(0, self.zoom, batch, 1, 1)
        centre = (1 - size) * uniform(-1, 1, batch, 1, 2)
        frame = full_frame(batch, size)
        return (centre + size * (frame + self.tilt * uniform(-1, 1, batch, 4, 2))).clamp(-1, 1)

    def _colours(self, x: Tensor, uniform: Callable[..., Tensor]) -> Tensor:
        c, batch = self.colour, x.shape[0]
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * uniform(1 - c, 1 + c, batch, 1, 1, 1) + mean
        grey = x.mean(dim=1, keepdim=True)
        x = (x - grey) * uniform(1 - c, 1 + c, batch, 1, 1, 1) + grey
        x = x * uniform(1 - c / 3, 1 + c / 3, batch, 3, 1, 1) * uniform(1 - c, 1 + c, batch, 1, 1, 1)
        return x.clamp(1e-3, 1).pow(uniform(-c, c, batch, 1, 1, 1).exp())
