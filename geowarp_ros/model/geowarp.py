"""The network as a whole: an encoder for retrieval, matching and score, and a regression for the warp.

Retrieval may have an encoder of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from geowarp_ros.config import Section
from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import warp
from geowarp_ros.model.aggregation import OF_TOKENS, AggregationName, build_aggregation, descriptor_dim
from geowarp_ros.model.encoders import CHANNELS, EncoderName, build_encoder
from geowarp_ros.model.matching import correlate, pool_local_features, similarity
from geowarp_ros.model.mixvpr import INPUT_PX as MIXVPR_INPUT_PX
from geowarp_ros.model.regression import WarpRegression
from geowarp_ros.model.vit import SIZES, VisionTransformer, is_transformer


class EncoderConfig(Section):
    """An encoder and the size of its input."""

    encoder: EncoderName = Field(description="Its name.")
    resolution: int = Field(
        0, ge=0, le=4096, description="Shorter side that its input is shrunk to, px; 0: the working resolution."
    )
    square: bool = Field(False, description="Whether its input is resolution x resolution, whatever the aspect.")
    depth: int = Field(0, ge=0, description="Blocks of a vision transformer, the first ones; 0: all.")

    @model_validator(mode="after")
    def _sized(self) -> EncoderConfig:
        if self.square and not self.resolution:
            raise ValueError("square = true: expected a resolution, the square's side")
        largest = SIZES[self.encoder].depth if is_transformer(self.encoder) else 0
        if self.depth > largest:
            raise ValueError(f"depth = {self.depth}: expected at most {largest} with encoder = {self.encoder!r}")
        return self


class ModelConfig(Section):
    """What a checkpoint's header holds: enough to rebuild the network."""

    encoder: EncoderName = Field(
        "resnet18", description="Truncated classifier or vision transformer that makes the feature map."
    )
    aggregation: AggregationName = Field("gem", description="From the feature map to the descriptor.")
    resolution: int = Field(
        0,
        ge=0,
        le=4096,
        description="Working resolution: shorter side that images are shrunk to, px; 0: as they are.",
    )
    input_resolution: int = Field(
        0, ge=0, le=4096, description="Shorter side that the encoder's input is shrunk to, px; 0: resolution."
    )
    square: bool = Field(
        False, description="Whether the encoder's input is a square of that side, whatever the aspect."
    )
    depth: int = Field(0, ge=0, description="Blocks of a vision transformer, the first ones; 0: all.")
    dimension: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Values of a descriptor where the aggregation leaves the choice; 0: its own.",
    )
    retrieval: EncoderConfig | None = Field(
        None, description="Encoder whose feature map is aggregated; none: that of the local features."
    )
    projection: int = Field(
        0,
        ge=0,
        le=4096,
        description="Channels that local features are projected to (1x1 convolution); 0: those of the encoder.",
    )
    regression: bool = Field(True, description="Whether the checkpoint has a warping regression.")
    retrieval_weight: float = Field(
        0.0,
        ge=0.0,
        le=1000.0,
        description="Re-ranking sorts by score / 225 - weight x descriptor distance; 0: as in the paper.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        described = self.describing
        if self.aggregation == "mixvpr" and (described.resolution, described.square) != (MIXVPR_INPUT_PX, True):
            raise ValueError(f"aggregation = 'mixvpr': expected a square input of {MIXVPR_INPUT_PX} px")
        if self.aggregation in OF_TOKENS and not is_transformer(described.encoder):
            known = ", ".join(SIZES)
            raise ValueError(f"aggregation = {self.aggregation!r}: expected a vision transformer: one of {known}")
        with torch.device("meta"):  # takes no memory: it is tried for its refusal
            build_aggregation(self.aggregation, CHANNELS[described.encoder], self.dimension)
        return self

    @property
    def matching(self) -> EncoderConfig:
        """The encoder of the local features."""
        side = self.input_resolution or self.resolution
        return EncoderConfig(encoder=self.encoder, resolution=side, square=self.square, depth=self.depth)

    @property
    def describing(self) -> EncoderConfig:
        """The encoder of the descriptor."""
        return self.retrieval or self.matching

    @model_serializer(mode="wrap")
    def _without_defaults_of_later_versions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier models do not have: their headers and fingerprints stay."""
        entries: dict[str, Any] = handler(self)
        later = ("projection", "input_resolution", "square", "depth", "dimension", "retrieval")
        return {name: value for name, value in entries.items() if name not in later or value}


class GeoWarp(nn.Module):
    """Encoder E, aggregation A and warping regression R with the keys of the published checkpoints.

    ``encoder.*`` and ``pool.*`` are the features extractor's, ``regression.conv.*`` and ``regression.linear.*``
    the homography regression's. With ``retrieval`` the features extractor's ``pool`` belongs to another encoder,
    whose keys are ``retrieval.*``. A ``projection`` shortens the local features that a gallery stores, not the
    descriptor; it starts as an orthogonal one, which keeps inner products on average. Images are (B, 3, H, W),
    ImageNet-normalised (:mod:`geowarp_ros.images`).

    Attributes:
        file: Where its weights were read; None where they were not.
    """

    file: Path | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = CHANNELS[config.encoder]
        own = config.retrieval
        self.encoder = build_encoder(config.encoder, config.depth)
        self.retrieval = None if own is None else build_encoder(own.encoder, own.depth)
        self.pool = build_aggregation(config.aggregation, CHANNELS[config.describing.encoder], config.dimension)
        self.projection = _projection(channels, config.projection) if config.projection else None
        self.regression = WarpRegression() if config.regression else None

    @property
    def channels(self) -> int:
        """C of the local features."""
        return self.config.projection or CHANNELS[self.config.encoder]

    @property
    def descriptor_dim(self) -> int:
        """D of the descriptor."""
        config = self.config
        return descriptor_dim(config.aggregation, CHANNELS[config.describing.encoder], config.dimension)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), C the encoder's. Under autocast the encoder alone runs in half precision.

        What follows squares and cubes activations, which float16 does not hold.
        """
        return self._encode(images)[0]

    def _encode(self, images: Tensor) -> list[Tensor]:
        config = self.config
        # images at working resolution have the right size already, and training chooses its own
        side = config.matching.resolution if config.square else config.input_resolution
        return _encoded(self.encoder, sized(images, side, config.square))

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images to descriptors (B, D) and local features (B, C, 15, 15) by one encoder pass (eq. 5).

        With ``retrieval`` there is a second pass, of its encoder.
        """
        own = self._encode(images)
        local_features = pool_local_features(own[0], self.projection)
        return self.aggregate(own if self.retrieval is None else self.encode(images)), local_features

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return what :meth:`aggregate` takes: the feature map and, of a transformer, the class token (B, C)."""
        if self.retrieval is None:
            return self._encode(images)
        own = self.config.describing
        return _encoded(self.retrieval, sized(images, own.resolution, own.square))

    def aggregate(self, encoded: Sequence[Tensor]) -> Tensor:
        """From what :meth:`encode` returns to descriptors (B, D)."""
        descriptors: Tensor = self.pool(*encoded[: 2 if self.config.aggregation in OF_TOKENS else 1])
        return descriptors

    def local_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, 15, 15), unit length over C."""
        return pool_local_features(self.feature_map(images), self.projection)

    def regress(self, f_q: Tensor, f_p: Tensor) -> tuple[Tensor, Tensor]:
        """W of eq. 9 from local features: the quads (B, 4, 2) of both images.

        W is not symmetric, so both orders are run – in one batch – and averaged.

        Raises:
            ModelError: The model was built without a regression.
        """
        if self.regression is None:
            raise ModelError("the model has no warping regression; train or import one")
        batch = f_q.shape[0]
        both = self.regression(correlate(torch.cat([f_q, f_p]), torch.cat([f_p, f_q])))
        qp, pq = both[:batch], both[batch:]
        return (qp[:, :4] + pq[:, 4:]) / 2, (qp[:, 4:] + pq[:, :4]) / 2

    def match(self, image_q: Tensor, image_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Warp a pair of images to a common viewpoint and compare them (eq. 1-4, 9).

        Args:
            image_q: (B, 3, H, W).
            image_p: (B, 3, H', W').

        Returns:
            Score (B,), larger is better; quad_q (B, 4, 2); quad_p (B, 4, 2).
        """
        quad_q, quad_p = self.regress(self.local_features(image_q), self.local_features(image_p))
        warped_q, warped_p = warp(image_q, quad_q), warp(image_p, quad_p)
        return similarity(self.local_features(warped_q), self.local_features(warped_p)), quad_q, quad_p


def sized(images: Tensor, shorter: int, square: bool) -> Tensor:
    """Return images as an encoder takes them.

    Args:
        images: (B, 3, H, W).
        shorter: Shorter side that larger images are shrunk to, px; 0: as they are.
        square: Whether all are made ``shorter`` × ``shorter``, larger or smaller.

    Returns:
        (B, 3, h, w), bicubic with antialiasing where the size changes.
    """
    height, width = images.shape[-2:]
    if square:
        size = shorter, shorter
    elif 0 < shorter < min(height, width):
        size = (round(height * shorter / min(height, width)), round(width * shorter / min(height, width)))
    else:
        return images
    if size == (height, width):
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True)


def _encoded(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the feature map, and of a vision transformer its class token (B, C)."""
    # colours side by side in memory: convolutions take a sixth less time on a CPU
    given = images.contiguous(memory_format=torch.channels_last)
    found = encoder.tokens(given) if isinstance(encoder, VisionTransformer) else (encoder(given),)
    return [encoded.to(images.dtype) for encoded in found]


def _projection(channels: int, kept: int) -> nn.Conv2d:
    projection = nn.Conv2d(channels, kept, 1)
    nn.init.orthogonal_(projection.weight)
    assert projection.bias is not None
    nn.init.zeros_(projection.bias)
    return projection
