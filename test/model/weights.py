"""Weights of our own making: random, yet such that every term of the method counts."""

import math

import torch
from torch import nn

from geowarp_ros.model.geowarp import GeoWarp, ModelConfig

PAIRS = [(e, a) for e in ("alexnet", "vgg16", "resnet50") for a in ("gem", "netvlad")]
"""The published checkpoints."""


def make_model(encoder="resnet18", aggregation="gem", *, resolution=0, regression=True, seed=0):
    """A model in eval mode whose batch norms, quads and descriptors all differ from their start."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GeoWarp(
            ModelConfig(encoder=encoder, aggregation=aggregation, resolution=resolution, regression=regression)
        )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.2, generator=g)
                module.bias.normal_(0, 0.2, generator=g)
                module.running_mean.normal_(0, 0.2, generator=g)
                module.running_var.uniform_(0.6, 1.6, generator=g)
                module.num_batches_tracked.fill_(7)
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, math.sqrt(2 / fan_in), generator=g)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=g)
        if aggregation == "gem":
            model.pool[1].p.fill_(2.6)
        else:
            model.pool.conv.weight.normal_(0, 3, generator=g)
            model.pool.centroids.normal_(0, 0.05, generator=g)
        if model.regression is not None:
            for block in (0, 3, 6, 9, 12, 15):  # strong enough that the quads tell one pair from another
                model.regression.conv[block].weight.mul_(3.0 if block == 0 else 1.0)
            model.regression.linear.weight.normal_(0, 0.1, generator=g)
            model.regression.linear.bias.add_(torch.randn(16, generator=g) * 0.1)
    return model.eval()


def published(model):
    """The two state dicts that the model's checkpoints would have been published as."""
    state = model.state_dict()
    features = {key: t for key, t in state.items() if not key.startswith("regression.")}
    regression = {k.removeprefix("regression."): t for k, t in state.items() if k.startswith("regression.")}
    return features, regression
