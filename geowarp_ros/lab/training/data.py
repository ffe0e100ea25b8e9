"""Photographs for training: decoded once, kept, batched in the background, augmented on the device."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.errors import ImageError, SourceError, TrainingError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.geometry import full_frame, warp
from geowarp_ros.images import MEAN, STD, resize_shorter, to_tensor
from geowarp_ros.lab.training.processes import gather_objects, process_count, process_index
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Source, SourceImage, read_source
from geowarp_ros.types import FloatArray, Image

logger = logging.getLogger(__name__)
T = TypeVar("T")

Indices = NDArray[np.int64]

READERS = min(16, max(4, os.cpu_count() or 1))
"""Threads that decode images; decoding releases the interpreter's lock."""


class Photographs:
    """The images of a source at working size, decoded when first asked for and then kept.

    Attributes:
        names: Of each image.
        positions_m: (N, 2) east and north in one frame.
        queries: (N,) whether the source's split calls it a query.
        unreadable: Indices of images that could not be decoded; they are counted and passed over.
    """

    def __init__(
        self, images: Sequence[SourceImage], frame: LocalFrame, *, resolution: int = 0, memory_mb: int = 4096
    ) -> None:
        """Decode nothing yet.

        Args:
            images: What to read.
            frame: Where the positions are expressed; share it between sets that meet.
            resolution: Shorter side in px that images are resized to; 0: as they are.
            memory_mb: Decoded images are kept up to this much; the others are decoded each time.
        """
        self.images = tuple(images)
        self.names = tuple(image.place.name for image in self.images)
        latitudes = [image.place.latitude_deg for image in self.images]
        longitudes = [image.place.longitude_deg for image in self.images]
        self.positions_m: FloatArray = frame.to_enu(latitudes, longitudes)[:, :2]
        self.queries = np.array([is_query(image.split) for image in self.images], bool)
        self.unreadable: set[int] = set()
        self.resolution = resolution
        self._kept: dict[int, Image] = {}
        self._bytes_left = memory_mb << 20

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Image | None:
        """Return an image at working size, or None where it cannot be decoded (logged once, counted)."""
        if index in self.unreadable:
            return None
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        try:
            image = resize_shorter(self.images[index].read(), self.resolution)
        except (ImageError, SourceError, OSError) as error:
            self.unreadable.add(index)
            logger.warning("left out, the %d. unreadable image: %s", len(self.unreadable), error)
            return None
        if image.nbytes <= self._bytes_left:  # two threads may both count one image: the limit is no exact one
            self._bytes_left -= image.nbytes
            self._kept[index] = image
        return image

    def batch(self, indices: Sequence[int] | Indices, height: int, width: int) -> tuple[Tensor, NDArray[np.bool_]]:
        """Return images cut to one size, and which of them could be read.

        An image is scaled until it covers height × width, and its middle is taken.

        Returns:
            (B, 3, height, width) uint8, zeros where unreadable; (B,) readable.
        """
        pixels = np.zeros((len(indices), height, width, 3), np.uint8)
        readable = np.zeros(len(indices), bool)
        for row, index in enumerate(indices):
            image = self[int(index)]
            if image is not None:
                pixels[row], readable[row] = cover(image, height, width), True
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), readable


def is_query(split: str) -> bool:
    """Say whether a split's name means queries: ``query``, ``train/queries``, and so on."""
    return split.rsplit("/", 1)[-1].lower() in ("query", "queries")


def cover(image: Image, height: int, width: int) -> Image:
    """Scale ``image`` until it covers height × width, keeping its proportions, and take its middle."""
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
    utm_zone: str | None = "32N",
) -> tuple[SourceImage, ...]:
    """Read one split of each source, as the gallery's reader finds it.

    Args:
        sources: Whatever :func:`read_source` takes.
        split: ``train``, ``val/queries``, ``gallery`` …; None: everything.
        hold_out: Patterns (``*name*``) of images to leave out.
        only: Patterns of which an image must match one; empty: no such demand.
        utm_zone: For names that give none themselves.

    Raises:
        SourceError: A source that cannot be read, or lacks the split (the message names those it has).
        TrainingError: The patterns leave nothing.
    """
    found = [image for path in sources for image in read_source(path, split=split, utm_zone=utm_zone).images]
    kept = [
        image
        for image in found
        if not any(fnmatch.fnmatch(image.place.name, pattern) for pattern in hold_out)
        and (not only or any(fnmatch.fnmatch(image.place.name, pattern) for pattern in only))
    ]
    if not kept:
        raise TrainingError(
            f"none of {len(found)} images is left after hold-out {list(hold_out)} and {list(only)}"
        )
    return tuple(kept)


def has_split(sources: Sequence[Path], split: str, utm_zone: str | None = "32N") -> bool:
    """Say whether each of the sources has the split."""
    return all(_has_split(read_source(path, utm_zone=utm_zone), split) for path in sources)


def _has_split(source: Source, split: str) -> bool:
    return any(f"{name}/".startswith(f"{split}/") for name in source.splits if name)


def common_frame(*sets: Sequence[SourceImage]) -> LocalFrame:
    """Return the local frame about the first image: metres in which images of all sets can be compared."""
    first = next(image for images in sets for image in images)
    return LocalFrame(first.place.latitude_deg, first.place.longitude_deg)


def ahead(make: Callable[[int], T], items: Iterable[int], depth: int = READERS - 1) -> Iterator[T]:
    """Yield ``make(item)`` for each item in order, while the next ``depth`` are made in the background."""
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
    precision: torch.dtype = torch.float32,
    batch_size: int = 16,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Describe images whole, at working size, in eval mode; each process its share.

    Returns:
        (N, D); NaN where an image cannot be read.
    """
    wanted = np.arange(len(photographs)) if indices is None else np.asarray(indices)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    mine = np.array_split(np.arange(len(wanted)), process_count())[process_index()]
    found = np.full((len(mine), model.descriptor_dim), np.nan, np.float32)
    chunks = [range(start, min(start + 64, len(mine))) for start in range(0, len(mine), 64)]

    def decode(chunk: int) -> list[tuple[int, Image]]:
        pairs = ((row, photographs[int(wanted[mine[row]])]) for row in chunks[chunk])
        return [(row, image) for row, image in pairs if image is not None]

    for decoded in progress(ahead(decode, range(len(chunks))), len(chunks), "describe (x64)"):
        shapes = {image.shape for _, image in decoded}
        for shape in sorted(shapes):
            alike = [(row, image) for row, image in decoded if image.shape == shape]
            for start in range(0, len(alike), batch_size):
                rows, images = zip(*alike[start : start + batch_size], strict=True)
                tensor = to_tensor(images, device).contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                    feature_map = model.feature_map(tensor)
                found[list(rows)] = model.pool(feature_map).float().cpu().numpy()
    model.train(training)
    return np.concatenate(gather_objects(found))


@dataclass(frozen=True, slots=True)
class Views:
    """Augmented photographs.

    Attributes:
        images: (B, 3, H, W) normalised.
        quads: (B, 4, 2) where each view's corners lie on its photograph, from the view's own top-left clockwise.
        mirrored: Whether the batch was flipped as a whole.
    """

    images: Tensor
    quads: Tensor
    mirrored: bool


def flip_columns(quads: Tensor) -> Tensor:
    """Return the corners of the mirrored view on the same photograph: left and right change places."""
    return quads[:, [1, 0, 3, 2]]


class Augmentation:
    """Random views of a batch of photographs on its device: a tilted crop, a mirror image, colours, blur.

    The crop is a homography, so that planes are seen as from another place; colours are shaken because weather and
    cameras differ. Geometry is resampled once.
    """

    def __init__(
        self, *, tilt: float = 0.25, zoom: float = 0.5, colour: float = 0.35, mirror: bool = True
    ) -> None:
        """Choose how strong.

        Args:
            tilt: Largest shift of each corner, as a share of the crop's half side.
            zoom: Largest crop factor; 0.5 shows at least half of each side.
            colour: Strength of brightness, contrast, saturation and gamma changes; 0: none.
            mirror: Flip half of the batches, each as a whole: a mirrored place is another place.
        """
        self.tilt, self.zoom, self.colour, self.mirror = tilt, zoom, colour, mirror

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, H, W) uint8 -> normalised float32 of the same size, by random numbers of a CPU generator."""
        return self.views(pixels, generator).images

    def views(self, pixels: Tensor, generator: torch.Generator) -> Views:
        """Return the views and how they were made."""
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
        return Views(images, flip_columns(quads) if mirrored else quads, mirrored)

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
