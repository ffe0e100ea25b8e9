"""Training of the warping regression R (paper sec. 3.4, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import (
    Autocast,
    Photographs,
    describe,
    read_as,
    read_photographs,
)
from geowarp_ros.lab.training.grounds import apart, frame_of, read_unlabelled
from geowarp_ros.lab.training.mining import Indices, mine_pairs
from geowarp_ros.lab.training.objective import WarpLosses, coloured, regression_of
from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig
from geowarp_ros.lab.training.session import Session
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.regression import WarpRegression
from geowarp_ros.readers import SourceImage

MOST_HELD_OUT = 128
"""Maximum number of validation images."""


def train_warp(
    model: GeoWarp,
    photographs: Photographs,
    held_out: Photographs,
    config: WarpConfig,
    session_config: SessionConfig,
    output: Path,
    *,
    resume: bool = False,
    sources: Sequence[Path | str] = (),
) -> float:
    """Train R; write ``last.pt`` and ``best.safetensors`` (lowest corner error on held-out images).

    Args:
        model: Model on the training device; only its regression changes.
        photographs: Training images; pairs are mined between their queries and gallery, or among all.
        held_out: Validation images.
        config: Losses, pairs and optimiser.
        session_config: Seed, precision and checkpoint interval.
        output: Output folder.
        resume: Resume from ``last.pt``.
        sources: Source names for the record.

    Returns:
        Lowest corner error (half image sides).

    Raises:
        TrainingError: Too few images, no pairs, a non-finite loss, or the folder is in use.
        ModelError: The model has no regression.
    """
    regression = regression_of(model)
    if len(photographs) < config.batch_generated:
        raise TrainingError(f"{len(photographs)} photographs are fewer than a batch of {config.batch_generated}")
    model.eval().requires_grad_(False)
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    regression.requires_grad_(True)
    settings = {"warp": config.model_dump(), "session": session_config.model_dump(), "sources": list(sources)}
    session = Session(model, build_optimizer(regression, config), session_config, output, settings)
    session.start(resume)
    if config.needs_pairs and "pairs" not in session.memory:
        session.memory["pairs"] = torch.from_numpy(mine(model, photographs, config, session.autocast))
    regression.train()  # mining leaves the model in eval mode
    spread = np.linspace(0, len(held_out) - 1, min(len(held_out), MOST_HELD_OUT)).astype(np.int64)
    validation, _ = held_out.batch(spread, config.height, config.width)

    pairs = session.memory["pairs"].cpu().numpy() if config.needs_pairs else np.empty((1, 0), np.int64)

    def read(step: int) -> tuple[Tensor, Indices]:
        rng = np.random.default_rng([session_config.seed, step, 1])
        single = rng.choice(len(photographs), config.batch_generated, replace=False)
        paired = pairs[rng.integers(len(pairs), size=config.batch_pairs)].T  # queries, then positives
        return photographs.batch(np.concatenate([single, *paired]), config.height, config.width)

    losses = WarpLosses(model, config.k, config.views, config.colour, session.autocast)
    weights = {"ss": config.lambda_ss, "fw": config.lambda_fw, "cons": config.lambda_cons}
    for pixels, indices in session.batches(config.iterations, read):
        for group in session.optimizer.param_groups:
            group["lr"] = learning_rate(config, session.step)
        terms = _terms(losses, pixels.to(session.device), config, session)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. 10
        session.apply(total, [photographs.names[index] for index in indices], **terms)
        if session.ends_round(config.validate_every):
            error = losses.generated_corner_error(validation.to(session.device))
            session.log("corner_error", error)
            session.save_best(-error, {"corner_error": f"{error:.4f}"})
    session.finish()
    return -session.best


def mine(
    model: GeoWarp, photographs: Photographs, config: WarpConfig, autocast: Autocast = nullcontext
) -> Indices:
    """Mine query-positive pairs (eq. 14-15); return indices (P, 2) into ``photographs``.

    Raises:
        TrainingError: There are none.
    """
    descriptors = describe(model, photographs, autocast=autocast)
    queries = None if config.pairs_within else photographs.queries
    return mine_pairs(photographs.positions_m, descriptors, queries, t_geo_m=config.t_geo_m, t_feat=config.t_feat)


def read_sets(sources: Sequence[Path], config: WarpConfig, seed: int = 0) -> tuple[Photographs, Photographs]:
    """Read the training and validation images in a common frame.

    Raises:
        SourceError: A source cannot be read or lacks the split.
        TrainingError: One of the two sets is empty, or the images cannot be split by area.
    """
    images = [each for path in sources for each in _read(path, config)]
    kept, held_out = apart(images, config.hold_out, config.t_geo_m, seed)
    frame = frame_of(kept)
    training, validation = (Photographs(each, frame, resolution=config.resolution) for each in (kept, held_out))
    return training, validation


def _read(source: Path, config: WarpConfig) -> tuple[SourceImage, ...]:
    wanted = config.split
    names = [f"{name}/" for name in read_as(source, config).splits if name] if wanted else []
    there = [split for split in wanted if any(name.startswith(f"{split}/") for name in names)]
    split = next(iter(there or wanted), None)  # one that is not there is refused by the reader, by name
    if not config.needs_pairs:
        return read_unlabelled(source, split or "", config)
    return read_photographs([source], split, reading=config)


def with_regression(model: GeoWarp, *, fresh: bool = False) -> GeoWarp:
    """Add an untrained regression to ``model`` if it has none or ``fresh`` is set; return the model."""
    if model.regression is None or fresh:
        model.regression = WarpRegression()
        model.config = model.config.model_copy(update={"regression": True})
    return model


def build_optimizer(regression: WarpRegression, config: WarpConfig) -> torch.optim.Optimizer:
    """Return the optimiser of R."""
    parameters, rate, decay = regression.parameters(), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay)


def learning_rate(config: WarpConfig, step: int) -> float:
    """Return the learning rate at ``step``; cosine: linear warm-up over 2 % of the steps, then decay to 0."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = max(1, config.iterations // 50)
    fall = 0.5 * (1 + math.cos(math.pi * step / config.iterations))
    return config.learning_rate * min(1.0, (step + 1) / rise) * fall


def _terms(losses: WarpLosses, pixels: Tensor, config: WarpConfig, session: Session) -> dict[str, Tensor]:
    """Return the unweighted terms of eq. 10 that have weight; ``pixels`` are single images, queries, positives."""
    terms: dict[str, Tensor] = {}
    if config.lambda_ss:
        single = pixels[: config.batch_generated]
        mirrored = config.mirror and session.rng("mirror").random() < 0.5
        terms["ss"] = losses.generated(single.flip(-1) if mirrored else single, session.generator("colours"))
    if config.needs_pairs:
        pairs = coloured(pixels[config.batch_generated :], 0.0, session.generator("pairs"))
        fw, cons = losses.pairs(*pairs.chunk(2), features_wise=config.lambda_fw > 0)
        terms |= {"fw": fw, "cons": cons}
    return terms
