"""Training of encoder and aggregation for retrieval (paper sec. 3.1)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.studies.metrics import recall_at
from geowarp_ros.lab.training.data import (
    Augmentation,
    Photographs,
    common_frame,
    describe,
    read_photographs,
    share_of,
    split_by_area,
)
from geowarp_ros.lab.training.descriptor_losses import multi_similarity_loss, triplet_loss
from geowarp_ros.lab.training.mining import Indices, mine_tuples
from geowarp_ros.lab.training.netvlad import sample_cells, start_from_data
from geowarp_ros.lab.training.parameters import RetrievalTraining
from geowarp_ros.lab.training.processes import gather_rows, own_part, processes
from geowarp_ros.lab.training.session import Session, parameter_groups, training_device
from geowarp_ros.model.aggregation import NetVLAD
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.published import import_weights
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage

logger = logging.getLogger(__name__)


def train_retrieval(
    sources: Sequence[Path],
    output: Path,
    config: RetrievalTraining,
    model: GeoWarp,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> float:
    """Train encoder and aggregation; write ``best.safetensors`` and ``last.pt``.

    Args:
        sources: Geotagged images with the configured splits.
        output: Output folder.
        config: Training parameters.
        model: Initial model, see :func:`starting_model`; its regression is unchanged.
        resume: Resume from ``last.pt``.
        progress: Progress display.

    Returns:
        Best Recall@5 on the validation split (percent).

    Raises:
        TrainingError: Unsuitable data (no positives, too few images …) or a non-finite loss.
    """
    device = training_device(config)
    with processes(device):
        training, validation = read_places(sources, config)
        model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = [*model.encoder.parameters(), *model.pool.parameters()]
        optimizer = torch.optim.Adam(parameter_groups(trained, config.weight_decay), lr=config.learning_rate)
        session = Session(model, optimizer, config, output, {"sources": list(sources), **config.model_dump()})
        session.start(resume)
        if isinstance(model.pool, NetVLAD) and session.step == 0:
            start_from_data(model.pool, sample_cells(model, training, session.rng("cells")), config.seed)
        kind = _TripletRounds if config.loss == "triplet" else _PlaceRounds
        rounds = kind(session, config, training, progress)
        augment = Augmentation(tilt=config.tilt, zoom=config.zoom, colour=config.colour, mirror=config.mirror)
        per_round = max(1, config.queries_per_round // config.batch_size)

        def read(step: int) -> tuple[Tensor, Indices]:
            return training.batch(rounds.draw(step, step % per_round), config.height, config.width)

        for pixels, indices in session.batches(config.iterations, read, per_round, rounds.refresh):
            train_mode(model, config.batch_norm)
            images = augment(pixels.to(device), session.generator("augmentation"))
            with session.autocast():
                encoded = model.encode(images[own_part(len(images))])
            loss = rounds.loss(gather_rows(model.aggregate(encoded)), indices)
            session.apply(loss, [training.names[index] for index in indices])
            if session.ends_round(per_round):
                recall = validate(model, validation, config.val_radius_m, 5, progress)
                session.log("recall@5", recall)
                session.save_best(recall)
                if session.stale >= config.patience:
                    logger.info("no better Recall@5 for %d rounds: stopping", session.stale)
                    session.save()
                    break
        session.finish()
        return session.best


def starting_model(start: str, config: ModelConfig) -> GeoWarp:
    """Build the initial model.

    Args:
        start: ``scratch``, a model file (``default``, ``.safetensors``), or ImageNet or published weights
            (``.pth``).
        config: Architecture, unless ``start`` is a model file.

    Raises:
        TrainingError: Retrieval and matching have networks of their own.
    """
    if start == "scratch":
        return GeoWarp(config)
    if start == "default" or Path(start).suffix == ".safetensors":
        model = load_model(start)
        if model.config.retrieval is not None:
            raise TrainingError(f"{start}: retrieves by a network of its own: train that, then combine them again")
        return model
    imported = import_weights(
        config.encoder, config.aggregation, Path(start), None, config.resolution, config.projection
    )
    if not config.regression:
        return imported
    model = GeoWarp(config)
    model.load_state_dict({**model.state_dict(), **imported.state_dict()})
    return model


def read_places(sources: Sequence[Path], config: RetrievalTraining) -> tuple[Photographs, Photographs]:
    """Read and check training and validation images.

    Raises:
        TrainingError: No query has a positive, the radii contradict each other, or the images cannot be split by
            area.
    """
    config.check_radii()
    read = partial(read_photographs, sources, reading=config)
    train_images: Sequence[SourceImage]
    val_images: Sequence[SourceImage]
    if (share := share_of(config.hold_out)) is not None:
        gap_m = max(config.negative_radius_m, config.val_radius_m)
        train_images, val_images = split_by_area(read(None), share, gap_m, config.seed)
    else:
        train_images = read(config.train_split or None, hold_out=config.hold_out)
        val_images = read(None, only=config.hold_out) if config.hold_out else read(config.val_split)
    frame = common_frame(train_images)
    training, validation = (
        Photographs(images, frame, resolution=config.resolution, memory_mb=config.memory_mb)
        for images in (train_images, val_images)
    )
    for name, found, radius_m in (
        ("training", training, config.positive_radius_m),
        ("validation", validation, config.val_radius_m),
    ):
        queries, gallery = found.roles()
        with_positive = sum(len(near) > 0 for near in found.near(radius_m, queries, gallery))
        if not with_positive:
            raise TrainingError(f"{name}: none of {len(queries)} queries has a positive within {radius_m:g} m")
        logger.info(
            "%s: %d queries (%d with a positive within %g m), %d gallery images",
            name, len(queries), with_positive, radius_m, len(gallery),
        )  # fmt: skip
    return training, validation


def validate(
    model: GeoWarp, photographs: Photographs, radius_m: float, first: int, progress: Progress = silent
) -> float:
    """Return Recall@``first`` at ``radius_m`` in percent of all queries."""
    return recall_of(describe(model, photographs, progress=progress), photographs, radius_m, first)


def recall_of(descriptors: NDArray[np.float32], photographs: Photographs, radius_m: float, first: int) -> float:
    """Return the same of descriptors (N, D) at hand."""
    queries, places = photographs.roles()
    positions = photographs.positions_m
    gallery = descriptors[places]
    squares = (gallery**2).sum(axis=1)
    errors = np.full((len(queries), first), np.inf)
    for row, query in enumerate(queries):
        distances = squares - 2 * gallery @ descriptors[query]
        distances[places == query] = np.inf
        best = np.argsort(np.nan_to_num(distances, nan=np.inf), kind="stable")[:first]
        apart_m = np.linalg.norm(positions[places[best]] - positions[query], axis=1)
        errors[row, : len(best)] = np.where(np.isfinite(distances[best]), apart_m, np.inf)
    return recall_at(errors, first, radius_m)


def train_mode(model: GeoWarp, batch_norm: Literal["trained", "frozen"]) -> None:
    """Set training mode with trained or frozen batch norms; the regression stays in eval mode."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and batch_norm == "frozen":
            module.eval()
    if model.regression is not None:
        model.regression.eval()


class _TripletRounds:
    """Tuples mined once per round (NetVLAD protocol), kept in the session's memory for resuming."""

    def __init__(
        self, session: Session, config: RetrievalTraining, photographs: Photographs, progress: Progress
    ) -> None:
        self.session, self.config, self.photographs, self.progress = session, config, photographs, progress
        self.queries, self.gallery = photographs.roles()
        self.positives = photographs.near(config.positive_radius_m, self.queries, self.gallery)
        self.forbidden = photographs.near(config.negative_radius_m, self.queries, self.gallery)
        far = len(self.gallery) - 1 - min(len(near) for near in self.forbidden)
        if far < config.negatives:
            raise TrainingError(
                f"only {far} gallery images lie farther than {config.negative_radius_m:g} m from a query, "
                f"expected {config.negatives} negatives at least"
            )

    def refresh(self, step: int) -> None:
        """Sample queries and a gallery pool, describe them and mine tuples."""
        session, config = self.session, self.config
        rng = session.rng("round", step)
        with_positive = np.flatnonzero([len(near) > 0 for near in self.positives])
        chosen = rng.permutation(with_positive)[: config.queries_per_round]
        pool = rng.permutation(self.gallery)[: config.negative_pool]
        positives, forbidden = ([near[row] for row in chosen] for near in (self.positives, self.forbidden))
        described = partial(
            describe, session.model, self.photographs, autocast=session.autocast, progress=self.progress
        )
        descriptors = np.full((len(self.photographs), session.model.descriptor_dim), np.nan, np.float32)
        wanted = np.unique(np.concatenate([pool, *positives]))
        descriptors[wanted] = described(wanted)
        queries = self.queries[chosen]
        mined = mine_tuples(queries, described(queries), descriptors, positives, forbidden, pool, config.negatives)
        if not len(mined):
            raise TrainingError("no query of this round has readable positives and negatives")
        session.memory["tuples"] = torch.from_numpy(mined)

    def draw(self, step: int, place: int) -> Indices:
        """Return the images of the step's tuples, ``place`` steps into the round."""
        table = self.session.memory["tuples"].cpu().numpy()
        chosen = (place * self.config.batch_size + np.arange(self.config.batch_size)) % len(table)
        return np.asarray(table[chosen].reshape(-1))

    def loss(self, descriptors: Tensor, indices: Indices) -> Tensor:
        """Return the triplet loss."""
        each = descriptors.view(self.config.batch_size, -1, descriptors.shape[1])
        return triplet_loss(each[:, 0], each[:, 1], each[:, 2:], self.config.margin)


class _PlaceRounds:
    """Batches of random places with several images each; mining within the batch only."""

    def __init__(
        self, session: Session, config: RetrievalTraining, photographs: Photographs, progress: Progress
    ) -> None:
        self.session, self.config, self.photographs = session, config, photographs
        every = np.arange(len(photographs))
        self.near = photographs.near(config.positive_radius_m, every, every)
        self.anchors = np.flatnonzero([len(near) > 0 for near in self.near])
        if len(self.anchors) < config.batch_size:
            raise TrainingError(
                f"{len(self.anchors)} images have another within {config.positive_radius_m:g} m, fewer than the "
                f"{config.batch_size} places of a batch"
            )

    refresh = None  # nothing is kept from step to step

    def draw(self, step: int, place: int) -> Indices:
        """Return images of random places."""
        rng = self.session.rng("places", step)
        more = self.config.images_per_place - 1
        rows: list[int] = []
        for anchor in rng.choice(self.anchors, self.config.batch_size, replace=False):
            near = self.near[anchor]
            rows += [anchor, *rng.choice(near, more, replace=len(near) < more)]
        return np.array(rows, np.int64)

    def loss(self, descriptors: Tensor, indices: Indices) -> Tensor:
        """Return the multi-similarity loss over all pairs of the batch."""
        names = [self.photographs.names[index] for index in indices]
        labels = self.config.label(self.photographs.positions_m[indices], names)
        same, different = (torch.from_numpy(label).to(descriptors.device) for label in labels)
        return multi_similarity_loss(descriptors, same, different)
