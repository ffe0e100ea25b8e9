"""Start of a model's projection: the principal components of what its encoder sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Photographs, random_maps
from geowarp_ros.model.geowarp import GeoWarp

PHOTOGRAPHS = 1000
CELLS_PER_PHOTOGRAPH = 40
"""What the components are taken from, drawn at random."""


def principal_components(cells: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return the projection that keeps most of the cells' variance (Pearson 1901).

    Args:
        cells: (N, K), N larger than ``channels``.
        channels: Number of components, at most K.

    Returns:
        Weight (channels, K), orthonormal rows, the largest variance first; bias (channels,): the outputs of
        ``cells`` have mean 0.

    Raises:
        TrainingError: The cells vary in fewer directions.
    """
    cells = cells.double()
    mean = cells.mean(dim=0)
    variances, directions = torch.linalg.eigh((cells - mean).T @ (cells - mean) / len(cells))
    variances, weight = variances.flip(0)[:channels], directions.T.flip(0)[:channels]
    if len(variances) < channels or variances[-1] <= 1e-9 * variances[0]:
        raise TrainingError(
            f"{len(cells)} cells of {cells.shape[1]} channels vary in fewer than {channels} directions:"
            " expected more photographs or a smaller projection"
        )
    return weight.float(), (-weight @ mean).float()


def start_projection(model: GeoWarp, photographs: Photographs, seed: int = 0) -> None:
    """Set the projection of a model by what its encoder sees in ``photographs``.

    Raises:
        TrainingError: The model has none, no photograph can be read, or they show too little.
    """
    if model.projection is None:
        raise TrainingError("the model has no projection to start: expected projection > 0")
    rng = np.random.default_rng(seed)
    cells = [
        found[:, torch.from_numpy(rng.permutation(found.shape[1])[:CELLS_PER_PHOTOGRAPH])].T
        for found in random_maps(model, photographs, rng, PHOTOGRAPHS)
    ]
    weight, bias = principal_components(torch.cat(cells), model.config.projection)
    with torch.no_grad():
        model.projection.weight.copy_(weight[:, :, None, None])
        assert model.projection.bias is not None
        model.projection.bias.copy_(bias)
