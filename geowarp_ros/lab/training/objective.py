"""Losses of R on batches of images (paper eq. 10), with frozen encoder.

Under torchrun each process generates the whole batch, encodes its part and gathers the features; R then sees the
whole batch in every process, so its batch norms need no synchronisation.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.data import Augmentation, Autocast
from geowarp_ros.lab.training.losses import (
    consistency_loss,
    corner_error,
    features_wise_loss,
    self_supervised_loss,
    swap_images,
)
from geowarp_ros.lab.training.processes import gather_rows, own_part
from geowarp_ros.lab.training.quadruplets import generate_quadruplets
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import correlate
from geowarp_ros.model.regression import WarpRegression


@dataclass(frozen=True)
class WarpLosses:
    """The three losses of eq. 10 on batches of images.

    Attributes:
        model: Encoder frozen and in eval mode, regression in train mode.
        k: Warping coefficient of generated pairs.
        views: Crops per image.
        colour: Colour jitter between crops.
        autocast: Precision of the networks.
        regression: Trained regression if it is not the model's own (moving average).
    """

    model: GeoWarp
    k: float = 0.6
    views: int = 2
    colour: float = 0.0
    autocast: Autocast = nullcontext
    regression: WarpRegression | None = None

    def generated(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """L_ss of pairs generated from single images (eq. 11-13).

        Args:
            pixels: (B, 3, H, W) uint8.
            generator: Generator of the colour jitter; trapezoids use torch's global generator.
        """
        with torch.no_grad():
            made = generate_quadruplets(pixels.float(), self.k, self.views)
            local = self._local_features(coloured(made.views, self.colour, generator))
        prediction_ab, prediction_ba = self._predict(local[made.first], local[made.second])
        return self_supervised_loss(prediction_ab, prediction_ba, made.quad_a, made.quad_b)

    def pairs(self, queries: Tensor, positives: Tensor, *, features_wise: bool = True) -> tuple[Tensor, Tensor]:
        """L_fw and L_cons of query-positive pairs (eq. 16-19).

        Args:
            queries: (B, 3, H, W), normalised.
            positives: (B, 3, H, W), normalised.
            features_wise: Compute L_fw, otherwise 0; costs two encoder passes.

        Returns:
            L_fw, L_cons.
        """
        with torch.no_grad():
            images = torch.cat([queries, positives, queries.flip(-1), positives.flip(-1)])
            f_q, f_g, mirrored_q, mirrored_g = self._local_features(images).chunk(4)
        forward, backward = self._predict(torch.cat([f_q, mirrored_q]), torch.cat([f_g, mirrored_g]))
        prediction_qg, mirrored_qg = forward.chunk(2)
        prediction_gq, mirrored_gq = backward.chunk(2)
        cons = consistency_loss(prediction_qg, prediction_gq, mirrored_qg, mirrored_gq)
        if not features_wise:
            return torch.zeros_like(cons), cons
        quad_q, quad_g = ((prediction_qg + swap_images(prediction_gq)) / 2).chunk(2, dim=1)
        warped = warp(torch.cat([queries, positives]), torch.cat([quad_q, quad_g]))
        warped_q, warped_g = self._local_features(warped).chunk(2)
        return features_wise_loss(warped_q, warped_g), cons

    @torch.no_grad()
    def generated_corner_error(self, pixels: Tensor, seed: int = 0) -> float:
        """Return the mean corner error (half image sides) on pairs generated from held-out images.

        Pairs depend on the seed only; the caller's random state is preserved. The ground truth stays in float32.

        Args:
            pixels: (B, 3, H, W) uint8.
            seed: Seed of the pairs.
        """
        regression = regression_of(self.model)
        was_training, total = regression.training, 0.0
        regression.eval()
        with torch.random.fork_rng(devices=[pixels.device] if pixels.is_cuda else []):
            torch.manual_seed(seed)
            for batch in torch.split(pixels, 16):
                made = generate_quadruplets(batch.float(), self.k)
                crops = coloured(made.views, 0.0, torch.Generator())
                with self.autocast():
                    local = self.model.local_features(crops)
                    quads = torch.cat(self.model.regress(local[made.first], local[made.second]))
                total += float(corner_error(quads.float(), torch.cat([made.quad_a, made.quad_b]))) * len(batch)
        regression.train(was_training)
        return total / len(pixels)

    def _local_features(self, images: Tensor) -> Tensor:
        """Encode this process's part and gather the whole batch."""
        with self.autocast():
            return gather_rows(self.model.local_features(images[own_part(len(images))]))

    def _predict(self, f_a: Tensor, f_b: Tensor) -> tuple[Tensor, Tensor]:
        """Return W(I_a, I_b) and W(I_b, I_a), (B, 8, 2) each (eq. 9)."""
        with self.autocast():
            regression = self.regression or regression_of(self.model)
            both = regression(correlate(torch.cat([f_a, f_b]), torch.cat([f_b, f_a])))
        prediction_ab, prediction_ba = both.float().chunk(2)
        return prediction_ab, prediction_ba


def regression_of(model: GeoWarp) -> WarpRegression:
    """Return the model's regression R.

    Raises:
        ModelError: The model has none.
    """
    if model.regression is None:
        raise ModelError("the model has no warping regression to train; make one with regression = true")
    return model.regression


def coloured(views: Tensor, colour: float, generator: torch.Generator) -> Tensor:
    """Normalise images of 0..255 with independent colour jitter."""
    return Augmentation(tilt=0.0, zoom=0.0, mirror=False, colour=colour)(views, generator)
