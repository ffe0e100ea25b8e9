"""How CosPlace, EigenPlaces, MixVPR and BoQ with ResNet-50 publish their networks: keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.mixvpr import INPUT_PX as MIXVPR_INPUT_PX
from geowarp_ros.model.published import RESNET_PLACES, renamed

_BY_DEPTH: dict[int, EncoderName] = {
    2: "resnet18_layer4",
    6: "resnet50_layer4",
    23: "resnet101_layer4",
    36: "resnet152_layer4",
}
"""Blocks in a whole ResNet's third stage -> the encoder."""


def configure_gem_linear(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read CosPlace's and EigenPlaces' encoder and dimension off the shapes; trained on crops of 512 px."""
    blocks = {key.split(".")[2] for key in state if key.startswith("backbone.6.") and key.endswith("conv1.weight")}
    encoder = _BY_DEPTH[len(blocks)] if blocks else "vgg16"
    dimension = len(state["aggregation.3.weight"])
    return {"encoder": encoder, "aggregation": "gem_linear", "dimension": dimension, "resolution": 512}


def rename_gem_linear(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``backbone.N``, which counts layers as ours do, and ``aggregation.N``, which has one that we lack."""
    return renamed(state, {"backbone.": "encoder.", "aggregation.1.": "pool.1.", "aggregation.3.": "pool.2."})


def configure_mixvpr(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read MixVPR's dimension off the shapes of its two projections."""
    dimension = len(state["aggregator.channel_proj.weight"]) * len(state["aggregator.row_proj.weight"])
    own = {"encoder": "resnet50", "aggregation": "mixvpr", "dimension": dimension}
    return own | {"resolution": MIXVPR_INPUT_PX, "square": True}


def rename_mixvpr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename torchvision's stages under ``backbone.model``."""
    stages = {f"backbone.model.{name}.": f"encoder.{place}." for name, place in RESNET_PLACES.items()}
    return renamed(state, stages | {"aggregator.": "pool."})


def configure_boq(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read BoQ's dimension off the shapes; its authors recommend 384 px squares with ResNet-50."""
    dimension = len(state["aggregator.fc.weight"]) * len(state["aggregator.proj_c.weight"])
    own = {"encoder": "resnet50", "aggregation": "boq", "dimension": dimension}
    return own | {"resolution": 384, "square": True}


def rename_boq(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``backbone.net.N``, which counts layers as ours do."""
    return renamed(state, {"backbone.net.": "encoder.", "aggregator.": "pool."})
