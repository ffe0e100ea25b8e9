"""Key names and shapes of torchvision's ImageNet classifiers, written down by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Shapes: TypeAlias = dict[str, tuple[int, ...]]

_VGG_CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
_CLASSIFIERS = {"alexnet": {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)}}
_CLASSIFIERS["vgg16"] = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}


def shapes(name: str, *, head: bool = True) -> Shapes:
    """Key -> shape of the whole classifier; without its ``head`` only what the encoders keep."""
    if name == "alexnet":
        convolutions = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3)}
        found = _biased("features", {**convolutions, 10: (256, 256, 3, 3)})
    elif name == "vgg16":
        found = _biased("features", {n: (o, i, 3, 3) for n, (i, o) in _VGG_CONVOLUTIONS.items()})
    elif name == "mobilenet_v2":
        return _mobilenet(head)
    else:
        return _resnet(name, head)
    return found | (_biased("classifier", _CLASSIFIERS[name]) if head else {})


def _biased(prefix: str, weights: Mapping[int, tuple[int, ...]]) -> Shapes:
    found: Shapes = {}
    for number, shape in weights.items():
        found |= {f"{prefix}.{number}.weight": shape, f"{prefix}.{number}.bias": shape[:1]}
    return found


def _norm(key: str, channels: int) -> Shapes:
    vectors: Shapes = {f"{key}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{key}.num_batches_tracked": ()}


def _resnet(name: str, head: bool) -> Shapes:
    found: Shapes = {"conv1.weight": (64, 3, 7, 7)} | _norm("bn1", 64)
    network = name.removesuffix("_layer4")
    depths = {
        "resnet18": (2, 2, 2, 2),
        "resnet50": (3, 4, 6, 3),
        "resnet101": (3, 4, 23, 3),
        "resnet152": (3, 8, 36, 3),
    }[network]
    expansion = 1 if network == "resnet18" else 4
    before = 64
    for stage, depth in enumerate(depths[: 4 if head or network != name else 3]):
        inner = 64 * 2**stage
        outer = inner * expansion
        for block in range(depth):
            key = f"layer{stage + 1}.{block}"
            if expansion == 4:
                kernels = {1: (inner, before, 1, 1), 2: (inner, inner, 3, 3), 3: (outer, inner, 1, 1)}
            else:
                kernels = {1: (inner, before, 3, 3), 2: (inner, inner, 3, 3)}
            for number, shape in kernels.items():
                found |= {f"{key}.conv{number}.weight": shape} | _norm(f"{key}.bn{number}", shape[0])
            if block == 0 and before != outer:
                found |= {f"{key}.downsample.0.weight": (outer, before, 1, 1)} | _norm(
                    f"{key}.downsample.1", outer
                )
            before = outer
    return found | ({"fc.weight": (1000, before), "fc.bias": (1000,)} if head else {})


def _mobilenet(head: bool) -> Shapes:
    found: Shapes = {"features.0.0.weight": (32, 3, 3, 3)} | _norm("features.0.1", 32)
    before, block = 32, 1
    stages = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for expansion, channels, depth in stages:
        for _ in range(depth):
            key, inner, place = f"features.{block}.conv", before * expansion, 0
            if expansion > 1:
                found |= {f"{key}.0.0.weight": (inner, before, 1, 1)} | _norm(f"{key}.0.1", inner)
                place = 1
            if block == 14 and not head:
                return found
            found |= {f"{key}.{place}.0.weight": (inner, 1, 3, 3)} | _norm(f"{key}.{place}.1", inner)
            found |= {f"{key}.{place + 1}.weight": (channels, inner, 1, 1)}
            found |= _norm(f"{key}.{place + 2}", channels)
            before, block = channels, block + 1
    found |= {"features.18.0.weight": (1280, 320, 1, 1)} | _norm("features.18.1", 1280)
    return found | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def flat(nested: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A MobileNetV2's state as some publish it: a block's layers numbered in one sequence, activations counted."""
    first = {"0.0": 0, "0.1": 1, "1": 3, "2": 4}
    later = {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}
    state = {}
    for key, tensor in nested.items():
        before, conv, rest = key.partition(".conv.")
        place, _, last = rest.rpartition(".")
        if conv:
            key = f"{before}.conv.{(first if before == 'features.1' else later)[place]}.{last}"
        state[key] = tensor
    return state


def state_dict(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A whole classifier of random weights. The head is a stride-0 view: nothing is spent on what is not kept."""
    g = torch.Generator().manual_seed(seed)
    kept = shapes(name, head=False)
    state: dict[str, Tensor] = {}
    for key, shape in shapes(name).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(3)
        elif key not in kept:
            state[key] = torch.zeros(()).expand(shape)
        else:
            state[key] = torch.rand(shape, generator=g) * 0.1
    return state
