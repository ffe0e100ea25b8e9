"""Training of the warping regression R (paper sec. 3.4, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from geowarp_ros.config import Section
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Photographs, ahead, common_frame, describe, has_split, read_photographs
from geowarp_ros.lab.training.objective import WarpLosses, coloured, generated_corner_error, regression_of
from geowarp_ros.lab.training.pairs import IndexPairs, mine_pairs, mine_pairs_within
from geowarp_ros.lab.training.processes import process_count
from geowarp_ros.lab.training.session import Session, SessionConfig
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.regression import WarpRegression


class WarpConfig(Section):
    """Parameters of ``geowarp train warp``. The defaults are the paper's (sec. 4.1)."""

    iterations: int = Field(50_000, ge=1, description="Optimiser steps.")
    lambda_ss: float = Field(1.0, ge=0.0, description="Weight of the self-supervised loss (eq. 10).")
    lambda_fw: float = Field(10.0, ge=0.0, description="Weight of the features-wise loss; needs pairs.")
    lambda_cons: float = Field(0.1, ge=0.0, description="Weight of the consistency loss; needs pairs.")
    k: float = Field(0.6, ge=0.0, le=1.0, description="Warping coefficient of generated pairs (eq. 11).")
    views: int = Field(
        2, ge=2, le=16, description="Crops of each photograph; all their pairs are used. The paper's are 2."
    )
    batch_generated: int = Field(16, ge=1, description="Photographs per step for generated pairs.")
    batch_pairs: int = Field(16, ge=1, description="Query-positive pairs per step.")
    t_geo_m: float = Field(25.0, gt=0.0, description="Pairs lie nearer than this, m (eq. 14).")
    t_feat: float = Field(1.2, gt=0.0, description="Squared descriptor distance of pairs is below this (eq. 15).")
    pairs_within: bool = Field(
        False, description="Mine pairs among all images, not only between queries and gallery as the paper does."
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser.")
    learning_rate: float = Field(1e-4, gt=0.0, description="Learning rate.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Learning rate over the steps.")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of sgd.")
    weight_decay: float = Field(1e-3, ge=0.0, description="Weight decay.")
    height: int = Field(480, ge=64, le=4096, description="Height that photographs are cut to, px.")
    width: int = Field(640, ge=64, le=4096, description="Width that photographs are cut to, px.")
    colour: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="How far the colours of the crops of one photograph differ; the paper's 0.",
    )
    mirror: bool = Field(False, description="Mirror half of the batches of generated pairs; the paper does not.")
    split: tuple[str, ...] = Field(
        (), description="Of each source, the first of these splits that it has (train gallery); none: every image."
    )
    hold_out: tuple[str, ...] = Field(
        (), description="Patterns (*name*) of images for the corner error; none: every tenth run of ten images."
    )
    resolution: int = Field(
        0, ge=0, le=4096, description="Shorter side of the images that pairs are mined with, px."
    )
    validate_every: int = Field(500, ge=1, description="Steps between corner errors on held-out photographs.")

    @property
    def needs_pairs(self) -> bool:
        """Whether a weakly supervised loss has weight; without, single photographs are enough."""
        return self.lambda_fw > 0 or self.lambda_cons > 0


MOST_HELD_OUT = 128
"""Held-out photographs that the corner error is measured on."""


def train_warp(
    model: GeoWarp,
    photographs: Photographs,
    held_out: Photographs,
    config: WarpConfig,
    session_config: SessionConfig,
    output: Path,
    *,
    resume: bool = False,
    sources: Sequence[str] = (),
) -> float:
    """Train R; writes ``last.pt`` and ``best.safetensors`` (the least corner error on held-out photographs).

    Args:
        model: On the training device; only its regression changes.
        photographs: For generated pairs; where they are split into queries and gallery, pairs are mined between
            the two, otherwise among all.
        held_out: For the corner error.
        config: Losses, pairs, optimiser.
        session_config: Seed, precision, how often to save.
        output: Folder.
        resume: Go on from ``last.pt``.
        sources: Named in the record.

    Returns:
        The least corner error, in half image sides.

    Raises:
        TrainingError: Too few images, no pairs, a loss that is not finite, a folder in use.
        ModelError: The model has no regression.
    """
    regression = regression_of(model)
    _check(config, len(photographs))
    model.eval().requires_grad_(False)
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    regression.requires_grad_(True)
    session = Session(
        model,
        build_optimizer(regression, config),
        session_config,
        output,
        {"warp": config.model_dump(), "session": session_config.model_dump(), "sources": list(sources)},
    )
    session.start(resume)
    device = next(model.parameters()).device
    if config.needs_pairs and "pairs" not in session.memory:
        session.memory["pairs"] = torch.from_numpy(mine(model, photographs, config, session.kind))
    regression.train()  # after the mining, which leaves the whole model in eval mode
    validation = _spread(held_out, config)
    losses = WarpLosses(model, config.k, config.views, config.colour, session.autocast)
    batches = ahead(_reader(photographs, session, config), range(session.step, config.iterations))
    for step, batch in zip(session.steps(config.iterations), batches, strict=True):
        for group in session.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        terms = _terms(losses, batch, config, session)
        weights = {"ss": config.lambda_ss, "fw": config.lambda_fw, "cons": config.lambda_cons}
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. 10
        session.apply(total, batch.names, **terms)
        if session.step % config.validate_every == 0 or session.step == config.iterations:
            error = generated_corner_error(model, validation.to(device), config.k, autocast=session.autocast)
            session.log("corner_error", error)
            session.save_best(-error, {"corner_error": f"{error:.4f}"})
    session.finish()
    return -session.best


def mine(
    model: GeoWarp, photographs: Photographs, config: WarpConfig, precision: torch.dtype = torch.float32
) -> IndexPairs:
    """Query-positive pairs of eq. 14-15 as indices of ``photographs``, (P, 2).

    Raises:
        TrainingError: There are none.
    """
    descriptors = describe(model, photographs, precision=precision)
    readable = np.flatnonzero(np.isfinite(descriptors[:, 0]))
    queries = readable[photographs.queries[readable]]
    gallery = readable[~photographs.queries[readable]]
    thresholds = {"t_geo_m": config.t_geo_m, "t_feat": config.t_feat}
    positions = photographs.positions_m
    if config.pairs_within or not len(queries) or not len(gallery):
        within = mine_pairs_within(positions[readable], descriptors[readable], **thresholds)
        return readable[within]
    pairs = mine_pairs(
        positions[queries], descriptors[queries], positions[gallery], descriptors[gallery], **thresholds
    )
    return np.stack([queries[pairs[:, 0]], gallery[pairs[:, 1]]], axis=1)


def read_sets(sources: Sequence[Path], config: WarpConfig) -> tuple[Photographs, Photographs]:
    """Read the photographs to train with, and those held out, in one frame.

    Raises:
        SourceError: A source that cannot be read, or lacks the split.
        TrainingError: One of the two sets is empty.
    """
    splits = [_split_of(source, config.split) for source in sources]

    images = [
        image for path, split in zip(sources, splits, strict=True) for image in read_photographs([path], split)
    ]
    held = [is_held_out(image.place.name, index, len(images), config) for index, image in enumerate(images)]
    kept = tuple(image for image, out in zip(images, held, strict=True) if not out)
    held_out = tuple(image for image, out in zip(images, held, strict=True) if out)
    if not kept or not held_out:
        raise TrainingError(
            f"{len(kept)} images are left to train on and {len(held_out)} are held out: expected some of both"
        )
    frame = common_frame(kept)
    return (
        Photographs(kept, frame, resolution=config.resolution),
        Photographs(held_out, frame, resolution=config.resolution),
    )


def is_held_out(name: str, index: int, count: int, config: WarpConfig) -> bool:
    """Say whether the corner error is measured on this one of ``count`` images.

    Without patterns every tenth run of ten: runs, because neighbours in a drive show the same.
    """
    if config.hold_out:
        return any(fnmatch(name, pattern) for pattern in config.hold_out)
    run = max(1, min(10, count // 10))
    return index // run % 10 == 9


def _split_of(source: Path, wanted: Sequence[str]) -> str | None:
    if not wanted:
        return None
    there = [split for split in wanted if has_split([source], split)]
    return there[0] if there else wanted[0]  # which the reader then refuses by name


def with_regression(model: GeoWarp, *, fresh: bool = False) -> GeoWarp:
    """Return ``model`` with an untrained R where it has none, or where ``fresh`` asks for it."""
    if model.regression is None or fresh:
        model.regression = WarpRegression()
        model.config = model.config.model_copy(update={"regression": True})
    return model


def build_optimizer(regression: WarpRegression, config: WarpConfig) -> torch.optim.Optimizer:
    """Return the configured optimiser over R."""
    parameters, rate, decay = regression.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay)


def learning_rate(config: WarpConfig, step: int) -> float:
    """Return the rate at ``step``; cosine: up over the first 2 % of the steps, then down to 0 at the end."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = max(1, config.iterations // 50)
    fall = 0.5 * (1 + math.cos(math.pi * step / config.iterations))
    return config.learning_rate * min(1.0, (step + 1) / rise) * fall


@dataclass(frozen=True)
class _Batch:
    photographs: Tensor
    queries: Tensor | None
    positives: Tensor | None
    names: list[str]


def _check(config: WarpConfig, photographs: int) -> None:
    if photographs < config.batch_generated:
        raise TrainingError(f"{photographs} photographs are fewer than a batch of {config.batch_generated}")
    for name in ("batch_generated", "batch_pairs"):
        if getattr(config, name) % process_count():
            raise TrainingError(
                f"{name} = {getattr(config, name)} cannot be shared by {process_count()} processes"
            )


def _reader(photographs: Photographs, session: Session, config: WarpConfig) -> Callable[[int], _Batch]:
    """Return what reads the batch of a step; which images follows from seed and step alone."""
    pairs = session.memory["pairs"].cpu().numpy() if config.needs_pairs else None

    def read(step: int) -> _Batch:
        rng = np.random.default_rng([session.config.seed, step, 1])
        chosen = rng.choice(len(photographs), config.batch_generated, replace=False)
        pixels = _whole_batch(photographs, chosen, config)
        names = [photographs.names[index] for index in chosen]
        if pairs is None:
            return _Batch(pixels, None, None, names)
        rows = pairs[rng.integers(len(pairs), size=config.batch_pairs)]
        queries, positives = (_whole_batch(photographs, column, config) for column in rows.T)
        return _Batch(pixels, queries, positives, names + [photographs.names[index] for index in rows.ravel()])

    return read


def _spread(held_out: Photographs, config: WarpConfig) -> Tensor:
    """Return up to MOST_HELD_OUT photographs from all over the set, (B, 3, H, W) uint8."""
    chosen = np.linspace(0, len(held_out) - 1, min(len(held_out), MOST_HELD_OUT)).astype(np.int64)
    pixels, readable = held_out.batch(chosen, config.height, config.width)
    if not readable.any():
        raise TrainingError(f"not one held-out photograph can be read: {held_out.names[0]} and others")
    return pixels[torch.from_numpy(readable)]


def _whole_batch(photographs: Photographs, indices: Any, config: WarpConfig) -> Tensor:
    """Read the images of a batch; the next that can be read stands in for one that cannot."""
    pixels, readable = photographs.batch(indices, config.height, config.width)
    if readable.all():
        return pixels
    pixels, _ = photographs.batch([_readable(photographs, int(i)) for i in indices], config.height, config.width)
    return pixels


def _readable(photographs: Photographs, index: int) -> int:
    count = len(photographs)
    for candidate in range(index, index + count):
        if photographs[candidate % count] is not None:
            return candidate % count
    raise TrainingError(f"none of {count} photographs can be read: {photographs.names[index]} and all others")


def _terms(losses: WarpLosses, batch: _Batch, config: WarpConfig, session: Session) -> dict[str, Tensor]:
    """The unweighted losses that have weight."""
    terms: dict[str, Tensor] = {}
    if config.lambda_ss:
        pixels = batch.photographs.to(session.device)
        if config.mirror and session.rng("mirror").random() < 0.5:
            pixels = pixels.flip(-1)
        terms["ss"] = losses.generated(pixels, session.generator("colours"))
    if batch.queries is not None and batch.positives is not None:
        queries, positives = (
            coloured(pixels.to(session.device).float(), 0.0, session.generator("pairs"))
            for pixels in (batch.queries, batch.positives)
        )
        fw, cons = losses.pairs(queries, positives, features_wise=config.lambda_fw > 0)
        terms |= {"fw": fw, "cons": cons}
    return terms
