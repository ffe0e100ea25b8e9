"""The network as a whole: one encoder for retrieval, matching and score, one regression for the warp."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from geowarp_ros.config import Section
from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import warp
from geowarp_ros.model.aggregation import AggregationName, build_aggregation, descriptor_dim
from geowarp_ros.model.encoders import CHANNELS, EncoderName, build_encoder
from geowarp_ros.model.matching import correlate, pool_local_features, similarity
from geowarp_ros.model.regression import WarpRegression


class ModelConfig(Section):
    """What a checkpoint's header holds: enough to rebuild the network."""

    encoder: EncoderName = Field("resnet18", description="Truncated classifier that makes the feature map.")
    aggregation: AggregationName = Field("gem", description="From the feature map to the descriptor.")
    resolution: int = Field(
        0,
        ge=0,
        le=4096,
        description="Shorter side that images are resized to before the encoder, px; 0: as they are.",
    )
    square: bool = Field(
        False,
        description="Whether the encoder gets resolution x resolution, whatever the aspect; else it is kept.",
    )
    dimension: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Values of a descriptor where the aggregation leaves the choice; 0: its own.",
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

    @model_serializer(mode="wrap")
    def _without_defaults_of_later_versions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier models do not have: their headers and fingerprints stay."""
        entries: dict[str, Any] = handler(self)
        later = ("projection", "square", "dimension")
        return {name: value for name, value in entries.items() if name not in later or value}


class GeoWarp(nn.Module):
    """Encoder E, aggregation A and warping regression R with the keys of the published checkpoints.

    ``encoder.*`` and ``pool.*`` are the features extractor's, ``regression.conv.*`` and ``regression.linear.*``
    the homography regression's. A ``projection`` shortens the local features that a gallery stores, not the
    descriptor; it starts as an orthogonal one, which keeps inner products on average. Images are (B, 3, H, W),
    ImageNet-normalised (:mod:`geowarp_ros.images`).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = CHANNELS[config.encoder]
        self.encoder = build_encoder(config.encoder)
        self.pool = build_aggregation(config.aggregation, channels)
        self.projection = _projection(channels, config.projection) if config.projection else None
        self.regression = WarpRegression() if config.regression else None

    @property
    def channels(self) -> int:
        """C of the local features."""
        return self.config.projection or CHANNELS[self.config.encoder]

    @property
    def descriptor_dim(self) -> int:
        """D of the descriptor."""
        return descriptor_dim(self.config.aggregation, CHANNELS[self.config.encoder])

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), C the encoder's. Under autocast the encoder alone runs in half precision.

        What follows squares and cubes activations, which float16 does not hold.
        """
        # colours side by side in memory: convolutions take a sixth less time on a CPU
        encoded: Tensor = self.encoder(images.contiguous(memory_format=torch.channels_last))
        return encoded.to(images.dtype)

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One encoder pass (eq. 5) for both uses: descriptors (B, D) and local features (B, C, 15, 15)."""
        feature_map = self.feature_map(images)
        return self.pool(feature_map), pool_local_features(feature_map, self.projection)

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


def _projection(channels: int, kept: int) -> nn.Conv2d:
    projection = nn.Conv2d(channels, kept, 1)
    nn.init.orthogonal_(projection.weight)
    assert projection.bias is not None
    nn.init.zeros_(projection.bias)
    return projection
