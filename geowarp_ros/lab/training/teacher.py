"""Networks that a student learns from, frozen: by their descriptors, by their feature maps, without labels.

Any model of ours is one: a published network that was imported, or the model that ships. Another is SqueezeNet 1.0
(Iandola et al., 2016) with torchvision's state-dict keys.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

from geowarp_ros.errors import ImageError, ModelError, SourceError, TrainingError
from geowarp_ros.files import write_whole
from geowarp_ros.images import resize_shorter, to_tensor
from geowarp_ros.lab.training.data import Photographs, ahead
from geowarp_ros.lab.training.descriptor_losses import squared_distances
from geowarp_ros.model.aggregation import GeM, l2_norm
from geowarp_ros.model.checkpoints import check_tensors, digest_of, load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import CHANNELS
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.installed import find_weights
from geowarp_ros.model.published import read_state_dict
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Image

logger = logging.getLogger(__name__)


class Teacher(Protocol):
    """A frozen network that a student learns from."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of its maps; the last one is compared with the student's feature map."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify its weights."""
        ...

    def prepare(self, image: Image) -> Image:
        """Return an image at its working resolution."""
        ...

    def describe(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Prepared images -> descriptors (B, D); a small Euclidean distance means alike."""
        ...

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised -> maps (B, C, h, w), the finest first."""
        ...


class Network:
    """A model of ours as a teacher: its descriptor, and its encoder's feature map."""

    def __init__(self, model: GeoWarp, device: torch.device | str = "cpu") -> None:
        self._describer = Describer(model, device)
        self.channels = (CHANNELS[model.config.encoder],)
        self.fingerprint = self._describer.fingerprint
        self.prepare = self._describer.prepare

    def describe(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Describe as a gallery would be."""
        return self._describer.describe_batch(images)[0]

    @torch.no_grad()
    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the encoder's feature map."""
        return (self._describer.network.feature_map(images),)


class Fire(nn.Module):
    """Fire module: 1×1 squeeze, then parallel 1×1 and 3×3 expansion."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, 2·expand, h, w)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(nn.Module):
    """Feature layers up to the last Fire module; its descriptor is GeM of fire9's map, p = 3.

    Attributes:
        channels: Channels of the output maps after fire8 (stride 8) and fire9 (stride 16).
        resolution: Shorter side of the images that are described (px).
    """

    channels = (512, 512)
    resolution = 240

    def __init__(self) -> None:
        super().__init__()

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, 2),
            nn.ReLU(inplace=True),
            pool(),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            pool(),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            pool(),
            Fire(512, 64, 256),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> maps after fire8 and fire9."""
        middle = self.features[:11](images)
        return middle, self.features[11:](middle)

    maps = forward

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify its weights."""
        return digest_of(self.state_dict())

    def prepare(self, image: Image) -> Image:
        """Return an image at the working resolution."""
        return resize_shorter(image, self.resolution)

    @torch.no_grad()
    def describe(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Describe images one by one: their sizes may differ."""
        device, pool = next(self.parameters()).device, GeM()
        maps = (self(to_tensor(image, device))[1].cpu() for image in images)
        return np.concatenate([pool(l2_norm(found)).numpy() for found in maps])


def load_teacher(name: Path | str, device: torch.device | str = "cpu") -> Teacher:
    """Load a teacher, frozen and in eval mode.

    Args:
        name: A model that :func:`~geowarp_ros.model.checkpoints.load_model` reads, or torchvision's SqueezeNet 1.0
            state dict (``.pt``, ``.pth``).
        device: Where it computes.

    Raises:
        ModelError: The file is absent or neither.
    """
    path = find_weights(name)
    if path.suffix not in (".pt", ".pth"):
        return Network(load_model(path, device), device)
    features = {key: value for key, value in read_state_dict(path).items() if key.startswith("features.")}
    teacher = SqueezeNet()
    try:
        check_tensors(features, teacher.state_dict(), str(path))
    except ModelError as error:
        raise ModelError(
            f"{error}: of state dicts only SqueezeNet 1.0's can teach; others are models after"
            " 'geowarp import-weights'"
        ) from None
    teacher.load_state_dict(features)
    teacher.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher.eval().requires_grad_(False)


def described_by(
    teacher: Teacher, photographs: Photographs, file: Path, progress: Progress = silent
) -> NDArray[np.float32]:
    """Return a teacher's descriptors (N, D) of photographs, mapped from ``file``; NaN where one cannot be read.

    They are computed once. What a stopped run has described stays; all of it is made again for another teacher, or
    if a photograph was added, left out or changed.

    Raises:
        TrainingError: The file cannot be written, or no photograph can be read.
    """
    made_of, note = _origin(teacher, photographs), file.with_suffix(".json")
    try:
        found = _kept(file, note, made_of, len(photographs))
        if found is None:
            note.unlink(missing_ok=True)
            dimension = _dimension(teacher, photographs)
            found = np.lib.format.open_memmap(
                file, mode="w+", dtype=np.float32, shape=(len(photographs), dimension)
            )
            found[:] = np.nan
            found.flush()
            write_whole(note, made_of.encode(), TrainingError)
        # of a row that a killed run left half written, the rest is NaN
        todo = np.flatnonzero(~np.isfinite(found.sum(axis=1)))
        decoded = progress(
            ahead(lambda row: (row, _prepared(teacher, photographs, row)), todo),
            len(todo),
            "teacher: images",
        )
        readable = ((row, image) for row, image in decoded if image is not None)
        while batch := list(islice(readable, 16)):
            rows, images = zip(*batch, strict=True)
            found[list(rows)] = teacher.describe(images)
        found.flush()
    except OSError as error:
        raise TrainingError(f"{file}: cannot be written: {error.strerror or error}") from None
    return found


def _kept(file: Path, note: Path, made_of: str, count: int) -> np.memmap[Any, np.dtype[np.float32]] | None:
    """Return what an earlier run left, if it is of the same teacher and photographs."""
    try:
        if note.read_text(encoding="utf-8") != made_of:
            logger.info("%s: is of another teacher or other photographs, made again", file)
            return None
        found = np.lib.format.open_memmap(file, mode="r+")
    except (OSError, ValueError):
        return None
    return found if found.ndim == 2 and len(found) == count and found.dtype == np.float32 else None


def _origin(teacher: Teacher, photographs: Photographs) -> str:
    digest = hashlib.sha256()
    for image in photographs.images:
        state = image.path.stat() if image.path and image.path.exists() else None
        size, changed = (state.st_size, state.st_mtime_ns) if state else (0, 0)
        digest.update(f"{image.place.name}\0{size}\0{changed}\0".encode())
    made_of = {"teacher": teacher.fingerprint, "photographs": digest.hexdigest()[:16]}
    return json.dumps(made_of, indent=2) + "\n"


def _dimension(teacher: Teacher, photographs: Photographs) -> int:
    for row in range(len(photographs)):
        if (image := _prepared(teacher, photographs, row)) is not None:
            return int(teacher.describe([image]).shape[1])
    raise TrainingError(f"none of {len(photographs)} photographs can be read")


def _prepared(teacher: Teacher, photographs: Photographs, row: int) -> Image | None:
    try:
        return teacher.prepare(photographs.images[row].read())
    except (ImageError, SourceError, OSError) as error:
        logger.warning("the teacher skips an unreadable image: %s", error)
        return None


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Relational knowledge distillation by distances (Park et al., CVPR 2019, eq. 4-6).

    The distances of all pairs of a batch, each network's divided by their mean, are compared by Huber's loss. It
    is 0 for any student whose descriptors are the teacher's, turned and scaled; the dimensions may differ.

    Args:
        student: (B, D).
        teacher: (B, D'); rows with NaN are left out.

    Returns:
        Scalar, the mean over pairs; 0 for fewer than two rows.
    """
    known = teacher.isfinite().all(dim=1)
    if int(known.sum()) < 2:
        return student.sum() * 0
    pairs = ~torch.eye(int(known.sum()), dtype=torch.bool, device=student.device)
    found, wanted = (
        squared_distances(rows[known], rows[known])[pairs].clamp(min=1e-12).sqrt() for rows in (student, teacher)
    )
    return F.smooth_l1_loss(found / found.mean(), wanted / wanted.mean())


def agreement(student: NDArray[np.float32], teacher: NDArray[np.float32], most: int = 10) -> float:
    """Return the mean share, in percent, of a photograph's nearest by the teacher that are nearest to the student.

    Args:
        student: (N, D); rows with NaN, here or there, are left out.
        teacher: (N, D').
        most: Number of nearest photographs compared, at most half of the others; chance grows with it.
    """
    known = np.isfinite(student).all(axis=1) & np.isfinite(teacher).all(axis=1)
    count = max(1, min(most, int(known.sum() - 1) // 2))
    nearest = []
    for rows in (torch.from_numpy(student[known]), torch.from_numpy(teacher[known])):
        distances = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
        chosen = torch.zeros_like(distances, dtype=torch.bool)
        nearest.append(chosen.scatter_(1, distances.topk(count, largest=False).indices, True))
    return 100 * float((nearest[0] & nearest[1]).sum()) / max(1, int(nearest[0].sum()))
