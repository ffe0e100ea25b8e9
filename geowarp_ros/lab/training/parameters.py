"""The parameters of the trainings, without torch: ``--help`` and a wrong path are answered at once."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.mining import PlaceConfig

K_SWEEP = (0.2, 0.4, 0.6, 0.8)
"""Warping coefficients of Figure 6."""


class SessionConfig(Section):
    """Parameters of every training."""

    seed: int = Field(0, ge=0, lt=2**31, description="Random seed.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Device; auto: CUDA if available.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="Arithmetic of the networks; weights stay float32. bfloat16 on CUDA and on CPUs that have it;"
        " float16 on CUDA only.",
    )
    clip_norm: float = Field(10.0, gt=0.0, description="Maximum gradient norm.")
    save_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(20, ge=1, description="Steps between log lines and TensorBoard scalars.")
    tensorboard: bool = Field(True, description="Write TensorBoard event files; needs the extra 'train'.")


class Reading(Section):
    """How images and their positions are read, as by ``geowarp gallery build``."""

    utm_zone: str = Field("", description="UTM zone and hemisphere, such as 32N, of file names that give none.")
    accept_null_island: bool = Field(False, description="Keep images at exactly 0°, 0°.")
    fix_offset: float | None = Field(
        None, description="Offset added to the stamps of a bag's fixes (s); none: clocks that differ are refused."
    )
    image_topic: str = Field("", description="Image topic, if a bag has several.")
    fix_topic: str = Field("", description="NavSatFix topic, if a bag has several.")
    track: str = Field("", description="GPX track that was recorded beside a video.")
    track_offset: float = Field(0.0, description="Time to add to a video's (s).")
    every: str = Field("2m", description="Distance or time between a video's pictures.")
    panorama: int = Field(0, ge=0, description="The images are 360° panoramas: views to cut each into; 0: none.")


class RetrievalTraining(SessionConfig, PlaceConfig, Reading):
    """Parameters of ``geowarp train retrieval``."""

    train_split: str = Field("train", description="Training split; empty: all images that are not held out.")
    val_split: str = Field("val", description="Validation split; ignored with hold_out.")
    height: int = Field(480, ge=32, description="Height of the training images (px).")
    width: int = Field(640, ge=32, description="Width of the training images (px).")
    resolution: int = Field(0, ge=0, description="Shorter side after resizing (px); 0: original size.")
    memory_mb: int = Field(4096, ge=0, description="Cache of decoded images (MiB).")
    tilt: float = Field(0.25, ge=0.0, lt=1.0, description="Maximum corner shift of crops (half crop sides).")
    zoom: float = Field(0.5, ge=0.0, lt=1.0, description="Maximum share of each side cropped away.")
    colour: float = Field(0.35, ge=0.0, lt=1.0, description="Strength of the colour jitter.")
    mirror: bool = Field(True, description="Flip half of the batches horizontally.")
    batch_norm: Literal["trained", "frozen"] = Field(
        "trained", description="frozen: eval mode, so that several processes match a single one exactly."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="Weight decay; not on biases and norms.")
    loss: Literal["triplet", "multi-similarity"] = Field(
        "triplet", description="triplet: mined tuples (NetVLAD protocol); multi-similarity: batches of places."
    )
    learning_rate: float = Field(1e-5, gt=0.0, description="Learning rate of Adam.")
    batch_size: int = Field(4, ge=1, description="Tuples (triplet) or places (multi-similarity) per batch.")
    images_per_place: int = Field(4, ge=2, description="multi-similarity: images per place in a batch.")
    iterations: int = Field(100_000, ge=1, description="Maximum number of steps.")
    margin: float = Field(0.1, gt=0.0, description="triplet: margin on squared distances.")
    negatives: int = Field(10, ge=1, description="triplet: hardest negatives per query.")
    negative_pool: int = Field(1000, ge=1, description="triplet: random gallery images to mine negatives from.")
    queries_per_round: int = Field(1000, ge=1, description="Queries between mining rounds and validations.")
    patience: int = Field(10, ge=1, description="Rounds without a better Recall@5 before stopping.")


class WarpConfig(Reading):
    """Parameters of ``geowarp train warp``; defaults as in the paper (sec. 4.1)."""

    iterations: int = Field(50_000, ge=1, description="Optimiser steps.")
    lambda_ss: float = Field(1.0, ge=0.0, description="Weight of the self-supervised loss (eq. 10).")
    lambda_fw: float = Field(10.0, ge=0.0, description="Weight of the features-wise loss (eq. 10); needs pairs.")
    lambda_cons: float = Field(0.1, ge=0.0, description="Weight of the consistency loss (eq. 10); needs pairs.")
    k: float = Field(0.6, ge=0.0, le=1.0, description="Warping coefficient of generated pairs (eq. 11).")
    views: int = Field(2, ge=2, le=16, description="Crops per image; all pairs of them are used. Paper: 2.")
    batch_generated: int = Field(16, ge=1, description="Images per step for generated pairs.")
    batch_pairs: int = Field(16, ge=1, description="Query-positive pairs per step.")
    t_geo_m: float = Field(25.0, gt=0.0, description="Maximum distance within a pair (m, eq. 14).")
    t_feat: float = Field(1.2, gt=0.0, description="Maximum squared descriptor distance within a pair (eq. 15).")
    pairs_within: bool = Field(False, description="Mine pairs among all images, not between queries and gallery.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="Optimiser.")
    learning_rate: float = Field(1e-4, gt=0.0, description="Learning rate.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="Learning-rate schedule.")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Momentum of sgd.")
    weight_decay: float = Field(1e-3, ge=0.0, description="Weight decay.")
    height: int = Field(
        0, ge=0, le=4096, description="Height of the training images (px); 0: the model's resolution, else 480."
    )
    width: int = Field(0, ge=0, le=4096, description="Width of the training images (px); 0: 4/3 of the height.")
    colour: float = Field(0.0, ge=0.0, lt=1.0, description="Colour jitter between crops of an image. Paper: 0.")
    mirror: bool = Field(False, description="Flip half of the batches of generated pairs. Paper: no.")
    split: tuple[str, ...] = Field(
        (), description="Splits to train on (train gallery): the first that each source has; none: all images."
    )
    hold_out: tuple[str, ...] = Field(
        (),
        description="Validation images (*name*), or a share of the places such as 0.2, in squares with a gap "
        "around them; none: every tenth run of ten.",
    )
    resolution: int = Field(
        0, ge=0, le=4096, description="Shorter side for pair mining (px); 0: the model's, or the original size."
    )
    validate_every: int = Field(500, ge=1, description="Steps between validations (corner error).")

    def sized_for(self, resolution: int) -> WarpConfig:
        """Return them with the sizes that they leave to a model of that working resolution (px; 0: none).

        Raises:
            TrainingError: A side is below 64 px.
        """
        height = self.height or resolution or 480
        sizes = {"height": height, "width": self.width or round(height * 4 / 3)}
        if min(sizes.values()) < 64:
            raise TrainingError(f"training images of {sizes['width']}×{height} px: expected 64 px a side or more")
        return self.model_copy(update={**sizes, "resolution": self.resolution or resolution})

    @property
    def needs_pairs(self) -> bool:
        """Whether a weakly supervised loss is used."""
        return self.lambda_fw > 0 or self.lambda_cons > 0
