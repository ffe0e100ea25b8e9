"""A start for an encoder where no ImageNet weights are at hand, from places told apart and a teacher's features.

Up to five things are learned at once from photographs with positions, and no labels:

- descriptors: near those of the same place, far from those of its rivals (a softmax over squared distances);
- cells: each finds its counterpart in another view of its photograph, or in another photograph of its place, and
  nowhere else, so that the warp has something to match and the score tells look-alikes apart;
- directions: the student's maps after its second and third stage, projected by 1×1 convolutions, point where a
  teacher's maps point (Romero et al., "FitNets", ICLR 2015). Without a teacher this part is left out;
- the score of warped pairs (eq. 4): higher for a place's own photographs than with its rivals', where asked for;
- the warp: the regression follows the encoder on generated pairs (eq. 11-13), where asked for.

What is kept is a running average of the weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from geowarp_ros.errors import TrainingError
from geowarp_ros.geometry import quad_from_frame, transform_points
from geowarp_ros.images import to_tensor
from geowarp_ros.lab.training.data import Augmentation, Indices, Photographs, ahead, describe
from geowarp_ros.lab.training.descriptor_losses import contrastive_loss
from geowarp_ros.lab.training.grounds import IMAGES_PER_GROUP, Ground, Lesson, read_validation
from geowarp_ros.lab.training.matches import Matches, Points
from geowarp_ros.lab.training.objective import WarpLosses, regression_of
from geowarp_ros.lab.training.processes import process_count
from geowarp_ros.lab.training.ranking import draw_contests, ranking_loss, warped_pairs
from geowarp_ros.lab.training.retrieval import Places, train_mode, validate
from geowarp_ros.lab.training.session import LAST_MODEL, Session, SessionConfig, seeded, training_device
from geowarp_ros.lab.training.teacher import SqueezeNet
from geowarp_ros.lab.training.warping import with_regression
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import pool_local_features
from geowarp_ros.progress import Progress, silent

logger = logging.getLogger(__name__)

STUDENT_STAGES = {"resnet18": (5, 6), "resnet50": (5, 6)}
"""Places in ``encoder`` of the stages with the teacher's strides 8 and 16."""


class Distillation(SessionConfig):
    """A recipe: the sets of photographs, the three losses, and how long."""

    grounds: tuple[Ground, ...] = Field((), description="The sets of photographs.")
    height: int = Field(160, ge=32, description="Height of the training images, px.")
    width: int = Field(272, ge=32, description="Width of the training images, px.")
    resolution: int = Field(192, ge=0, description="Shorter side that images are described at, px.")
    memory_mb: int = Field(4096, ge=0, description="Decoded images are kept in memory up to this, MiB.")
    tilt: float = Field(0.06, ge=0.0, lt=1.0, description="Augmentation: shift of a crop's corners, half sides.")
    zoom: float = Field(0.25, ge=0.0, lt=1.0, description="Augmentation: how much of each side a crop may lose.")
    colour: float = Field(0.2, ge=0.0, lt=1.0, description="Augmentation: strength of colour changes.")
    mirror: bool = Field(True, description="Augmentation: flip half of the batches.")
    iterations: int = Field(2000, ge=1, description="Steps; the learning rate falls along a cosine over them.")
    batch_size: int = Field(48, ge=6, multiple_of=IMAGES_PER_GROUP, description="Images per step.")
    learning_rate: float = Field(8e-4, gt=0.0, description="Of AdamW, at its highest.")
    weight_decay: float = Field(0.03, ge=0.0, description="Of AdamW, on weights with more than one axis.")
    teacher_weight: float = Field(0.0, ge=0.0, description="Weight of the teacher's directions.")
    place_weight: float = Field(1.0, ge=0.0, description="Weight of telling places apart.")
    temperature: float = Field(0.0025, gt=0.0, description="Squared distance that a factor e is worth.")
    cell_weight: float = Field(0.15, ge=0.0, description="Weight of telling cells of one photograph apart.")
    cell_temperature: float = Field(0.07, gt=0.0, description="Cosine that a factor e is worth, between cells.")
    match_photographs: bool = Field(
        False, description="Cells find counterparts in other photographs of the place, too, by SIFT's matches."
    )
    same_photograph: float = Field(
        0.2, ge=0.0, le=1.0, description="Share of pairs that are two views of one photograph."
    )
    score_weight: float = Field(
        0.0, ge=0.0, description="Weight of ranking warped pairs by their score (eq. 4); the model needs a warp."
    )
    score_temperature: float = Field(0.03, gt=0.0, description="Mean cosine that a factor e is worth, in scores.")
    warp_weight: float = Field(
        0.0, ge=0.0, description="Weight of training the regression along on generated pairs (eq. 11-13)."
    )
    warp_rate: float = Field(1e-3, gt=0.0, description="Learning rate of the regression, at its highest.")
    k: float = Field(0.5, ge=0.0, le=1.0, description="Warping coefficient of generated pairs (eq. 11).")
    views: int = Field(6, ge=2, le=16, description="Crops of each photograph; all their pairs are used.")
    batch_generated: int = Field(6, ge=1, description="Photographs of a batch that generated pairs are made of.")
    sparse_start: bool = Field(
        False,
        description="Before the first step, lower the last batch norm until channels are active here and there.",
    )
    mine_every: int = Field(300, ge=1, description="Steps between validations and searches for look-alikes.")
    averaging: float = Field(0.99, ge=0.0, lt=1.0, description="Memory of the running average, per step.")


class Teaching(nn.Module):
    """What is trained along with the student and not kept: the projections onto the teacher's channels."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleList([nn.Conv2d(s, t, 1) for s, t in zip(student, teacher, strict=True)])

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], centres: Sequence[Tensor]) -> Tensor:
        """Mean over cells of 1 − cosine, the deeper map counted twice.

        The teacher's vectors are taken to unit length and centred: what all photographs share teaches nothing.
        """
        losses = []
        rows, columns = student[-1].shape[2:]
        for projection, s, t, centre in zip(self.projections, student, teacher, centres, strict=True):
            t = F.interpolate(t.float(), (rows, columns), mode="bilinear", align_corners=False)
            s = F.adaptive_avg_pool2d(s.float(), (rows, columns))
            losses.append(direction_loss(projection(s), F.normalize(t, dim=1) - centre[:, None, None]))
        return losses[0] / 2 + losses[1]


def direction_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """(B, C, h, w) twice -> mean over cells of 1 − cosine; 0 where they point the same way."""
    return (1 - F.cosine_similarity(found, wanted, dim=1)).mean()


def distill(
    data: Path,
    output: Path,
    config: Distillation,
    model: GeoWarp,
    teacher: SqueezeNet | None,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> float:
    """Train ``model`` by a recipe; leaves ``best.safetensors`` and ``last.safetensors`` in ``output``.

    *Best* is the running average that retrieved best among the held-out places, *last* the one after the last
    step: what was trained for the score of warped pairs is often better there.

    Args:
        data: The folder that the grounds' paths are relative to.
        output: New folder, or one to resume.
        config: The recipe.
        model: Where to start. Its regression is kept as it is where ``warp_weight`` is 0.
        teacher: Needed where ``teacher_weight`` is above 0.
        resume: Go on from ``last.pt``.
        progress: Shows how far mining and validation are.

    Returns:
        The best Recall@1 of the held-out places, percent, the mean over the grounds that have some.

    Raises:
        TrainingError: The data cannot train, the encoder has no stages to teach, no teacher for a lesson that
            wants one, or several processes run.
    """
    if process_count() > 1:
        raise TrainingError("distillation runs in one process: its running average is not shared")
    if model.config.encoder not in STUDENT_STAGES:
        raise TrainingError(f"encoder {model.config.encoder!r}: expected one of {', '.join(STUDENT_STAGES)}")
    if config.teacher_weight > 0 and teacher is None:
        raise TrainingError(f"teacher_weight = {config.teacher_weight:g} needs a teacher")
    if not config.grounds:
        raise TrainingError("grounds: the recipe names no photographs")
    if model.regression is None and config.warp_weight > 0:
        with seeded(config.seed):
            with_regression(model)
    if model.regression is None and config.score_weight > 0:
        raise TrainingError(f"score_weight = {config.score_weight:g} needs a model with a warp, or warp_weight")
    lesson = Lesson(config.grounds, data, resolution=config.resolution, memory_mb=config.memory_mb)
    validation = read_validation(config.grounds, data, resolution=config.resolution, memory_mb=config.memory_mb)
    session = _session(config, output, model, teacher)
    session.start(resume)
    if session.step == 0 and config.sparse_start:
        start_sparse(session.model, lesson.photographs, session.rng("sparse"))
    _run(session, config, lesson, teacher, validation, progress)
    return session.best


def _session(config: Distillation, output: Path, model: GeoWarp, teacher: SqueezeNet | None) -> Session:
    device = training_device(config)
    with seeded(config.seed):
        teaching = Teaching((model.channels // 2, model.channels), SqueezeNet.channels)
        averaged = GeoWarp(model.config)
    averaged.load_state_dict(model.state_dict())
    averaged.eval()
    extra = nn.ModuleDict({"teaching": teaching, "averaged": averaged}).to(device)
    for network in (model, teacher):
        if network is not None:
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [*model.encoder.parameters(), *model.pool.parameters(), *teaching.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if model.regression is not None and config.warp_weight > 0:
        groups.append({"params": list(model.regression.parameters()), "weight_decay": 1e-3, "warp": True})
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    return Session(model, optimizer, config, output, config.model_dump(), extra)


def _run(
    session: Session,
    config: Distillation,
    lesson: Lesson,
    teacher: SqueezeNet | None,
    validation: Sequence[tuple[Places, float]],
    progress: Progress,
) -> None:
    averaged = session.extra["averaged"]  # type: ignore[index]
    losses = _Losses(session, config, lesson, teacher)
    matches = Matches(lesson.photographs, config.height, config.width) if config.match_photographs else None
    batches: Iterator[tuple[Indices, Tensor, list[Link]]] | None = None
    for step in session.steps(config.iterations):
        place = step % config.mine_every
        if place == 0 and step:
            descriptors = describe(averaged, lesson.photographs, precision=session.kind, progress=progress)
            session.memory["look-alikes"] = torch.from_numpy(lesson.look_alikes(descriptors))
        if place == 0 or batches is None:
            read = _Reader(session, config, lesson, matches)
            batches = ahead(read, range(step, step - place + config.mine_every))
        indices, pixels, links = next(batches)
        _set_rate(session, config)
        terms = losses(indices, pixels, links)
        loss = torch.stack([losses.weights[name] * term for name, term in terms.items()]).sum()
        session.apply(loss, [lesson.photographs.names[index] for index in indices], **terms)
        _average(averaged, session.model, min(config.averaging, step / (step + 20)))
        if session.step % config.mine_every == 0 or session.step == config.iterations:
            recalls = [validate(averaged, places, radius_m, 1, progress) for places, radius_m in validation]
            session.log("recall@1", float(np.mean(recalls)))
            session.save_best(float(np.mean(recalls)), model=averaged)
    session.save_model(LAST_MODEL, averaged)
    session.finish()


class _Losses:
    """What a batch costs: the terms by name, those alone that have weight beside places and cells.

    Attributes:
        weights: Of the terms.
    """

    def __init__(self, session: Session, config: Distillation, lesson: Lesson, teacher: SqueezeNet | None) -> None:
        self.weights = {
            "places": config.place_weight,
            "cells": config.cell_weight,
            "score": config.score_weight,
            "warp": config.warp_weight,
            "teacher": config.teacher_weight,
        }
        self._session, self._config, self._lesson, self._teacher = session, config, lesson, teacher
        self._averaged = session.extra["averaged"]  # type: ignore[index]
        self._augment = Augmentation(
            tilt=config.tilt, zoom=config.zoom, colour=config.colour, mirror=config.mirror
        )
        self._warping = WarpLosses(
            self._averaged,
            config.k,
            config.views,
            config.colour,
            session.autocast,
            regression=session.model.regression,
        )

    def __call__(self, indices: Indices, pixels: Tensor, links: Sequence[Link]) -> dict[str, Tensor]:
        """Augment, encode – what is warped in the same pass – and compare."""
        session, config, batch = self._session, self._config, len(indices)
        views = self._augment.views(pixels.to(session.device), session.generator("augmentation"))
        same, different = (table.to(session.device) for table in self._lesson.pairs(indices))
        images, contests = views.images, None
        if config.score_weight > 0:
            contests = draw_contests(different, session.rng("contests"))
            images = torch.cat([images, warped_pairs(self._averaged, images, contests, session.autocast)])
        train_mode(session.model, "trained")
        with session.autocast():
            found = student_maps(session.model, images, STUDENT_STAGES[session.model.config.encoder])
        last = found[-1][:batch].float()
        described = session.model.pool(last)
        terms = {
            "places": contrastive_loss(described, described, same, different, config.temperature),
            "cells": cell_loss(last, views.quads, links, different, config.cell_temperature),
        }
        if contests is not None:
            warped = pool_local_features(found[-1][batch:].float())
            terms["score"] = ranking_loss(warped, contests, config.score_temperature)
        if config.warp_weight > 0:
            terms["warp"] = self._warp(pixels, views.mirrored)
        if self._teacher is not None and config.teacher_weight > 0:
            teaching = session.extra["teaching"]  # type: ignore[index]
            own = [stage[:batch] for stage in found]
            terms["teacher"] = _taught(session, self._teacher, teaching, own, views.images)
        return terms

    def _warp(self, pixels: Tensor, mirrored: bool) -> Tensor:
        regression_of(self._session.model).train()
        photographs = pixels[: self._config.batch_generated].to(self._session.device)
        return self._warping.generated(
            photographs.flip(-1) if mirrored else photographs, self._session.generator("colours")
        )


class _Reader:
    """Reads the batch of a step in the background."""

    def __init__(self, session: Session, config: Distillation, lesson: Lesson, matches: Matches | None) -> None:
        known = session.memory.get("look-alikes")
        self.look_alikes = None if known is None else known.cpu().numpy()
        self.session, self.config, self.lesson, self.matches = session, config, lesson, matches

    def __call__(self, step: int) -> tuple[Indices, Tensor, list[Link]]:
        """Return indices (B,), pixels (B, 3, H, W) uint8, and which rows show what the other does.

        An unreadable image becomes a copy of its partner.
        """
        config, photographs = self.config, self.lesson.photographs
        groups = config.batch_size // IMAGES_PER_GROUP
        rng = self.session.rng("places", step)
        indices = self.lesson.draw(rng, groups, self.look_alikes, config.same_photograph)
        pixels, readable = photographs.batch(indices, config.height, config.width)
        if not readable.any():
            raise TrainingError(f"step {step}: none of the batch's images can be read")
        for row in np.flatnonzero(~readable):
            other = row ^ 1 if readable[row ^ 1] else int(np.flatnonzero(readable)[0])
            pixels[row], indices[row] = pixels[other], indices[other]
        return indices, pixels, links_of(indices, self.matches)


def _taught(
    session: Session, teacher: SqueezeNet, teaching: nn.Module, found: Sequence[Tensor], images: Tensor
) -> Tensor:
    """Half of the batch, the other half next time: the teacher costs as much as the student's forward pass."""
    half = slice(session.step % 2, None, 2)
    with torch.no_grad(), session.autocast():
        wanted = teacher(images[half])
    for index, t in enumerate(wanted):
        session.memory.setdefault(f"centre {index}", F.normalize(t.float(), dim=1).mean((0, 2, 3)))
    centres = [session.memory[f"centre {index}"] for index in range(len(wanted))]
    loss: Tensor = teaching([stage[half] for stage in found], wanted, centres)
    return loss


@torch.no_grad()
def start_sparse(
    model: GeoWarp, photographs: Photographs, rng: np.random.Generator, *, images: int = 32, above: float = 0.6
) -> None:
    """Lower the last batch norm's bias until a channel is active where it is ``above`` deviations above its mean.

    From random or distilled weights almost every channel is active everywhere, GeM descriptors of all photographs
    point the same way (cosine 0.99), and no softmax over their distances has anything to hold on to.
    """
    device = next(model.parameters()).device
    pixels = [photographs[int(index)] for index in rng.permutation(len(photographs))[:images]]
    last_block = model.encoder[-1][-1]  # type: ignore[index]
    norm = last_block.bn3 if hasattr(last_block, "bn3") else last_block.bn2
    model.eval()
    with _raised(norm, 1e3):  # far above zero the ReLU cuts nothing off: what comes out is what went in, raised
        maps = [model.feature_map(to_tensor(image, device))[0].flatten(1) for image in pixels if image is not None]
    if not maps:
        raise TrainingError("none of the images can be read")
    cells = torch.cat(maps, dim=1)
    norm.bias -= cells.mean(dim=1) - 1e3 + above * cells.std(dim=1)


@contextmanager
def _raised(norm: nn.BatchNorm2d, by: float) -> Iterator[None]:
    norm.bias.data += by
    try:
        yield
    finally:
        norm.bias.data -= by


@dataclass(frozen=True, slots=True)
class Link:
    """Two rows of a batch that show the same things.

    Attributes:
        first: Row.
        second: Row.
        points_first: (K, 2) on the first photograph, -1..1; None: both are views of one photograph.
        points_second: (K, 2) where the second photograph shows the same.
    """

    first: int
    second: int
    points_first: Points | None = None
    points_second: Points | None = None


def links_of(indices: Indices, matches: Matches | None) -> list[Link]:
    """Return which neighbouring pairs of a batch are views of one photograph or, by ``matches``, of one place."""
    links = []
    for row in range(0, len(indices) - 1, 2):
        first, second = int(indices[row]), int(indices[row + 1])
        if first == second:
            links.append(Link(row, row + 1))
        elif matches is not None:
            points_first, points_second = matches(first, second)
            if len(points_first):
                links.append(Link(row, row + 1, points_first, points_second))
    return links


NEGATIVE_CELLS = 64
"""Cells of each image of another place that a cell must tell from its counterpart."""

MOST_POINTS = 96
"""Points of one pair that are used at a step."""

NO_COSINE = -1e4
"""In place of a cosine that takes no part in a softmax."""

LEAST_POINTS = 8
"""A pair that shares fewer teaches nothing."""


def cell_loss(maps: Tensor, quads: Tensor, links: Sequence[Link], different: Tensor, temperature: float) -> Tensor:
    """Each cell shall find its counterpart among the cells of its partner, and of the images of other places.

    Two views of one photograph: where a cell of the first falls on the second is known from the two quads. Two
    photographs of one place: matched points say it. This makes local features that match (eq. 6) and a score
    (eq. 4) that means something – between look-alikes, too.

    Args:
        maps: (B, C, h, w).
        quads: (B, 4, 2) of the views on their photographs.
        links: Rows that show the same.
        different: (B, B) bool, rows of surely different places.
        temperature: Of the softmax over cosines.

    Returns:
        Scalar; 0 where no two views overlap.
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
    """Where both views of each link show the same: (L, K, 2) twice, and which of the K are any, (L, K) bool."""
    rows, columns = maps.shape[2:]
    y, x = torch.meshgrid(
        (torch.arange(rows) * 2 + 1) / rows - 1, (torch.arange(columns) * 2 + 1) / columns - 1, indexing="ij"
    )
    cells = torch.stack([x, y], dim=-1).reshape(-1, 2)
    most = max([len(cells), *(len(link.points_first) for link in links if link.points_first is not None)])
    points = torch.full((2, len(links), most, 2), torch.nan)
    views = torch.zeros(len(links), dtype=torch.bool)
    for row, link in enumerate(links):  # on the CPU: one copy to the device instead of one for each link
        if link.points_first is None or link.points_second is None:
            points[:, row, : len(cells)], views[row] = cells, True
        else:
            points[0, row, : len(link.points_first)] = torch.from_numpy(link.points_first)
            points[1, row, : len(link.points_second)] = torch.from_numpy(link.points_second)
    given, views = points.to(maps.device), views.to(maps.device)[:, None, None]
    photograph_from_view = quad_from_frame(quads)
    view_from_photograph = torch.linalg.inv(photograph_from_view)
    on_photograph = transform_points(photograph_from_view[first], given[0])  # of views of one photograph
    here = torch.where(views, given[0], transform_points(view_from_photograph[first], given[0]))
    there = transform_points(view_from_photograph[second], torch.where(views, on_photograph, given[1]))
    inside = ((here.abs() < 1) & (there.abs() < 1)).all(dim=2)  # false where there is nothing (NaN)
    drawn, kept = (torch.rand(inside.shape, device=maps.device) * inside).topk(min(MOST_POINTS, most), dim=1)
    here, there = (points.gather(1, kept[..., None].expand(-1, -1, 2)) for points in (here, there))
    shown = drawn > 0
    return here.nan_to_num(), there.nan_to_num(), shown


def _sampled(maps: Tensor, points: Tensor) -> Tensor:
    """(L, C, h, w) at points (L, K, 2), bilinear -> (L, K, C)."""
    return F.grid_sample(maps, points[:, None], align_corners=False)[:, :, 0].transpose(1, 2)


def student_maps(model: GeoWarp, images: Tensor, stages: tuple[int, int]) -> list[Tensor]:
    """Return the encoder's maps after the given places; the last is its output."""
    maps = []
    for place, layer in enumerate(model.encoder):
        images = layer(images)
        if place in stages:
            maps.append(images)
    return maps


def _set_rate(session: Session, config: Distillation) -> None:
    """A short warm-up, then a cosine down to 2 %."""
    done = session.step / config.iterations
    share = min(1.0, (session.step + 1) / 100) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
    for group in session.optimizer.param_groups:
        group["lr"] = share * (config.warp_rate if group.get("warp") else config.learning_rate)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    new = model.state_dict()
    for key, value in averaged.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(new[key], 1 - keep)
        else:
            value.copy_(new[key])
