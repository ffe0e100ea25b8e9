"""Two models as one: the descriptor of the first, local features and warp of the second."""

from __future__ import annotations

import torch

from geowarp_ros.config import parse_config
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig


def combine(retrieval: GeoWarp, matching: GeoWarp, retrieval_weight: float = 0.0) -> GeoWarp:
    """Return a model that retrieves as the one and matches as the other, each at its own input size.

    Its working resolution is the larger of both: of the images that both encoders are fed from, and that
    galleries keep.

    Args:
        retrieval: Its descriptor is taken; its local features and regression, if any, are not.
        matching: Its local features, projection and regression are taken; its descriptor is not.
        retrieval_weight: Of the new pair: that of ``matching`` was found with distances of another descriptor.
    """
    one, two = retrieval.config, matching.config
    working = max(one.resolution, two.resolution) if one.resolution and two.resolution else 0
    side = two.matching.resolution
    config = parse_config(
        ModelConfig,
        {
            **two.model_dump(),
            "aggregation": one.aggregation,
            "dimension": one.dimension,
            "retrieval": one.describing.model_dump(),
            "resolution": working,
            "input_resolution": side if side != working else 0,
            "retrieval_weight": retrieval_weight,
        },
    )
    with torch.random.fork_rng(devices=[]):  # the start values are overwritten
        both = GeoWarp(config)
    encoder = retrieval.encoder if retrieval.retrieval is None else retrieval.retrieval
    weights = {key: t for key, t in matching.state_dict().items() if not key.startswith(("pool.", "retrieval."))}
    weights |= {f"retrieval.{key}": tensor for key, tensor in encoder.state_dict().items()}
    weights |= {f"pool.{key}": tensor for key, tensor in retrieval.pool.state_dict().items()}
    both.load_state_dict(weights)
    return both.eval()
