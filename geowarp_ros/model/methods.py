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
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.published import completed, read_state_dict


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


METHODS: dict[str, Method] = {}


def import_method(name: str, checkpoint: Path, **entries: Any) -> GeoWarp:
    """Build a model from a method's published weights.

    Args:
        name: One of :data:`METHODS`.
        checkpoint: ``.pth``, ``.ckpt`` or ``.safetensors`` as the authors publish it.
        **entries: Of :class:`ModelConfig`, in place of the method's own: ``resolution``, ``projection`` …

    Returns:
        The model without a warping regression, in eval mode.

    Raises:
        ModelError: No such method, or the file is unreadable or holds other weights.
        ConfigError: An entry that a model cannot have.
    """
    if name not in METHODS:
        raise ModelError(f"method {name!r}: expected one of {', '.join(METHODS)}{did_you_mean(name, METHODS)}")
    method = METHODS[name]
    state = read_state_dict(checkpoint)
    try:
        given = {"regression": False, **method.configure(state), **entries}
        found = method.rename(state)
    except (KeyError, IndexError) as error:
        raise ModelError(f"{checkpoint}: holds no weights of {name}: {error} is missing") from None
    config = parse_config(ModelConfig, given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of a projection, which no method has
        model = GeoWarp(config)
    own = model.state_dict()
    expected = {key: tensor for key, tensor in own.items() if not key.startswith("projection.")}
    model.load_state_dict({**own, **completed(found, expected, checkpoint)})
    return model.eval()
