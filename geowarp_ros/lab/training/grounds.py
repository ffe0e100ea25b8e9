"""Several sets of photographs trained on together, each with its own idea of what one place is.

A drone's place is thirty metres wide, a corridor's two. A recipe is a YAML file that names the sets and how to
train on them; the one of the model that ships is in ``docs/recipes``.
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

from geowarp_ros.config import Section
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Indices, Photographs, common_frame, read_photographs
from geowarp_ros.lab.training.mining import check_radii, same_and_different
from geowarp_ros.lab.training.retrieval import Places
from geowarp_ros.readers import SourceImage

PLACES_PER_GROUP = 3
"""A batch is groups of places that are easily taken for one another, two photographs of each, side by side."""

IMAGES_PER_GROUP = 2 * PLACES_PER_GROUP


class Ground(Section):
    """One set of photographs, and what "the same place" means in it."""

    path: str = Field(description="Folder, CSV or bag; relative to the data folder.")
    split: str = Field("", description="Split to train on; empty: everything that is not held out.")
    hold_out: tuple[str, ...] = Field((), description="Name patterns kept out of the training, to validate on.")
    val_split: str = Field("", description="Split to validate on, where nothing is held out.")
    val_radius_m: float = Field(25.0, gt=0.0, description="A candidate this near is right in validation, in m.")
    share: float = Field(1.0, gt=0.0, description="Of the batches, relative to the other sets.")
    positive_radius_m: float = Field(10.0, gt=0.0, description="The same place up to here, in m.")
    negative_radius_m: float = Field(25.0, gt=0.0, description="Another place beyond this, in m.")
    heading_deg: float = Field(180.0, gt=0.0, le=180.0, description="One place's headings differ by less, deg.")
    surroundings_m: float = Field(1e5, gt=0.0, description="Other places up to here are a place's rivals, in m.")
    ambiguous_m: float = Field(
        0.0, ge=0.0, description="Images of one folder farther apart than this are never negatives, in m; 0: off."
    )


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe file: a mapping of parameters.

    ``extends`` names another one, beside it, whose parameters hold where this one gives none: what the stages of
    one training share.

    Raises:
        TrainingError: A file is absent or holds something else.
    """
    values: dict[str, Any] = {}
    read: list[Path] = []
    while True:
        if path in read:
            raise TrainingError(f"{path}: extends itself, by way of {', '.join(each.name for each in read)}")
        read.append(path)
        values = {**_read_mapping(path), **values}
        if (shared := values.pop("extends", None)) is None:
            return values
        path = path.parent / str(shared)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path}: is no recipe: {error}") from None
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path}: is no recipe: expected a mapping of parameters, found {type(values).__name__}"
        )
    return values


class Lesson:
    """The photographs of all grounds, which pairs show one place, and batches that teach.

    The table of pairs is (N, N): 50 MB for the 7000 images of the model that ships; sets of more than some
    20 000 want ``geowarp train retrieval``.

    Attributes:
        photographs: All of them, one after the other.
        same: (N, N) bool, the same place; False on the diagonal.
        different: (N, N) bool, surely another place.
    """

    def __init__(self, grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int) -> None:
        """Read names and positions; nothing is decoded.

        Raises:
            TrainingError: Radii that contradict, or a ground on which no image has another of its place.
        """
        images: list[SourceImage] = []
        blocks: list[tuple[Ground, slice]] = []
        for ground in grounds:
            check_radii(ground.positive_radius_m, ground.negative_radius_m)
            found = read_photographs([data / ground.path], ground.split or None, hold_out=ground.hold_out)
            blocks.append((ground, slice(len(images), len(images) + len(found))))
            images += found
        self.photographs = Photographs(images, common_frame(images), resolution=resolution, memory_mb=memory_mb)
        count = len(images)
        same, different = np.zeros((count, count), bool), np.ones((count, count), bool)
        self.neighbours: list[Indices] = []
        self.rivals: list[Indices] = []
        weights = np.zeros(count)
        for ground, block in blocks:
            near, far, around = _pairs(ground, images[block])
            same[block, block], different[block, block] = near, far
            self.neighbours += [block.start + np.flatnonzero(row) for row in near]
            self.rivals += [block.start + np.flatnonzero(row) for row in around & near.any(axis=1)]
            usable: NDArray[np.bool_] = np.asarray(near.any(axis=1))
            if not usable.any():
                radius_m = ground.positive_radius_m
                raise TrainingError(
                    f"{ground.path}: none of {len(usable)} images has another within {radius_m:g} m"
                )
            weights[block] = ground.share * usable / usable.sum()
        self.anchors = np.flatnonzero(weights)
        self.weights = weights[self.anchors] / weights.sum()
        self.same, self.different = torch.from_numpy(same), torch.from_numpy(different)

    def draw(
        self, rng: np.random.Generator, groups: int, look_alikes: Indices | None, same_photograph: float
    ) -> Indices:
        """Choose a batch: groups of three places that are easily taken for one another, two photographs each.

        A place's rivals are from its surroundings; once look-alikes are known, one of them for certain and
        another now and then.

        Args:
            rng: Decides.
            groups: How many; a batch has six times as many images.
            look_alikes: (N, K) as :meth:`look_alikes` finds them, -1 where there are fewer.
            same_photograph: Share of the pairs that are one photograph twice, for two views of it.
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
        """Return for each photograph those of surely other places that are most like it, -1 where there are fewer.

        Args:
            descriptors: (N, D); NaN rows are unreadable and nobody's look-alike.
            count: How many.
        """
        rows = torch.from_numpy(descriptors)
        found = []
        for start in range(0, len(rows), 512):  # a block at a time: the whole table is large
            block = slice(start, start + 512)
            distances = torch.cdist(rows[block], rows).nan_to_num(nan=torch.inf, posinf=torch.inf)
            distances[~self.different[block]] = torch.inf
            nearest, indices = distances.topk(min(count, len(rows)), largest=False)
            indices[torch.isinf(nearest)] = -1
            found.append(indices)
        result: Indices = torch.cat(found).numpy()
        return result

    def pairs(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return (B, B) bool, which of a batch show one place – two views of one photograph do – and which not."""
        rows = torch.from_numpy(indices)
        same = self.same[rows][:, rows] | (rows[:, None] == rows[None])
        same &= ~torch.eye(len(rows), dtype=torch.bool)
        return same, self.different[rows][:, rows]


def read_validation(
    grounds: Sequence[Ground], data: Path, *, resolution: int, memory_mb: int
) -> list[tuple[Places, float]]:
    """Return the held-out places of each ground that has some, with the radius within which a candidate is right.

    Raises:
        TrainingError: No ground has any.
    """
    found = []
    for ground in grounds:
        if ground.hold_out:
            images = read_photographs([data / ground.path], None, only=ground.hold_out)
        elif ground.val_split:
            images = read_photographs([data / ground.path], ground.val_split)
        else:
            continue
        photographs = Photographs(images, common_frame(images), resolution=resolution, memory_mb=memory_mb)
        found.append((Places.of(photographs), ground.val_radius_m))
    if not found:
        raise TrainingError("no ground has hold_out or val_split: nothing to choose the checkpoint by")
    return found


def _pairs(
    ground: Ground, images: Sequence[SourceImage]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Same place, other place, and other place of the surroundings: (n, n) bool each."""
    frame = common_frame(images)
    positions_m = frame.to_enu([i.place.latitude_deg for i in images], [i.place.longitude_deg for i in images])[
        :, :2
    ]
    same, different = same_and_different(
        positions_m,
        positive_radius_m=ground.positive_radius_m,
        negative_radius_m=ground.negative_radius_m,
        names=[image.place.name for image in images],
        ambiguous_m=ground.ambiguous_m,
    )
    headings = np.array([image.place.heading_deg for image in images])
    turned = np.abs((headings[:, None] - headings[None] + 180) % 360 - 180)
    same &= ~(turned > ground.heading_deg)  # unknown headings (NaN) do not part
    np.fill_diagonal(same, False)
    around, _ = same_and_different(positions_m, positive_radius_m=ground.surroundings_m, negative_radius_m=np.inf)
    return same, different, different & around
