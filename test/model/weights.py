"""Weights of our own making: random, yet such that every term of the method counts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.encoders import CHANNELS, EncoderName
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.regression import WarpRegression
from geowarp_ros.model.vit import is_transformer

ENCODERS: tuple[EncoderName, ...] = ("alexnet", "vgg16", "resnet50")
AGGREGATIONS: tuple[AggregationName, ...] = ("gem", "netvlad")
CONVOLUTIONAL: tuple[EncoderName, ...] = tuple(name for name in CHANNELS if not is_transformer(name))
"""Encoders whose layers are fused, and that ONNX Runtime computes."""

KINDS: tuple[EncoderName, ...] = ("alexnet", "vgg16", "resnet18", "resnet50", "mobilenet_v2")
"""Those of every kind of layer: what goes on behind layer3, or is deeper, has more of the same."""

PAIRS = [(e, a) for e in ENCODERS for a in AGGREGATIONS]
"""The published checkpoints."""


def make_model(
    encoder: EncoderName = "resnet18",
    aggregation: AggregationName = "gem",
    *,
    resolution: int = 0,
    regression: bool = True,
    projection: int = 0,
    input_resolution: int = 0,
    square: bool = False,
    seed: int = 0,
) -> GeoWarp:
    """A model in eval mode whose batch norms, quads and descriptors all differ from their start."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GeoWarp(
            ModelConfig(
                encoder=encoder,
                aggregation=aggregation,
                resolution=resolution,
                regression=regression,
                projection=projection,
                input_resolution=input_resolution,
                square=square,
            )
        )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.2, generator=g)
                module.bias.normal_(0, 0.2, generator=g)
                assert module.running_mean is not None and module.running_var is not None
                assert module.num_batches_tracked is not None
                module.running_mean.normal_(0, 0.2, generator=g)
                module.running_var.uniform_(0.6, 1.6, generator=g)
                module.num_batches_tracked.fill_(7)
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, math.sqrt(2 / fan_in), generator=g)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=g)
        pool: Any = model.pool
        if aggregation == "gem":
            pool[1].p.fill_(2.6)
        else:
            pool.conv.weight.normal_(0, 3, generator=g)
            pool.centroids.normal_(0, 0.05, generator=g)
        if model.regression is not None:
            for block in (0, 3, 6, 9, 12, 15):  # strong enough that the quads tell one pair from another
                conv: Any = model.regression.conv[block]
                conv.weight.mul_(3.0 if block == 0 else 1.0)
            model.regression.linear.weight.normal_(0, 0.1, generator=g)
            model.regression.linear.bias.add_(torch.randn(16, generator=g) * 0.1)
    return model.eval()


def regression_of(model: GeoWarp) -> WarpRegression:
    """The warping regression of a model that has one."""
    assert model.regression is not None
    return model.regression


def published(model: GeoWarp) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The two state dicts that the model's checkpoints would have been published as."""
    state = model.state_dict()
    features = {key: t for key, t in state.items() if not key.startswith("regression.")}
    regression = {k.removeprefix("regression."): t for k, t in state.items() if k.startswith("regression.")}
    return features, regression
