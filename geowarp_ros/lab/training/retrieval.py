"""Training of encoder and aggregation: descriptors near the same place's, far from others' (paper sec. 3.1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from geowarp_ros.errors import TrainingError
from geowarp_ros.evaluation.metrics import recall_at
from geowarp_ros.lab.training.data import (
    Augmentation,
    Indices,
    Photographs,
    ahead,
    common_frame,
    describe,
    read_photographs,
)
from geowarp_ros.lab.training.descriptor_losses import multi_similarity_loss, triplet_loss
from geowarp_ros.lab.training.mining import check_radii, mine_tuples, same_and_different, within
from geowarp_ros.lab.training.netvlad import sample_cells, start_from_data
from geowarp_ros.lab.training.processes import gather_rows, own_part, process_count, processes
from geowarp_ros.lab.training.session import Session, SessionConfig, training_device
from geowarp_ros.model.aggregation import NetVLAD
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.published import import_weights
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage

logger = logging.getLogger(__name__)


class PlacesConfig(SessionConfig):
    """What the trainings of the encoder share: the images, and which of them show the same place."""

    train_split: str = Field("train", description="Split to train on; empty: everything that is not held out.")
    val_split: str = Field("val", description="Split that chooses the checkpoint; unused with hold_out.")
    hold_out: tuple[str, ...] = Field(
        (),
        description="Name patterns (*video*) left out of the training, whichever their split, and validated on.",
    )
    utm_zone: str = Field("32N", description="UTM zone and hemisphere of names that give none.")
    positive_radius_m: float = Field(10.0, gt=0.0, description="The same place up to here, in m.")
    negative_radius_m: float = Field(25.0, gt=0.0, description="Another place beyond this, in m.")
    val_radius_m: float = Field(25.0, gt=0.0, description="A candidate this near is right in validation, in m.")
    ambiguous_m: float = Field(
        0.0, ge=0.0, description="Images of one folder farther apart than this are never negatives, in m; 0: off."
    )
    height: int = Field(480, ge=32, description="Height of the training images, px.")
    width: int = Field(640, ge=32, description="Width of the training images, px.")
    resolution: int = Field(0, ge=0, description="Shorter side that images are resized to, px; 0: as they are.")
    memory_mb: int = Field(4096, ge=0, description="Decoded images are kept in memory up to this, MiB.")
    tilt: float = Field(0.25, ge=0.0, lt=1.0, description="Augmentation: shift of a crop's corners, half sides.")
    zoom: float = Field(0.5, ge=0.0, lt=1.0, description="Augmentation: how much of each side a crop may lose.")
    colour: float = Field(0.35, ge=0.0, lt=1.0, description="Augmentation: strength of colour changes.")
    mirror: bool = Field(True, description="Augmentation: flip half of the batches.")
    batch_norm: Literal["trained", "frozen"] = Field(
        "trained", description="frozen: as in evaluation; then many processes agree with one exactly."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="Of the optimiser, on weights with more than one axis.")


class RetrievalTraining(PlacesConfig):
    """Training of the retrieval network by the NetVLAD protocol, or over batches of places."""

    loss: Literal["triplet", "multi-similarity"] = Field(
        "triplet", description="triplet: mined tuples, NetVLAD protocol; multi-similarity: batches of places."
    )
    learning_rate: float = Field(1e-5, gt=0.0, description="Of Adam.")
    batch_size: int = Field(4, ge=1, description="triplet: queries, each with its images; else places.")
    images_per_place: int = Field(4, ge=2, description="multi-similarity: images of each place in a batch.")
    iterations: int = Field(100_000, ge=1, description="Most steps.")
    margin: float = Field(0.1, gt=0.0, description="Of the triplet loss, on squared distances.")
    negatives: int = Field(10, ge=1, description="Hardest negatives of each query.")
    negative_pool: int = Field(1000, ge=1, description="Random gallery images that negatives are mined from.")
    queries_per_round: int = Field(
        1000, ge=1, description="Queries between refreshes of the descriptor cache, and between validations."
    )
    patience: int = Field(10, ge=1, description="Rounds without a better Recall@5 before the training stops.")


@dataclass(frozen=True, slots=True)
class Places:
    """A set of photographs as queries and gallery.

    Where the source has no queries, each image is a query to all the others.
    """

    photographs: Photographs
    queries: Indices
    gallery: Indices

    @classmethod
    def of(cls, photographs: Photographs) -> Places:
        """Split by the source's own queries."""
        every = np.arange(len(photographs))
        queries, gallery = every[photographs.queries], every[~photographs.queries]
        return (
            cls(photographs, queries, gallery) if len(queries) and len(gallery) else cls(photographs, every, every)
        )

    def near(self, radius_m: float) -> list[Indices]:
        """Return for each query the places in ``gallery`` within the radius, itself excepted."""
        positions = self.photographs.positions_m
        found = within(positions[self.queries], positions[self.gallery], radius_m)
        return [near[self.gallery[near] != query] for query, near in zip(self.queries, found, strict=True)]


def train_retrieval(
    sources: Sequence[Path],
    output: Path,
    config: RetrievalTraining,
    model: GeoWarp,
    *,
    resume: bool = False,
    progress: Progress = silent,
) -> float:
    """Train ``model``'s encoder and aggregation; leaves ``best.safetensors`` and ``last.pt`` in ``output``.

    Args:
        sources: Geotagged images with the configuration's splits.
        output: New folder, or one to resume.
        config: How.
        model: Where to start, see :func:`starting_model`. Its regression is kept as it is.
        resume: Go on from ``last.pt``.
        progress: Shows how far mining and validation are.

    Returns:
        The best Recall@5 of the validation split, percent.

    Raises:
        TrainingError: The data cannot train (no positives, too few images …), or a loss is not finite.
    """
    device = training_device(config)
    with processes(device):
        training, validation = read_places(sources, config)
        model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = [*model.encoder.parameters(), *model.pool.parameters()]
        optimizer = torch.optim.Adam(_groups(trained, config), lr=config.learning_rate)
        session = Session(model, optimizer, config, output, {"sources": list(sources), **config.model_dump()})
        session.start(resume)
        if isinstance(model.pool, NetVLAD) and session.step == 0:
            start_from_data(
                model.pool, sample_cells(model, training.photographs, session.rng("cells")), config.seed
            )
        rounds = _TripletRounds if config.loss == "triplet" else _PlaceRounds
        _run(session, config, rounds(session, config, training, progress), validation, progress)
        return session.best


def starting_model(start: str, config: ModelConfig) -> GeoWarp:
    """Build the model to start from.

    Args:
        start: ``scratch``, a model file (``default``, ``.safetensors``), or a state dict of ImageNet or published
            weights (``.pth``).
        config: Architecture; a model file brings its own.
    """
    if start == "scratch":
        return GeoWarp(config)
    if start == "default" or Path(start).suffix == ".safetensors":
        return load_model(start)
    imported = import_weights(config.encoder, config.aggregation, Path(start), resolution=config.resolution)
    if not config.regression:
        return imported
    model = GeoWarp(config)
    model.load_state_dict({**model.state_dict(), **imported.state_dict()})
    return model


def read_places(sources: Sequence[Path], config: PlacesConfig) -> tuple[Places, Places]:
    """Read training and validation images and refuse what cannot train, before anything is trained.

    Raises:
        TrainingError: No query has a positive within the radius, too few images, radii that contradict.
    """
    check_radii(config.positive_radius_m, config.negative_radius_m)
    read = partial(read_photographs, sources, utm_zone=config.utm_zone)
    train_images = read(config.train_split or None, hold_out=config.hold_out)
    val_images = read(None, only=config.hold_out) if config.hold_out else read(config.val_split)
    frame = common_frame(train_images)

    def places(images: Sequence[SourceImage]) -> Places:
        return Places.of(Photographs(images, frame, resolution=config.resolution, memory_mb=config.memory_mb))

    training, validation = places(train_images), places(val_images)
    for name, found, radius_m in (
        ("training", training, config.positive_radius_m),
        ("validation", validation, config.val_radius_m),
    ):
        with_positive = sum(len(near) > 0 for near in found.near(radius_m))
        if not with_positive:
            raise TrainingError(
                f"{name}: none of {len(found.queries)} queries has a positive within {radius_m:g} m"
            )
        logger.info(
            "%s: %d queries (%d with a positive within %g m), %d gallery images",
            name, len(found.queries), with_positive, radius_m, len(found.gallery),
        )  # fmt: skip
    return training, validation


def validate(model: GeoWarp, places: Places, radius_m: float, first: int, progress: Progress = silent) -> float:
    """Return Recall@``first`` of the places' queries at ``radius_m``, percent of all queries."""
    descriptors = describe(model, places.photographs, progress=progress)
    query, gallery = descriptors[places.queries], descriptors[places.gallery]
    positions = places.photographs.positions_m
    squares = (gallery**2).sum(axis=1)
    errors = np.full((len(query), first), np.inf)
    for row, (index, descriptor) in enumerate(zip(places.queries, query, strict=True)):
        distances = squares - 2 * gallery @ descriptor
        distances[places.gallery == index] = np.inf
        best = np.argsort(np.nan_to_num(distances, nan=np.inf), kind="stable")[:first]
        apart_m = np.linalg.norm(positions[places.gallery[best]] - positions[index], axis=1)
        errors[row, : len(best)] = np.where(np.isfinite(distances[best]), apart_m, np.inf)
    return recall_at(errors, first, radius_m)


def train_mode(model: GeoWarp, batch_norm: Literal["trained", "frozen"]) -> None:
    """Put the network in training mode, its batch norms as chosen; the regression always stays as it is."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and batch_norm == "frozen":
            module.eval()
    if model.regression is not None:
        model.regression.eval()


def augmentation(config: PlacesConfig) -> Augmentation:
    """Build the augmentation that the configuration describes."""
    return Augmentation(tilt=config.tilt, zoom=config.zoom, colour=config.colour, mirror=config.mirror)


def _groups(parameters: Sequence[nn.Parameter], config: PlacesConfig) -> list[dict[str, object]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images of one step, (B, 3, H, W) uint8, which could be read, their indices and names."""

    pixels: Tensor
    readable: Tensor
    indices: Indices
    names: list[str]


def _batch(photographs: Photographs, indices: Indices, config: PlacesConfig) -> _Batch:
    pixels, readable = photographs.batch(indices, config.height, config.width)
    return _Batch(pixels, torch.from_numpy(readable), indices, [photographs.names[index] for index in indices])


class _TripletRounds:
    """Tuples mined at the start of each round and visited in order (METHOD.md, training E + A).

    The mined tuples are in the session's memory, so that a killed training goes on within its round.
    """

    def __init__(self, session: Session, config: RetrievalTraining, places: Places, progress: Progress) -> None:
        self.session, self.config, self.places, self.progress = session, config, places, progress
        self.rows = config.batch_size * (2 + config.negatives)
        self.positives = places.near(config.positive_radius_m)
        self.forbidden = places.near(config.negative_radius_m)
        far = len(places.gallery) - 1 - min(len(near) for near in self.forbidden)
        if far < config.negatives:
            raise TrainingError(
                f"only {far} gallery images lie farther than {config.negative_radius_m:g} m from a query, "
                f"expected {config.negatives} negatives at least"
            )

    def refresh(self, step: int) -> None:
        """Draw queries and a pool of the gallery, describe them, and mine."""
        rng, places, config = self.session.rng("round", step), self.places, self.config
        with_positive = np.flatnonzero([len(near) > 0 for near in self.positives])
        chosen = rng.permutation(with_positive)[: config.queries_per_round]
        pool = rng.permutation(len(places.gallery))[: config.negative_pool]
        wanted = np.unique(np.concatenate([pool, *(self.positives[query] for query in chosen)]))
        describe_some = partial(
            describe, self.session.model, places.photographs, precision=self.session.kind, progress=self.progress
        )
        gallery = np.full((len(places.gallery), self.session.model.descriptor_dim), np.nan, np.float32)
        gallery[wanted] = describe_some(places.gallery[wanted])
        query = np.full((len(places.queries), gallery.shape[1]), np.nan, np.float32)
        query[chosen] = describe_some(places.queries[chosen])
        mined = mine_tuples(
            query, gallery, self.positives, self._with_itself(), pool, chosen=chosen, negatives=config.negatives
        )
        if not len(mined.query):
            raise TrainingError("no query of this round has readable positives and negatives")
        rows = [places.queries[mined.query, None], places.gallery[mined.positive, None]]
        table = np.concatenate([*rows, places.gallery[mined.negatives]], axis=1)
        self.session.memory["tuples"] = torch.from_numpy(table)

    def _with_itself(self) -> list[Indices]:
        if self.places.queries is not self.places.gallery:
            return self.forbidden
        return [np.append(near, index) for index, near in enumerate(self.forbidden)]

    def batch(self, step: int) -> _Batch:
        """Read the images of some tuples, tuple by tuple."""
        table = self.session.memory["tuples"].cpu().numpy()
        start = step % rounds_of(self.config) * self.config.batch_size
        chosen = np.arange(start, start + self.config.batch_size) % len(table)
        return _batch(self.places.photographs, table[chosen].reshape(-1), self.config)

    def loss(self, descriptors: Tensor, batch: _Batch) -> Tensor:
        """Triplet loss of the tuples of which every image could be read."""
        each = descriptors.view(self.config.batch_size, -1, descriptors.shape[1])
        whole = batch.readable.view(self.config.batch_size, -1).all(dim=1)
        if not whole.any():
            return descriptors.sum() * 0
        each = each[whole.to(each.device)]
        return triplet_loss(each[:, 0], each[:, 1], each[:, 2:], self.config.margin)


class _PlaceRounds:
    """Batches of places, several images of each; nothing is mined but within the batch."""

    def __init__(self, session: Session, config: RetrievalTraining, places: Places, progress: Progress) -> None:
        self.session, self.config, self.places = session, config, places
        self.rows = config.batch_size * config.images_per_place
        photographs = places.photographs
        every = Places(photographs, np.arange(len(photographs)), np.arange(len(photographs)))
        self.near = every.near(config.positive_radius_m)
        self.anchors = np.flatnonzero([len(near) > 0 for near in self.near])
        if len(self.anchors) < config.batch_size:
            raise TrainingError(
                f"{len(self.anchors)} images have another within {config.positive_radius_m:g} m, fewer than the "
                f"{config.batch_size} places of a batch"
            )

    def refresh(self, step: int) -> None:
        """Nothing is cached."""

    def batch(self, step: int) -> _Batch:
        """Read images of random places."""
        rng = self.session.rng("places", step)
        more = self.config.images_per_place - 1
        rows: list[int] = []
        for anchor in rng.choice(self.anchors, self.config.batch_size, replace=False):
            near = self.near[anchor]
            rows += [anchor, *rng.choice(near, more, replace=len(near) < more)]
        return _batch(self.places.photographs, np.array(rows, np.int64), self.config)

    def loss(self, descriptors: Tensor, batch: _Batch) -> Tensor:
        """Multi-similarity loss over all pairs of the batch that could be read."""
        photographs, device = self.places.photographs, descriptors.device
        same, different = same_and_different(
            photographs.positions_m[batch.indices],
            positive_radius_m=self.config.positive_radius_m,
            negative_radius_m=self.config.negative_radius_m,
            names=batch.names,
            ambiguous_m=self.config.ambiguous_m,
        )
        readable = batch.readable.numpy()
        both = readable[:, None] & readable[None]
        return multi_similarity_loss(
            descriptors, torch.from_numpy(same & both).to(device), torch.from_numpy(different & both).to(device)
        )


def rounds_of(config: RetrievalTraining) -> int:
    """Return the steps of one round."""
    return max(1, config.queries_per_round // config.batch_size)


def _run(
    session: Session,
    config: RetrievalTraining,
    rounds: _TripletRounds | _PlaceRounds,
    validation: Places,
    progress: Progress,
) -> None:
    if rounds.rows % process_count():
        raise TrainingError(f"a batch of {rounds.rows} images cannot be shared by {process_count()} processes")
    augment, per_round = augmentation(config), rounds_of(config)
    batches: Iterator[_Batch] | None = None
    for step in session.steps(config.iterations):
        place = step % per_round
        if place == 0:
            rounds.refresh(step)
        if place == 0 or batches is None:
            batches = ahead(rounds.batch, range(step, step - place + per_round))
        train_mode(session.model, config.batch_norm)
        batch = next(batches)
        images = augment(batch.pixels.to(session.device), session.generator("augmentation"))
        with session.autocast():
            feature_map = session.model.feature_map(images[own_part(len(images))])
        session.apply(rounds.loss(gather_rows(session.model.pool(feature_map)), batch), batch.names)
        if place == per_round - 1 or session.step == config.iterations:
            recall = validate(session.model, validation, config.val_radius_m, 5, progress)
            session.log("recall@5", recall)
            session.save_best(recall)
            if session.stale >= config.patience:
                logger.info("no better Recall@5 for %d rounds: stopping", session.stale)
                session.save()
                break
    session.finish()
