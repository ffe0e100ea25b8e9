"""NetVLAD initialisation from data: centroids and assignment sharpness (Arandjelović et al., 2016, appendix A)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import Photographs, random_maps
from geowarp_ros.model.aggregation import NetVLAD
from geowarp_ros.model.geowarp import GeoWarp

IMAGES, CELLS_PER_IMAGE = 500, 100
"""Sample size for the clustering."""
CONTRAST = 100.0
"""Mean ratio of the soft assignments to the nearest and second nearest centroid: exp(alpha·gap) = CONTRAST."""


def start_from_data(pool: NetVLAD, cells: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Initialise centroids by k-means and the assignment weights to alpha · centroid direction.

    Args:
        pool: Layer to initialise.
        cells: (N, C) feature vectors, of any length.
        seed: Seed of the clustering.

    Returns:
        (K, C) centroids.

    Raises:
        TrainingError: Fewer vectors than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    clusters = pool.centroids.shape[0]
    if len(cells) < clusters:
        raise TrainingError(f"{len(cells)} feature vectors for {clusters} NetVLAD clusters: give more images")
    cells = cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-12)
    kmeans = MiniBatchKMeans(clusters, random_state=seed, n_init=1, max_iter=100, batch_size=4096)
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
def sample_cells(model: GeoWarp, photographs: Photographs, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit feature vectors (N, C) at random cells of random images."""
    found = []
    for features in random_maps(model, photographs, rng, IMAGES):
        chosen = torch.from_numpy(rng.permutation(features.shape[1])[:CELLS_PER_IMAGE])
        found.append(F.normalize(features, dim=0).T[chosen.to(features.device)].float().cpu().numpy())
    return np.concatenate(found)
