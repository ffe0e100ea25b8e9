"""Joint training of encoder, score and warp from geotagged images, optionally from scratch with a teacher.

Loss terms:

- places: contrastive loss over global descriptors (softmax over squared distances);
- cells: contrastive loss over local features, with counterparts from two crops of an image or from SIFT matches;
- teacher: feature distillation by the direction of projected feature maps (Romero et al., "FitNets", ICLR 2015);
- relation: the teacher's distances between images, of their descriptors (Park et al., "Relational knowledge
  distillation", CVPR 2019); needs no labels;
- score: ranking of warped pairs by their score (eq. 4);
- warp: self-supervised training of the regression on generated pairs (eq. 11-13).

The result is an exponential moving average of the weights.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from geowarp_ros.errors import TrainingError
from geowarp_ros.geometry import quad_from_frame, transform_points
from geowarp_ros.lab.training.data import Augmentation, Photographs, describe, random_maps
from geowarp_ros.lab.training.descriptor_losses import contrastive_loss
from geowarp_ros.lab.training.grounds import IMAGES_PER_GROUP, Ground, HeldOut, Lesson, read_validation
from geowarp_ros.lab.training.matches import Matches, Points
from geowarp_ros.lab.training.mining import Indices
from geowarp_ros.lab.training.objective import WarpLosses, regression_of
from geowarp_ros.lab.training.parameters import SessionConfig
from geowarp_ros.lab.training.processes import process_count
from geowarp_ros.lab.training.ranking import draw_contests, ranking_loss, warped_pairs
from geowarp_ros.lab.training.retrieval import recall_of, train_mode
from geowarp_ros.lab.training.session import (
    LAST_MODEL,
    PRECISIONS,
    Session,
    parameter_groups,
    seeded,
    training_device,
)
from geowarp_ros.lab.training.teacher import Teacher, agreement, described_by, relation_loss
from geowarp_ros.lab.training.warping import with_regression
from geowarp_ros.model.encoders import CHANNELS, EncoderName
from geowarp_ros.model.fused import Fused
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import Precision
from geowarp_ros.model.matching import pool_local_features
from geowarp_ros.model.runtimes import in_runtime
from geowarp_ros.progress import Progress, silent

logger = logging.getLogger(__name__)

STUDENTS: dict[EncoderName, tuple[int, int]] = {
    "resnet18": (-1, 128),
    "resnet50": (-1, 512),
    "mobilenet_v2": (7, 32),
}
"""Encoder -> its first layer behind the map of stride 8, as the teacher's, and that map's channels."""


class Distillation(SessionConfig):
    """Parameters of a recipe (``geowarp train distill``)."""

    grounds: tuple[Ground, ...] = Field((), description="Image sets.")
    height: int = Field(160, ge=32, description="Height of the training images (px).")
    width: int = Field(272, ge=32, description="Width of the training images (px).")
    resolution: int = Field(192, ge=0, description="Shorter side after resizing (px); 0: original size.")
    memory_mb: int = Field(4096, ge=0, description="Cache of decoded images (MiB).")
    tilt: float = Field(0.06, ge=0.0, lt=1.0, description="Maximum corner shift of crops (half crop sides).")
    zoom: float = Field(0.25, ge=0.0, lt=1.0, description="Maximum share of each side cropped away.")
    colour: float = Field(0.2, ge=0.0, lt=1.0, description="Strength of the colour jitter.")
    mirror: bool = Field(True, description="Flip half of the batches horizontally.")
    iterations: int = Field(2000, ge=1, description="Number of steps; the learning rate follows a cosine.")
    batch_size: int = Field(48, ge=6, multiple_of=IMAGES_PER_GROUP, description="Images per step.")
    learning_rate: float = Field(8e-4, gt=0.0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.03, ge=0.0, description="Weight decay of AdamW; not on biases and norms.")
    teacher_weight: float = Field(0.0, ge=0.0, description="Weight of the loss on the teacher's feature maps.")
    relation_weight: float = Field(
        0.0, ge=0.0, description="Weight of the loss on the teacher's distances between images."
    )
    place_weight: float = Field(1.0, ge=0.0, description="Weight of the place loss.")
    temperature: float = Field(0.0025, gt=0.0, description="Temperature of the place loss (squared distance).")
    cell_weight: float = Field(0.15, ge=0.0, description="Weight of the cell loss.")
    cell_temperature: float = Field(0.07, gt=0.0, description="Temperature of the cell loss (cosine).")
    match_photographs: bool = Field(False, description="Cell loss also between images of a place (SIFT matches).")
    same_photograph: float = Field(
        0.2, ge=0.0, le=1.0, description="Share of pairs that are two views of an image."
    )
    score_weight: float = Field(0.0, ge=0.0, description="Weight of the score ranking loss (eq. 4); needs a warp.")
    score_temperature: float = Field(0.03, gt=0.0, description="Temperature of the score loss (mean cosine).")
    warp_weight: float = Field(0.0, ge=0.0, description="Weight of the warp loss on generated pairs (eq. 11-13).")
    warp_rate: float = Field(1e-3, gt=0.0, description="Peak learning rate of the regression.")
    k: float = Field(0.5, ge=0.0, le=1.0, description="Warping coefficient of generated pairs (eq. 11).")
    views: int = Field(6, ge=2, le=16, description="Crops per image; all pairs of them are used.")
    batch_generated: int = Field(6, ge=1, description="Images of the batch used for generated pairs.")
    sparse_start: bool = Field(False, description="Start with sparse channels: lower the last batch norm's bias.")
    mine_every: int = Field(300, ge=1, description="Steps between validations and mining of look-alikes.")
    batch_norm: Literal["trained", "frozen"] = Field(
        "trained", description="frozen: batch norms keep the statistics that the model starts with."
    )
    frozen_layers: int = Field(0, ge=0, description="First layers of the encoder that keep their weights.")
    averaging: float = Field(0.99, ge=0.0, lt=1.0, description="Decay of the moving average per step.")


def label_free(model: GeoWarp, *, trained: bool) -> dict[str, Any]:
    """Return the parameters of a training by a teacher's distances alone.

    Args:
        model: The student.
        trained: Whether it starts from weights, of which those of stride 8 and finer stay, or from nothing.

    Raises:
        TrainingError: Its encoder cannot be a student.
    """
    first = STUDENTS[_student(model)][0]
    start: dict[str, Any] = {"learning_rate": 8e-4, "sparse_start": model.config.encoder.startswith("resnet")}
    if trained:
        start = {"learning_rate": 4e-4, "batch_norm": "frozen", "frozen_layers": first % len(model.encoder)}
    warped = {"warp_weight": 1.0, "warp_rate": 1e-4, "views": 4, "batch_generated": 4}
    return {
        "relation_weight": 10.0,
        "place_weight": 0.0,
        "iterations": 600,
        "mine_every": 100,
        "height": 192,
        "width": 256,
        "resolution": 240,
        **start,
        **(warped if model.regression is not None else {}),
    }


def _student(model: GeoWarp) -> EncoderName:
    if model.config.encoder not in STUDENTS:
        raise TrainingError(f"encoder {model.config.encoder!r}: expected one of {', '.join(STUDENTS)}")
    if model.config.retrieval is not None:
        raise TrainingError("the student has a second network for its descriptor: expected one with one encoder")
    return model.config.encoder


class Teaching(nn.Module):
    """Projections of the student's last maps to the channels of the teacher's; discarded after training."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleList([nn.Conv2d(s, t, 1) for s, t in zip(student, teacher, strict=True)])

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], centres: Sequence[Tensor]) -> Tensor:
        """Return the mean over cells of 1 − cosine, with a map before the last weighted by 1/2.

        The teacher's vectors are normalised and centred by ``centres``.
        """
        losses: list[Tensor] = []
        rows, columns = student[-1].shape[2:]
        for projection, s, t, centre in zip(self.projections, student, teacher, centres, strict=True):
            t = F.interpolate(t.float(), (rows, columns), mode="bilinear", align_corners=False)
            s = F.adaptive_avg_pool2d(s.float(), (rows, columns))
            losses.append(direction_loss(projection(s), F.normalize(t, dim=1) - centre[:, None, None]))
        return torch.stack([*(loss / 2 for loss in losses[:-1]), losses[-1]]).sum()


def direction_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean over cells of 1 − cosine between maps (B, C, h, w)."""
    return (1 - F.cosine_similarity(found, wanted, dim=1)).mean()


def distill(
    data: Path,
    output: Path,
    config: Distillation,
    model: GeoWarp,
    teacher: Teacher | None,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> float:
    """Train by a recipe; write ``best.safetensors`` and ``last.safetensors``.

    *best* is the moving average with the highest recall on held-out places, *last* the final one, which is often
    better for the score.

    Args:
        data: Folder of the grounds.
        output: Output folder.
        config: Recipe.
        model: Initial model; its regression is trained only with ``warp_weight``.
        teacher: Teacher, required with ``teacher_weight``, ``relation_weight`` and grounds without labels. What it
            says of the images is kept in the output folder.
        resume: Resume from ``last.pt``.
        progress: Progress display.

    Returns:
        Best Recall@1 on the held-out places (percent), averaged over the grounds; of a ground without labels, the
        agreement with the teacher takes its place.

    Raises:
        TrainingError: Unsuitable data or encoder, a missing teacher, or more than one process.
    """
    if process_count() > 1:
        raise TrainingError("distillation runs in one process: its running average is not shared")
    _student(model)
    if config.sparse_start and not model.config.encoder.startswith("resnet"):
        raise TrainingError(f"sparse_start: for a resnet's last block, and the encoder is {model.config.encoder}")
    for name in ("teacher_weight", "relation_weight"):
        if (weight := getattr(config, name)) > 0 and teacher is None:
            raise TrainingError(f"{name} = {weight:g} needs a teacher")
    if teacher is None and (path := next((ground.path for ground in config.grounds if not ground.labels), "")):
        raise TrainingError(f"{path}: labels = false needs a teacher")
    several = teacher is not None and config.teacher_weight > 0 and len(teacher.channels) > 1
    if config.frozen_layers and (config.batch_norm == "trained" or several):
        raise TrainingError("frozen_layers: expected batch_norm: frozen, and no teacher of two maps")
    if not config.grounds:
        raise TrainingError("grounds: the recipe names no photographs")
    if model.regression is None and config.warp_weight > 0:
        with seeded(config.seed):
            with_regression(model)
    if model.regression is None and config.score_weight > 0:
        raise TrainingError(f"score_weight = {config.score_weight:g} needs a model with a warp, or warp_weight")
    lesson = Lesson(config.grounds, data, resolution=config.resolution, memory_mb=config.memory_mb)
    validation = read_validation(config.grounds, data, resolution=config.resolution, memory_mb=config.memory_mb)
    trainer = _Trainer(config, output, model, teacher, lesson)
    trainer.session.start(resume)
    if teacher is not None and (config.relation_weight > 0 or lesson.taught):
        trainer.told = described_by(teacher, lesson.photographs, output / "teacher.npy", progress)
        lesson.learn(trainer.told)
    if trainer.session.step == 0 and config.sparse_start:
        start_sparse(model, lesson.photographs, trainer.session.rng("sparse"))
    trainer.run([_Validation(held_out, teacher, output, n) for n, held_out in enumerate(validation)], progress)
    return trainer.session.best


class _Trainer:
    """The training loop and the loss terms of a batch."""

    def __init__(
        self, config: Distillation, output: Path, model: GeoWarp, teacher: Teacher | None, lesson: Lesson
    ) -> None:
        device = training_device(config)
        self.teacher = teacher if config.teacher_weight > 0 else None
        its = self.teacher.channels if self.teacher else ()
        own = (STUDENTS[model.config.encoder][1], CHANNELS[model.config.encoder])
        with seeded(config.seed):
            self.teaching = Teaching(own[len(own) - len(its) :], its).to(device)
            self.averaged = GeoWarp(model.config).to(device)
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.load_state_dict(model.state_dict())
        self.averaged.eval()
        first = config.frozen_layers
        self.frozen = (
            _frozen(nn.Sequential(*list(model.encoder)[:first]), device, config.precision) if first else None
        )
        trained = [
            p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("regression.")
        ]
        trained += self.teaching.parameters()
        groups = parameter_groups(trained, config.weight_decay)
        if model.regression is not None and config.warp_weight > 0:
            groups.append({"params": list(model.regression.parameters()), "weight_decay": 1e-3, "warp": True})
        extra = nn.ModuleDict({"teaching": self.teaching, "averaged": self.averaged})
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.session = Session(model, optimizer, config, output, config.model_dump(), extra)
        self.config, self.model, self.lesson = config, model, lesson
        self.told: NDArray[np.float32] | None = None
        matches = Matches(lesson.photographs, config.height, config.width)
        self.matches = matches if config.match_photographs else None
        self.augment = Augmentation(tilt=config.tilt, zoom=config.zoom, colour=config.colour, mirror=config.mirror)
        self.drawing = (
            self.averaged if self.frozen is None else with_first_layers(self.averaged, self.frozen, first)
        )
        self.warping = WarpLosses(
            self.drawing, config.k, config.views, config.colour, self.session.autocast, model.regression
        )

    def run(self, validation: Sequence[_Validation], progress: Progress) -> None:
        """Train to the end."""
        session, config, lesson = self.session, self.config, self.lesson
        weights = {"places": config.place_weight, "cells": config.cell_weight, "score": config.score_weight}
        weights |= {"warp": config.warp_weight, "teacher": config.teacher_weight}
        weights |= {"relation": config.relation_weight}

        def mine(step: int) -> None:
            if step:
                found = describe(self.drawing, lesson.photographs, autocast=session.autocast, progress=progress)
                session.memory["look-alikes"] = torch.from_numpy(lesson.look_alikes(found))

        def judge() -> None:
            found = [each.measure(self.drawing, progress) for each in validation]
            for name in dict.fromkeys(name for scores in found for name in scores):
                session.log(name, float(np.mean([scores[name] for scores in found if name in scores])))
            chosen_by = [next(iter(scores.values())) for scores in found]
            session.save_best(float(np.mean(chosen_by)), model=self.averaged)

        if session.step == 0 and lesson.taught:
            judge()  # a student that learns nothing stays as it is
        for pixels, indices, links in session.batches(config.iterations, self._read, config.mine_every, mine):
            step = session.step
            done = step / config.iterations
            share = min(1.0, (step + 1) / 100) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            for group in session.optimizer.param_groups:  # warm-up over 100 steps, then cosine decay to 2 %
                group["lr"] = share * (config.warp_rate if group.get("warp") else config.learning_rate)
            terms = self._terms(pixels, indices, links)
            loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
            session.apply(loss, [lesson.photographs.names[index] for index in indices], **terms)
            _average(self.averaged, self.model, min(config.averaging, step / (step + 20)))
            if session.ends_round(config.mine_every):
                judge()
        session.save_model(LAST_MODEL, self.averaged)
        session.finish()

    def _read(self, step: int) -> tuple[Tensor, Indices, list[Link]]:
        """Return pixels (B, 3, H, W) uint8, indices (B,) and links."""
        config, known = self.config, self.session.memory.get("look-alikes")
        look_alikes = None if known is None else known.cpu().numpy()
        rng = self.session.rng("places", step)
        drawn = self.lesson.draw(rng, config.batch_size // IMAGES_PER_GROUP, look_alikes, config.same_photograph)
        pixels, indices = self.lesson.photographs.batch(drawn, config.height, config.width)
        return pixels, indices, links_of(indices, self.matches)

    def _terms(self, pixels: Tensor, indices: Indices, links: Sequence[Link]) -> dict[str, Tensor]:
        """Return the places and cells terms, and the others that have weight; all share one encoder pass."""
        session, config, batch = self.session, self.config, len(indices)
        views = self.augment.views(pixels.to(session.device), session.generator("augmentation"))
        same, different = (table.to(session.device) for table in self.lesson.pairs(indices))
        images, contests = views.images, None
        if config.score_weight > 0:
            contests = draw_contests(different, session.rng("contests"))
            images = torch.cat([images, warped_pairs(self.drawing, images, contests, session.autocast)])
        train_mode(self.model, config.batch_norm)
        with session.autocast():
            found = self._maps(images)
        last = found[-1][:batch].float()
        described = self.model.pool(last)
        cells = last if self.model.projection is None else self.model.projection(last)
        terms = {
            "places": contrastive_loss(described, described, same, different, config.temperature),
            "cells": cell_loss(cells, views.quads, links, different, config.cell_temperature),
        }
        if contests is not None:
            warped = pool_local_features(found[-1][batch:].float(), self.model.projection)
            terms["score"] = ranking_loss(warped, contests, config.score_temperature)
        if config.warp_weight > 0:
            regression_of(self.model).train()
            photographs = pixels[: config.batch_generated].to(session.device)
            photographs = photographs.flip(-1) if views.mirrored else photographs
            terms["warp"] = self.warping.generated(photographs, session.generator("colours"))
        if self.teacher is not None:
            half = slice(session.step % 2, batch, 2)  # alternating between steps to save time
            with torch.no_grad(), session.autocast():
                wanted = self.teacher.maps(views.images[half])
            for index, t in enumerate(wanted):
                session.memory.setdefault(f"centre {index}", F.normalize(t.float(), dim=1).mean((0, 2, 3)))
            centres = [session.memory[f"centre {index}"] for index in range(len(wanted))]
            terms["teacher"] = self.teaching([stage[half] for stage in found[-len(wanted) :]], wanted, centres)
        if self.told is not None and config.relation_weight > 0:
            terms["relation"] = relation_loss(described, torch.from_numpy(self.told[indices]).to(session.device))
        return terms

    def _maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the encoder's map of stride 16, behind that of stride 8 where no layers are frozen."""
        if self.frozen is None:
            return student_maps(self.model, images)
        with torch.no_grad():
            lower = self.frozen(images)
        return (self.model.encoder[self.config.frozen_layers :](lower),)


class _Validation:
    """How a model is measured on the held-out images of a ground."""

    def __init__(self, held_out: HeldOut, teacher: Teacher | None, output: Path, number: int) -> None:
        self._held_out, self._told = held_out, None
        if teacher is not None and not held_out.labels:
            self._told = described_by(teacher, held_out.photographs, output / f"teacher-held-out-{number}.npy")
            if held_out.placed:
                recall = recall_of(self._told, held_out.photographs, held_out.radius_m, 1)
                logger.info("recall@1 of the teacher %.4g", recall)

    def measure(self, model: GeoWarp, progress: Progress) -> dict[str, float]:
        """Return what the checkpoint is chosen by, first, and what else is known, in percent."""
        held_out, found = self._held_out, describe(model, self._held_out.photographs, progress=progress)
        scores = {} if self._told is None else {"agreement": agreement(found, self._told)}
        if held_out.labels or held_out.placed:
            scores["recall@1"] = recall_of(found, held_out.photographs, held_out.radius_m, 1)
        return scores


def with_first_layers(model: GeoWarp, layers: nn.Module, count: int) -> GeoWarp:
    """Return ``model`` with ``layers`` in the place of its encoder's first ``count``; all others are shared."""
    found = copy.copy(model)
    found._modules = {**model._modules, "encoder": nn.Sequential(layers, *list(model.encoder)[count:])}
    return found


def _frozen(layers: nn.Sequential, device: torch.device, precision: Precision) -> nn.Module:
    """Return layers that are not trained as fast as this machine computes them."""
    layers.requires_grad_(False).eval()
    if device.type == "cpu":
        return in_runtime(Fused(layers, device, torch.float32), "auto", faster=True)
    return Fused(layers, device, PRECISIONS[precision])


@torch.no_grad()
def start_sparse(model: GeoWarp, photographs: Photographs, rng: np.random.Generator) -> None:
    """Lower the last batch norm's bias so that channels are active only 0.6 deviations above their mean.

    With random or distilled weights nearly all channels are active everywhere and all GeM descriptors are nearly
    parallel (cosine 0.99), which leaves the place loss without gradient.
    """
    last_block = model.encoder[-1][-1]  # type: ignore[index]
    norm = last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2
    norm.bias += 1e3  # so that the ReLU clips nothing
    cells = torch.cat(list(random_maps(model, photographs, rng, 32)), dim=1)
    norm.bias -= 1e3
    norm.bias -= cells.mean(dim=1) - 1e3 + 0.6 * cells.std(dim=1)


@dataclass(frozen=True, slots=True)
class Link:
    """Two rows of a batch with known correspondences.

    Attributes:
        first: First row.
        second: Second row.
        points_first: (K, 2) normalised points on the first image; None: both rows are views of one image.
        points_second: (K, 2) corresponding points on the second image.
    """

    first: int
    second: int
    points_first: Points | None = None
    points_second: Points | None = None


def links_of(indices: Indices, matches: Matches | None) -> list[Link]:
    """Return the links between adjacent rows: views of one image or, with ``matches``, matched images."""
    links = []
    for row in range(0, len(indices) - 1, 2):
        first, second = int(indices[row]), int(indices[row + 1])
        if first == second:
            links.append(Link(row, row + 1))
        elif matches is not None:
            points = matches(first, second)
            if len(points[0]):
                links.append(Link(row, row + 1, *points))
    return links


NEGATIVE_CELLS = 64
"""Negative cells sampled per image of another place."""

MOST_POINTS = 96
"""Maximum number of points per link and step."""

NO_COSINE = -1e4
"""Logit of excluded entries."""

LEAST_POINTS = 8
"""Minimum number of shared points of a link."""


def cell_loss(maps: Tensor, quads: Tensor, links: Sequence[Link], different: Tensor, temperature: float) -> Tensor:
    """Contrastive loss over cells: each must identify its counterpart among its partner's and other places' cells.

    Counterparts follow from the quads for two views of an image, from matched points for two images of a place.

    Args:
        maps: (B, C, h, w) feature maps.
        quads: (B, 4, 2) of the views on their images.
        links: Linked rows.
        different: (B, B) bool, rows of certainly different places.
        temperature: Softmax temperature (cosine).

    Returns:
        Scalar; 0 if no views overlap.
    """
    if not links:
        return maps.sum() * 0
    maps = F.normalize(maps, dim=1)
    first = torch.tensor([link.first for link in links], device=maps.device)
    second = torch.tensor([link.second for link in links], device=maps.device)
    here, there, shown = _counterparts(maps, quads, links, first, second)
    asked, wanted = (
        F.normalize(_sampled(maps[rows], points), dim=2) for rows, points in ((first, here), (second, there))
    )
    chosen = torch.randperm(maps[0, 0].numel(), device=maps.device)[:NEGATIVE_CELLS]
    others = maps.flatten(2)[:, :, chosen].transpose(1, 2)  # (B, NEGATIVE_CELLS, C)
    partner = (asked @ wanted.transpose(1, 2)).masked_fill(~shown[:, None], NO_COSINE)
    rivals = asked @ others.flatten(0, 1).T  # (L, K, B · NEGATIVE_CELLS)
    rival = (different[first] & different[second]).repeat_interleave(others.shape[1], dim=1)
    rivals = rivals.masked_fill(~rival[:, None], NO_COSINE)
    logits = torch.cat([partner, rivals], dim=2) / temperature
    truth = torch.arange(logits.shape[1], device=maps.device).expand(len(links), -1)
    each = F.cross_entropy(logits.transpose(1, 2), truth, reduction="none")
    enough = shown.sum(dim=1) >= LEAST_POINTS
    means = (each * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1)
    return (means * enough).sum() / enough.sum().clamp(min=1)


def _counterparts(
    maps: Tensor, quads: Tensor, links: Sequence[Link], first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return corresponding points on both views of each link, (L, K, 2) each, and their validity (L, K) bool."""
    rows, columns = maps.shape[2:]
    y, x = torch.meshgrid(
        (torch.arange(rows) * 2 + 1) / rows - 1, (torch.arange(columns) * 2 + 1) / columns - 1, indexing="ij"
    )
    cells = torch.stack([x, y], dim=-1).reshape(-1, 2)
    given = [  # padded on the CPU: a single copy to the device
        pad_sequence(
            [cells, *(cells if points is None else torch.from_numpy(points) for points in each)],
            batch_first=True,
            padding_value=torch.nan,
        )[1:].to(maps.device)
        for each in ([link.points_first for link in links], [link.points_second for link in links])
    ]
    views = torch.tensor([link.points_first is None for link in links], device=maps.device)[:, None, None]
    photograph_from_view = quad_from_frame(quads)
    view_from_photograph = torch.linalg.inv(photograph_from_view)
    on_photograph = transform_points(photograph_from_view[first], given[0])  # for views of one image
    here = torch.where(views, given[0], transform_points(view_from_photograph[first], given[0]))
    there = transform_points(view_from_photograph[second], torch.where(views, on_photograph, given[1]))
    inside = ((here.abs() < 1) & (there.abs() < 1)).all(dim=2)  # NaN padding compares false
    drawn, kept = (torch.rand(inside.shape, device=maps.device) * inside).topk(
        min(MOST_POINTS, inside.shape[1]), dim=1
    )
    here, there = (points.gather(1, kept[..., None].expand(-1, -1, 2)) for points in (here, there))
    shown = drawn > 0
    return here.nan_to_num(), there.nan_to_num(), shown


def _sampled(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps (L, C, h, w) at points (L, K, 2) bilinearly; return (L, K, C)."""
    return F.grid_sample(maps, points[:, None], align_corners=False)[:, :, 0].transpose(1, 2)


def student_maps(model: GeoWarp, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the encoder's maps of strides 8 and 16, the latter its output."""
    first, _ = STUDENTS[model.config.encoder]
    middle = model.encoder[:first](images)
    return middle, model.encoder[first:](middle)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Update the exponential moving average."""
    new = model.state_dict()
    for key, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(new[key], 1 - keep)
        else:
            value.copy_(new[key])
