"""Place-recognition networks as their authors publish them, read into models of ours.

A method says how its state dict becomes a :class:`~geowarp_ros.model.geowarp.GeoWarp`: the configuration is read
from the weights' shapes, the keys are renamed, and everything is loaded strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ModelError, did_you_mean
from geowarp_ros.model.convolutional import (
    configure_boq,
    configure_gem_linear,
    configure_mixvpr,
    rename_boq,
    rename_gem_linear,
    rename_mixvpr,
)
from geowarp_ros.model.dinov2 import boq, cricavpr, megaloc, plain, salad
from geowarp_ros.model.encoders import CHANNELS
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.published import completed, read_state_dict

PROJECTED = 256
"""Channels of imported models' local features, unless told otherwise; 2048 of a place's 225 cells take 0.9 MB."""


@dataclass(frozen=True)
class Method:
    """How one method's weights are read.

    Attributes:
        configure: Configuration (entries of :class:`ModelConfig`) by the state dict's keys and shapes.
        rename: The state dict under the keys of :class:`GeoWarp`; what inference does not need is left out.
        source: Where the layout is defined: the authors' repository.
    """

    configure: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    source: str


METHODS: dict[str, Method] = {
    "cosplace": Method(configure_gem_linear, rename_gem_linear, "https://github.com/gmberton/CosPlace"),
    "eigenplaces": Method(configure_gem_linear, rename_gem_linear, "https://github.com/gmberton/EigenPlaces"),
    "mixvpr": Method(configure_mixvpr, rename_mixvpr, "https://github.com/amaralibey/MixVPR"),
    "boq": Method(
        lambda state: (boq.configure if boq.fits(state) else configure_boq)(state),
        lambda state: (boq.rename if boq.fits(state) else rename_boq)(state),
        "https://github.com/amaralibey/Bag-of-Queries",
    ),
    "salad": Method(salad.configure, salad.rename, "https://github.com/serizba/salad"),
    "megaloc": Method(megaloc.configure, megaloc.rename, "https://github.com/gmberton/MegaLoc"),
    "cricavpr": Method(cricavpr.configure, cricavpr.rename, "https://github.com/Lu-Feng/CricaVPR"),
    "dinov2": Method(plain.configure, plain.rename, "https://github.com/facebookresearch/dinov2"),
}


def import_method(name: str, checkpoint: Path, **entries: Any) -> GeoWarp:
    """Build a model from a method's published weights.

    Args:
        name: One of :data:`METHODS`.
        checkpoint: ``.pth``, ``.ckpt`` or ``.safetensors`` as the authors publish it.
        **entries: Of :class:`ModelConfig`, in place of the method's own: ``resolution``, ``projection`` …
            The input of an encoder that takes squares keeps its size whatever the ``resolution``.

    Returns:
        The model without a warping regression, in eval mode. Its local features are projected to at most
        :data:`PROJECTED` channels by a random orthogonal projection, the same each time.

    Raises:
        ModelError: No such method, or the file is unreadable or holds other weights.
        ConfigError: An entry that a model cannot have.
    """
    if name not in METHODS:
        raise ModelError(f"method {name!r}: expected one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    method = METHODS[name]
    state = read_state_dict(checkpoint)
    try:
        own = method.configure(state)
        found = method.rename(state)
    except (KeyError, IndexError) as error:
        raise ModelError(f"{checkpoint}: holds no weights of {name}: {error} is missing") from None
    if own.get("square"):
        own["input_resolution"] = own["resolution"] if "resolution" in entries else 0
    projection = PROJECTED if CHANNELS[own["encoder"]] > PROJECTED else 0
    config = parse_config(ModelConfig, {"regression": False, "projection": projection, **own, **entries})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of a projection, which no method has
        model = GeoWarp(config)
    expected = {key: tensor for key, tensor in model.state_dict().items() if not key.startswith("projection.")}
    model.load_state_dict({**model.state_dict(), **completed(found, expected, checkpoint)})
    return model.eval()
