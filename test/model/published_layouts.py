"""State dicts as methods publish them, with weights seeded by NumPy: key names and shapes written down by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from test.model import naive
from test.model.conftest import picture
from test.model.torchvision_layout import Shapes, shapes
from test.model.transformer_layout import boq, layer, norm

STAGES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7", "features": ""}
"""torchvision's name -> number of the layer in a sequence of a ResNet's children, or of VGG's features."""


@dataclass(frozen=True)
class Case:
    """A published network.

    Attributes:
        method: Its name here.
        backbone: Its authors' name of the backbone.
        dimension: Values of a descriptor.
        height: Of the images it is asked about, px.
        width: Likewise.
        entries: What else the import is given.
    """

    method: str
    backbone: str
    dimension: int
    height: int = 96
    width: int = 128
    entries: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.method} {self.backbone} {self.dimension}"

    @property
    def encoder(self) -> str:
        whole = self.backbone.startswith("ResNet") and self.method in ("cosplace", "eigenplaces")
        return self.backbone.lower() + ("_layer4" if whole else "")


CASES = (
    Case("cosplace", "ResNet18", 256),
    Case("cosplace", "ResNet50", 1024),
    Case("cosplace", "ResNet101", 128),
    Case("cosplace", "ResNet152", 64),
    Case("cosplace", "VGG16", 64),
    Case("eigenplaces", "ResNet18", 512),
    Case("eigenplaces", "ResNet50", 2048),
    Case("eigenplaces", "VGG16", 512),
    Case("mixvpr", "ResNet50", 4096, 320, 320),
    Case("mixvpr", "ResNet50", 512, 320, 320),
    Case("mixvpr", "ResNet50", 128, 320, 320),
    Case("boq", "ResNet50", 16384, 128, 128, (("input_resolution", 128),)),
)

FIXTURE = Path(__file__).with_name("published_descriptors.json")
"""Name of a case -> of three images, what :func:`abridged` leaves of the authors' descriptor."""


def inputs(case: Case) -> Tensor:
    """Three pictures (3, 3, H, W), ImageNet-normalised."""
    pictures = [naive.normalise(picture(case.height, case.width, seed)) for seed in (1, 2, 3)]
    return torch.from_numpy(np.stack(pictures).astype(np.float32))


def abridged(descriptors: Tensor) -> list[list[float]]:
    """The first eight of each descriptor's values, and 24 of its products with random vectors.

    These are normally distributed with deviation 1: two descriptors have products that differ by as much as they
    do.
    """
    vectors = np.random.default_rng(0).standard_normal((descriptors.shape[1], 24))
    rows = descriptors.double().numpy()
    kept: list[list[float]] = np.hstack([rows[:, :8], rows @ vectors]).round(7).tolist()
    return kept


def published_shapes(method: str, encoder: str, dimension: int) -> Shapes:
    """Key -> shape of a method's whole checkpoint."""
    network = shapes(encoder, head=False)
    if method == "mixvpr":
        return {f"backbone.model.{key}": shape for key, shape in network.items()} | _mixvpr(dimension)
    prefix = "backbone.net" if method == "boq" else "backbone"
    numbered: Shapes = {}
    for key, shape in network.items():
        head, _, rest = key.partition(".")
        numbered[".".join(part for part in (prefix, STAGES[head], rest) if part)] = shape
    if method == "boq":
        return numbered | boq("aggregator.", 1024, 512, dimension // 512)
    channels = {"vgg16": 512, "resnet18_layer4": 512}.get(encoder, 2048)
    return numbered | {"aggregation.1.p": (1,)} | layer("aggregation.3", dimension, channels)


def _mixvpr(dimension: int) -> Shapes:
    rows = {4096: 4, 512: 2, 128: 2}[dimension]
    found: Shapes = {}
    for mixer in range(4):
        key = f"aggregator.mix.{mixer}.mix"
        found |= norm(f"{key}.0", 400)
        found |= layer(f"{key}.1", 400, 400) | layer(f"{key}.3", 400, 400)
    found |= layer("aggregator.channel_proj", dimension // rows, 1024)
    return found | layer("aggregator.row_proj", rows, 400)


def seeded_checkpoint(case: Case, seed: int = 0) -> dict[str, Tensor]:
    """A case's weights: every layer counts, no norm is the identity, no bias is zero, GeM's p is not 3."""
    rng = np.random.default_rng(seed)
    state: dict[str, Tensor] = {}
    for key, shape in published_shapes(case.method, case.encoder, case.dimension).items():
        name = key.rpartition(".")[2]
        if name == "num_batches_tracked":
            state[key] = torch.tensor(7)
            continue
        if name == "p":
            values = np.full(shape, 2.6)
        elif name == "running_var":
            values = rng.uniform(0.6, 1.6, shape)
        elif name == "weight" and len(shape) == 1:
            values = rng.uniform(0.6, 1.2, shape)
        elif len(shape) == 1:
            values = rng.normal(0, 0.2, shape)
        else:
            scale = 1.0 if name == "queries" else math.sqrt(2 / math.prod(shape[1:]))
            values = rng.standard_normal(shape, np.float32) * scale
        state[key] = torch.from_numpy(np.asarray(values, np.float32))
    return state
