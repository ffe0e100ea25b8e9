"""Joint training on several image sets ("grounds"), each with its own definition of a place.

A recipe is a YAML file of grounds and training parameters; those of the shipped model are in ``docs/recipes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Photographs, common_frame, positions_in, read_photographs
from geowarp_ros.lab.training.mining import Indices, Mask, PlaceConfig
from geowarp_ros.readers import SourceImage

PLACES_PER_GROUP = 3
"""A batch consists of groups of similar places with two adjacent images each."""

IMAGES_PER_GROUP = 2 * PLACES_PER_GROUP


class Ground(PlaceConfig):
    """An image set and its definition of a place."""

    path: str = Field(description="Folder, CSV file or bag, relative to the data folder.")
    split: str = Field("", description="Training split; empty: all images that are not held out.")
    val_split: str = Field("", description="Validation split; ignored with hold_out.")
    share: float = Field(1.0, gt=0.0, description="Sampling weight relative to the other grounds.")
    heading_deg: float = Field(
        180.0, gt=0.0, le=180.0, description="Maximum heading difference of positives (deg)."
    )
    surroundings_m: float = Field(1e5, gt=0.0, description="Maximum distance of a place's rivals (m).")


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
    """

    def __init__(self, grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int) -> None:
        """Read names and positions, without decoding images.

        Raises:
            TrainingError: The radii contradict each other, or no image of a ground has a positive.
        """
        images: list[SourceImage] = []
        self.neighbours: list[Indices] = []
        self.rivals: list[Indices] = []
        same, close, weights = [], [], []
        for ground in grounds:
            ground.check_radii()
            found = read_photographs([data / ground.path], ground.split or None, hold_out=ground.hold_out)
            near, far, around = _pairs(ground, found)
            usable: Mask = np.asarray(near.any(axis=1))
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
        self.photographs = Photographs(images, common_frame(images), resolution=resolution, memory_mb=memory_mb)
        self.same, self.different = torch.block_diag(*same), ~torch.block_diag(*close)
        each = np.concatenate(weights)
        self.anchors = np.flatnonzero(each)
        self.weights = each[self.anchors] / each.sum()

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


def validation_images(ground: Ground, data: Path) -> tuple[SourceImage, ...]:
    """Return the held-out images or the validation split of a ground; empty if it has neither."""
    if ground.hold_out:
        return read_photographs([data / ground.path], None, only=ground.hold_out)
    return read_photographs([data / ground.path], ground.val_split) if ground.val_split else ()


def read_validation(
    grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int
) -> list[tuple[Photographs, float]]:
    """Return the validation images of each ground that has some, with the radius of correct candidates (m).

    Raises:
        TrainingError: No ground has any.
    """
    found = []
    for ground in grounds:
        if images := validation_images(ground, data):
            photographs = Photographs(images, common_frame(images), resolution=resolution, memory_mb=memory_mb)
            found.append((photographs, ground.val_radius_m))
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
