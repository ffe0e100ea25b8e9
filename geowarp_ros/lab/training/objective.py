"""The three losses on batches of images (paper eq. 10): encoder frozen in eval mode, R in train mode.

Several processes share the encoder's work and nothing else: each makes the whole batch (the same random state, and
crops are cheap), encodes its part and gathers the rest. R, a small part of the work, then sees the whole batch in
every process, so that its batch norms need no synchronisation and many processes agree with one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.data import Augmentation
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
        model: Its encoder is frozen and in eval mode, its regression in train mode.
        k: Warping coefficient of generated pairs.
        views: Crops of each photograph.
        colour: How far the crops' colours differ.
        autocast: Makes the context in which the networks run.
        regression: What is trained; None: the model's own. Another one where the model is a running average.
    """

    model: GeoWarp
    k: float = 0.6
    views: int = 2
    colour: float = 0.0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    regression: WarpRegression | None = None

    def generated(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """L_ss of pairs made from single photographs (eq. 11-13).

        Two crops of one photograph share every pixel's colour, as two photographs of one place never do;
        ``colour`` shakes them apart.

        Args:
            pixels: (B, 3, H, W) uint8.
            generator: Of the colours; the trapezoids follow torch's own random state.
        """
        with torch.no_grad():
            made = generate_quadruplets(pixels.float(), self.k, self.views)
            local = self._local_features(coloured(made.views, self.colour, generator))
        prediction_ab, prediction_ba = self._predict(local[made.first], local[made.second])
        return self_supervised_loss(prediction_ab, prediction_ba, made.quad_a, made.quad_b)

    def pairs(self, queries: Tensor, positives: Tensor, *, features_wise: bool = True) -> tuple[Tensor, Tensor]:
        """L_fw and L_cons of query-positive pairs (eq. 16-19).

        Both orders of the pair and of its mirror image pass through R as one batch.

        Args:
            queries: (B, 3, H, W), normalised.
            positives: (B, 3, H, W), normalised.
            features_wise: False saves two encoder passes there and back: L_fw is then 0.

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

    def _local_features(self, images: Tensor) -> Tensor:
        """Each process encodes its part; all get the whole."""
        with self.autocast():
            return gather_rows(self.model.local_features(images[own_part(len(images))]))

    def _predict(self, f_a: Tensor, f_b: Tensor) -> tuple[Tensor, Tensor]:
        """W(I_a, I_b) and W(I_b, I_a), (B, 8, 2) each, in one batch (eq. 9)."""
        with self.autocast():
            regression = self.regression or regression_of(self.model)
            both = regression(correlate(torch.cat([f_a, f_b]), torch.cat([f_b, f_a])))
        prediction_ab, prediction_ba = both.float().chunk(2)
        return prediction_ab, prediction_ba


def regression_of(model: GeoWarp) -> WarpRegression:
    """Return the model's R.

    Raises:
        ModelError: It has none.
    """
    if model.regression is None:
        raise ModelError("the model has no warping regression to train; make one with regression = true")
    return model.regression


@torch.no_grad()
def generated_corner_error(
    model: GeoWarp,
    photographs: Tensor,
    k: float,
    seed: int = 0,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> float:
    """Mean distance of predicted from true corners on pairs made from held-out photographs, in half image sides.

    The pairs depend on the seed alone, so that the values of one training can be compared; the caller's random
    state is left as it was. The regression runs in eval mode.

    Args:
        model: With a regression.
        photographs: (B, 3, H, W) uint8.
        k: Warping coefficient.
        seed: Of the pairs.
        autocast: Makes the context in which the networks run; the truth is never rounded.
    """
    was_training = regression_of(model).training
    regression_of(model).eval()
    total = 0.0
    with torch.random.fork_rng(devices=[photographs.device] if photographs.is_cuda else []):
        torch.manual_seed(seed)
        for pixels in torch.split(photographs, 16):
            made = generate_quadruplets(pixels.float(), k)
            crops = coloured(made.views, 0.0, torch.Generator())
            with autocast():
                local = model.local_features(crops)
                quad_a, quad_b = model.regress(local[made.first], local[made.second])
            error = corner_error(torch.cat([quad_a, quad_b]).float(), torch.cat([made.quad_a, made.quad_b]))
            total += float(error) * len(pixels)
    regression_of(model).train(was_training)
    return total / len(photographs)


def coloured(views: Tensor, colour: float, generator: torch.Generator) -> Tensor:
    """Crops of 0..255 to normalised images, each with colours of its own."""
    return Augmentation(tilt=0.0, zoom=0.0, mirror=False, colour=colour)(views, generator)
