"""Joint training on several image sets ("grounds"), each with its own definition of a place.

A recipe is a YAML file of grounds and training parameters; those of the shipped model are in ``docs/recipes``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from geowarp_ros.errors import SourceError, TrainingError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import read_image
from geowarp_ros.lab.training.data import (
    Photographs,
    common_frame,
    matches_any,
    positions_in,
    read_photographs,
    share_of,
    split_by_area,
)
from geowarp_ros.lab.training.mining import Indices, Mask, PlaceConfig
from geowarp_ros.lab.training.parameters import Reading
from geowarp_ros.readers import SourceImage
from geowarp_ros.readers.bag_files import is_bag
from geowarp_ros.readers.folders import photographs_below
from geowarp_ros.readers.source import printable
from geowarp_ros.types import Place

PLACES_PER_GROUP = 3
"""A batch consists of groups of similar places with two adjacent images each."""

IMAGES_PER_GROUP = 2 * PLACES_PER_GROUP

TAUGHT_NEIGHBOURS = 4
"""Photographs nearest to the teacher that are drawn together, where no position tells what a place is."""


class Ground(PlaceConfig, Reading):
    """An image set and its definition of a place."""

    path: str = Field(description="Folder, CSV file or bag, relative to the data folder.")
    split: str = Field("", description="Training split; empty: all images that are not held out.")
    val_split: str = Field("", description="Validation split; ignored with hold_out.")
    share: float = Field(1.0, gt=0.0, description="Sampling weight relative to the other grounds.")
    heading_deg: float = Field(
        180.0, gt=0.0, le=180.0, description="Maximum heading difference of positives (deg)."
    )
    surroundings_m: float = Field(1e5, gt=0.0, description="Maximum distance of a place's rivals (m).")
    labels: bool = Field(
        True, description="Whether positions tell places apart; false: a teacher does, and they may be unknown."
    )


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file as a mapping of parameters.

    ``extends`` names a recipe in the same folder that provides defaults.

    Raises:
        TrainingError: A file is absent or invalid.
    """
    values: dict[str, Any] = {}
    read: list[Path] = []
    while True:
        if path in read:
            raise TrainingError(f"{path}: extends itself, by way of {', '.join(each.name for each in read)}")
        read.append(path)
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TrainingError(f"{path}: is no recipe: {error}") from None
        if not isinstance(found, dict):
            kind = type(found).__name__
            raise TrainingError(f"{path}: is no recipe: expected a mapping of parameters, found {kind}")
        values = {**found, **values}
        if (shared := values.pop("extends", None)) is None:
            return values
        path = path.parent / str(shared)


class Lesson:
    """Images of all grounds with pair labels, and the sampling of batches.

    Pair labels are dense (N, N): 50 MB for the 7000 images of the shipped model. For more than about 20 000 images
    use ``geowarp train retrieval``.

    Attributes:
        photographs: Images of all grounds, concatenated.
        same: (N, N) bool, same place; False on the diagonal.
        different: (N, N) bool, certainly different places.
        taught: Rows of the grounds without labels, see :meth:`learn`.
    """

    def __init__(self, grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int) -> None:
        """Read names and positions, without decoding images.

        Raises:
            TrainingError: The radii contradict each other, or no image of a ground has a positive.
        """
        images: list[SourceImage] = []
        self.taught: list[slice] = []
        self.neighbours: list[Indices] = []
        self.rivals: list[Indices] = []
        same, close, weights = [], [], []
        for ground in grounds:
            ground.check_radii()
            found = training_images(ground, data)
            if ground.labels:
                near, far, around = _pairs(ground, found)
                usable: Mask = np.asarray(near.any(axis=1))
            else:
                near = far = around = np.zeros((len(found), len(found)), bool)
                usable = np.ones(len(found), bool)
                self.taught.append(slice(len(images), len(images) + len(found)))
            if not usable.any():
                radius_m = ground.positive_radius_m
                raise TrainingError(
                    f"{ground.path}: none of {len(usable)} images has another within {radius_m:g} m"
                )
            self.neighbours += [len(images) + np.flatnonzero(row) for row in near]
            self.rivals += [len(images) + np.flatnonzero(row) for row in around & usable]
            same.append(torch.from_numpy(near))
            close.append(torch.from_numpy(~far))
            weights.append(ground.share * usable / usable.sum())
            images += found
        self.photographs = Photographs(images, frame_of(images), resolution=resolution, memory_mb=memory_mb)
        self.same, self.different = torch.block_diag(*same), ~torch.block_diag(*close)
        each = np.concatenate(weights)
        self.anchors = np.flatnonzero(each)
        self.weights = each[self.anchors] / each.sum()

    def learn(self, descriptors: NDArray[np.float32]) -> None:
        """Take what is near and what is far in the grounds without labels from a teacher.

        The photographs nearest to one are drawn with it; two, each in the other's farther half, count as different
        places.

        Args:
            descriptors: (N, D) of the teacher; NaN rows (unreadable images) are near to none and far from none.
        """
        for part in self.taught:
            rows = torch.from_numpy(np.array(descriptors[part]))
            distances = torch.cdist(rows, rows).nan_to_num(nan=torch.inf).fill_diagonal_(torch.inf)
            apart, nearest = distances.topk(min(TAUGHT_NEIGHBOURS, len(rows)), largest=False)
            for row, known, found in zip(range(part.start, part.stop), apart.isfinite(), nearest, strict=True):
                self.neighbours[row] = part.start + found[known].numpy()
            far = (distances > distances.median(dim=1, keepdim=True).values) & distances.isfinite()
            self.different[part, part] = far & far.T

    def draw(
        self, rng: np.random.Generator, groups: int, look_alikes: Indices | None, same_photograph: float
    ) -> Indices:
        """Sample a batch: groups of an anchor place and two rivals, two images each.

        Rivals are drawn from the anchor's surroundings; with known look-alikes, the first rival and 40 % of the
        second ones are look-alikes.

        Args:
            rng: Random generator.
            groups: Number of groups; a batch has six images per group.
            look_alikes: (N, K) from :meth:`look_alikes`, padded with -1.
            same_photograph: Share of pairs that repeat one image (two views of it).
        """
        places: list[int] = []
        for anchor in rng.choice(self.anchors, groups, p=self.weights):
            places.append(int(anchor))
            for rival in range(PLACES_PER_GROUP - 1):
                known = look_alikes[anchor] if look_alikes is not None else np.zeros(0, np.int64)
                known = known[known >= 0]
                if not len(known) or (rival and rng.random() < 0.6):
                    known = self.rivals[anchor] if len(self.rivals[anchor]) else self.anchors
                places.append(int(rng.choice(known)))
        chosen: list[int] = []
        for place in places:
            near = self.neighbours[place]
            chosen += [place, int(rng.choice(near)) if len(near) and rng.random() > same_photograph else place]
        return np.array(chosen, np.int64)

    def look_alikes(self, descriptors: NDArray[np.float32], count: int = 8) -> Indices:
        """Return for each image the most similar images of different places (N, ``count``), padded with -1.

        Args:
            descriptors: (N, D); NaN rows (unreadable images) are ignored.
            count: Number of look-alikes.
        """
        rows = torch.from_numpy(descriptors)
        found = []
        for start in range(0, len(rows), 512):  # in blocks to limit memory
            block = slice(start, start + 512)
            distances = torch.cdist(rows[block], rows).nan_to_num(nan=torch.inf, posinf=torch.inf)
            distances[~self.different[block]] = torch.inf
            nearest, indices = distances.topk(min(count, len(rows)), largest=False)
            indices[torch.isinf(nearest)] = -1
            found.append(indices)
        result: Indices = torch.cat(found).numpy()
        return result

    def pairs(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return the same-place and different-place masks (B, B) of a batch; repeated images share a place."""
        rows = torch.from_numpy(indices)
        same = self.same[rows][:, rows] | (rows[:, None] == rows[None])
        same &= ~torch.eye(len(rows), dtype=torch.bool)
        return same, self.different[rows][:, rows]


def training_images(ground: Ground, data: Path) -> Sequence[SourceImage]:
    """Return the images of a ground that are not held out."""
    path = data / ground.path
    if ground.labels:
        return read_photographs([path], ground.split or None, hold_out=ground.hold_out, reading=ground)
    images = read_unlabelled(path, ground.split, ground)
    return (
        images
        if ground.val_split and not ground.hold_out
        else apart(images, ground.hold_out, ground.negative_radius_m)[0]
    )


def validation_images(ground: Ground, data: Path) -> Sequence[SourceImage]:
    """Return the held-out images or the validation split of a ground; empty if it has neither.

    Of a ground without labels and either, they are every tenth run of up to ten images.
    """
    path = data / ground.path
    if not ground.labels and not (ground.val_split and not ground.hold_out):
        return apart(read_unlabelled(path, ground.split, ground), ground.hold_out, ground.negative_radius_m)[1]
    if ground.hold_out:
        return read_photographs([path], None, only=ground.hold_out, reading=ground)
    return read_photographs([path], ground.val_split, reading=ground) if ground.val_split else ()


def apart(
    images: Sequence[SourceImage], hold_out: Sequence[str], gap_m: float, seed: int = 0
) -> tuple[Sequence[SourceImage], Sequence[SourceImage]]:
    """Part images into those to train on and those held out.

    Args:
        images: In the order that they were taken.
        hold_out: Name patterns; or a share, by area; empty: every tenth run of up to ten.
        gap_m: Least distance between the two of a split by area, m.
        seed: Seed of its draw.

    Raises:
        TrainingError: One of the two is empty, or the images cannot be split by area.
    """
    if (share := share_of(hold_out)) is not None:
        if not all(math.isfinite(image.place.latitude_deg) for image in images):
            raise TrainingError(f"hold_out {share:g}: images without positions cannot be split by area")
        return split_by_area(images, share, gap_m, seed)
    run = max(1, min(10, len(images) // 10))  # neighbouring images of a drive overlap
    held = [
        matches_any(image.place.name, hold_out) if hold_out else index // run % 10 == 9
        for index, image in enumerate(images)
    ]
    kept, held_out = (
        tuple(image for image, out in zip(images, held, strict=True) if out is it) for it in (False, True)
    )
    if not kept or not held_out:
        raise TrainingError(
            f"{len(kept)} images are left to train on and {len(held_out)} are held out: expected some of both"
        )
    return kept, held_out


def read_unlabelled(source: Path, split: str, reading: Reading) -> tuple[SourceImage, ...]:
    """Read the images of a source; those of a folder tree need no position, and are at NaN without.

    Args:
        source: As for :func:`~geowarp_ros.readers.read_source`.
        split: Split to read; empty: all.
        reading: How positions are read.

    Raises:
        SourceError: The source cannot be read, lacks the split, or holds no image.
    """
    try:
        placed = read_photographs([source], split or None, reading=reading)
    except SourceError:
        if split or not _is_tree(source):
            raise
        placed = ()
    if split or not _is_tree(source):
        return placed
    known = {image.path: image for image in placed}
    names = {path: printable(path.relative_to(source).as_posix()) for path in photographs_below(source)}
    return tuple(
        known.get(path) or SourceImage(Place(name, math.nan, math.nan), partial(read_image, path), path)
        for path, name in names.items()
    )


def _is_tree(source: Path) -> bool:
    """Whether it is a folder of images that nothing but themselves tells the positions of."""
    plain = source.is_dir() and not is_bag(source) and not (source / "positions.csv").is_file()
    return plain and bool(photographs_below(source))


def frame_of(images: Sequence[SourceImage]) -> LocalFrame:
    """Return the ENU frame at the first image that has a position."""
    placed = [image for image in images if math.isfinite(image.place.latitude_deg)]
    return common_frame(placed) if placed else LocalFrame(0.0, 0.0)


@dataclass(frozen=True)
class HeldOut:
    """The validation images of a ground.

    Attributes:
        photographs: The images.
        radius_m: Maximum distance of a correct candidate.
        labels: Whether positions tell places apart; otherwise a teacher does.
    """

    photographs: Photographs
    radius_m: float
    labels: bool

    @property
    def placed(self) -> bool:
        """Whether all positions are known, and some image has another within the radius."""
        photographs = self.photographs
        if not np.isfinite(photographs.positions_m).all():
            return False
        return any(len(near) for near in photographs.near(self.radius_m, *photographs.roles()))


def read_validation(grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int) -> list[HeldOut]:
    """Read the validation images of each ground that has some.

    Raises:
        TrainingError: No ground has any.
    """
    found = []
    for ground in grounds:
        if images := validation_images(ground, data):
            photographs = Photographs(images, frame_of(images), resolution=resolution, memory_mb=memory_mb)
            found.append(HeldOut(photographs, ground.val_radius_m, ground.labels))
    if not found:
        raise TrainingError("no ground has hold_out or val_split: nothing to choose the checkpoint by")
    return found


def _pairs(ground: Ground, images: Sequence[SourceImage]) -> tuple[Mask, Mask, Mask]:
    """Return (n, n) masks: same place, different place, different place within the surroundings."""
    positions_m = positions_in(common_frame(images), images)
    same, different = ground.label(positions_m, [image.place.name for image in images])
    headings = np.array([image.place.heading_deg for image in images])
    turned = np.abs((headings[:, None] - headings[None] + 180) % 360 - 180)
    same &= ~(turned > ground.heading_deg)  # NaN (unknown heading) compares false
    np.fill_diagonal(same, False)
    apart_m = np.linalg.norm(positions_m[:, None] - positions_m[None], axis=2)
    return same, different, different & (apart_m <= ground.surroundings_m)
