"""NetVLAD's start: centroids and steepness from the data (Arandjelović et al., CVPR 2016, appendix A)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from geowarp_ros.errors import TrainingError
from geowarp_ros.images import to_tensor
from geowarp_ros.lab.training.data import Photographs
from geowarp_ros.model.aggregation import NetVLAD
from geowarp_ros.model.geowarp import GeoWarp

CONTRAST = 100.0
"""How much likelier, on average, the nearest centroid shall be than the second: exp(alpha·gap) = CONTRAST."""


def start_from_data(
    pool: NetVLAD, cells: NDArray[np.float32], seed: int, progress_rounds: int = 100
) -> NDArray[np.float32]:
    """Set centroids by k-means and the assignment so that it is decided, but not blindly.

    The logits are alpha · cᵏ·x of unit vectors x, cᵏ; alpha makes the nearest centroid ``CONTRAST`` times as
    likely as the second in the mean.

    Args:
        pool: To be initialised.
        cells: (N, C) feature vectors of some images, of any length.
        seed: Of the clustering.
        progress_rounds: Most passes of mini-batch k-means.

    Returns:
        (K, C) the centroids, for inspection.

    Raises:
        TrainingError: Fewer vectors than clusters.
    """
    clusters = pool.centroids.shape[0]
    if len(cells) < clusters:
        raise TrainingError(f"{len(cells)} feature vectors for {clusters} NetVLAD clusters: give more images")
    cells = cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-12)
    kmeans = MiniBatchKMeans(clusters, random_state=seed, n_init=1, max_iter=progress_rounds, batch_size=4096)
    centroids = np.asarray(kmeans.fit(cells).cluster_centers_, np.float32)
    directions = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    nearest_two = np.sort(cells @ directions.T, axis=1)[:, -2:]
    gap = max(float((nearest_two[:, 1] - nearest_two[:, 0]).mean()), 1e-6)
    alpha = float(np.log(CONTRAST)) / gap
    with torch.no_grad():
        pool.centroids.copy_(torch.from_numpy(centroids))
        pool.conv.weight.copy_(torch.from_numpy(alpha * directions)[:, :, None, None])
    return centroids


@torch.no_grad()
def sample_cells(
    model: GeoWarp, photographs: Photographs, rng: np.random.Generator, *, images: int = 500, per_image: int = 100
) -> NDArray[np.float32]:
    """Return (N, C) unit feature vectors at random cells of random images."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found = []
    for index in rng.permutation(len(photographs))[:images]:
        image = photographs[int(index)]
        if image is not None:
            cells = F.normalize(model.feature_map(to_tensor(image, device))[0].flatten(1), dim=0).T
            chosen = rng.permutation(len(cells))[:per_image]
            found.append(cells[torch.from_numpy(chosen).to(device)].float().cpu().numpy())
    model.train(training)
    if not found:
        raise TrainingError("none of the images can be read")
    return np.concatenate(found)
