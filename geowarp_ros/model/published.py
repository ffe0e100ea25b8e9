"""Weights that others publish: the six GeoWarp pairs and plain ImageNet classifiers, as state dicts of torch."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ModelError
from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.checkpoints import BATCH_COUNTER, check_tensors, read_safetensors
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.torch_files import load_torch

_log = logging.getLogger(__name__)

_WRAPPERS = ("state_dict", "model_state_dict", "extractor")
# torchvision's names of what stands at place N of the truncated network
RESNET_PLACES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}
_NOT_KEPT = re.compile(r"(layer4|fc|classifier)\.")
_MOBILENET_NOT_KEPT = re.compile(r"features\.(14\.conv\.(?!0\.)|1[5-8]\.)")
_FLAT_BLOCK = re.compile(r"(features\.(\d+)\.conv)\.(\d)\.")
# place in a flat MobileNetV2 block, its activations counted -> torchvision's; the first block has no expansion
_FLAT_PLACES = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_FLAT_PLACES_FIRST = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}


def import_weights(
    encoder: EncoderName,
    aggregation: AggregationName,
    features_extractor: Path,
    homography_regression: Path | None = None,
    resolution: int = 0,
    projection: int = 0,
) -> GeoWarp:
    """Build a model from a published pair of state dicts, or from ImageNet weights for the encoder alone.

    Args:
        encoder: The truncated classifier that the weights are for.
        aggregation: Layer A. With ImageNet weights it keeps its start: p = 3 for gem, and for netvlad random
            centroids from a fixed seed, which want training.
        features_extractor: ``.pth`` or ``.safetensors`` with keys ``encoder.*`` and ``pool.*``, or torchvision's
            classifier (of MobileNetV2 the flat layout ``features.N.conv.M`` as well). A ``module.`` prefix or
            a ``state_dict`` wrapper is seen through; the batch norms' counters may be absent.
        homography_regression: The same with keys ``conv.*`` and ``linear.*``; None: a model without warp.
        resolution: Shorter side in px that the model will work at; 0: images as they are.
        projection: Channels of the local features; 0: the encoder's. It starts as an orthogonal projection.

    Returns:
        The model, in eval mode.

    Raises:
        ModelError: A file is unreadable, holds code, or has missing or unexpected keys or shapes.
        ConfigError: Another encoder, aggregation or resolution than a model can have.
    """
    config = parse_config(
        ModelConfig,
        {
            "encoder": encoder,
            "aggregation": aggregation,
            "resolution": resolution,
            "projection": projection,
            "regression": homography_regression is not None,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GeoWarp(config)
    own = model.state_dict()
    features = read_state_dict(features_extractor)
    expected = {key: t for key, t in own.items() if key.startswith(("encoder.", "pool."))}
    if (classifier := _from_classifier(features)) is not None:
        features, expected = classifier, {k: t for k, t in expected.items() if k.startswith("encoder.")}
        if aggregation == "netvlad":
            _log.warning("%s has no pool.*: NetVLAD's centroids are random and want training", features_extractor)
    weights = completed(features, expected, features_extractor)
    if homography_regression is not None:
        expected = {key: t for key, t in own.items() if key.startswith("regression.")}
        regression = {f"regression.{key}": t for key, t in read_state_dict(homography_regression).items()}
        weights |= completed(regression, expected, homography_regression)
    model.load_state_dict({**own, **weights})
    return model.eval()


def completed(found: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights with the batch norms' counters that older files lack, if they are those expected.

    Raises:
        ModelError: Missing or unexpected keys, wrong shapes, or values that are not finite.
    """
    counters = {key: t for key, t in expected.items() if key.endswith(BATCH_COUNTER)}
    complete = {**counters, **found}  # state dicts from before torch 0.4.1 have none
    check_tensors(complete, expected, str(path))
    return complete


def renamed(state: Mapping[str, Tensor], heads: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the head of each key; one with another head stays, to be named as unexpected."""
    found = {}
    for key, tensor in state.items():
        head = next((head for head in heads if key.startswith(head)), "")
        found[heads.get(head, "") + key.removeprefix(head)] = tensor
    return found


def _from_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Rename a torchvision classifier's keys to ``encoder.N…``; None if ``state`` is no such classifier."""
    if not any(key.startswith(("features.", "conv1.")) for key in state):
        return None
    if any(key.startswith("features.1.conv.") for key in state):
        state = {key: t for key, t in _nested(state).items() if not _MOBILENET_NOT_KEPT.match(key)}
    renamed = {}
    for key, tensor in state.items():
        head, _, rest = key.partition(".")
        if head == "features":
            renamed[f"encoder.{rest}"] = tensor
        elif head in RESNET_PLACES:
            renamed[f"encoder.{RESNET_PLACES[head]}.{rest}"] = tensor
        elif not _NOT_KEPT.match(key):
            renamed[key] = tensor
    return renamed


def _nested(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename the keys of a flat MobileNetV2, ``features.N.conv.M…``, to torchvision's; nested ones stay."""
    if "features.1.conv.0.weight" not in state:
        return state

    def place(found: re.Match[str]) -> str:
        block, number, position = found.groups()
        places = _FLAT_PLACES_FIRST if number == "1" else _FLAT_PLACES
        return f"{block}.{places.get(position, position)}."

    return {_FLAT_BLOCK.sub(place, key): tensor for key, tensor in state.items()}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file of torch or safetensors, without wrappers and ``module.`` prefixes.

    Raises:
        ModelError: The file is absent, damaged, or holds anything else.
    """
    state: Any = read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise ModelError(f"{path}: holds {type(state).__name__}, expected a state dict of named tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ModelError(f"{path}: {key!r} is {type(value).__name__}, expected a state dict of named tensors")
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _read_pth(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: {'is a folder' if path.is_dir() else 'does not exist'}, expected a state dict")
    try:
        return load_torch(path)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is no state dict of plain tensors (anything else could run code): {_last_line(error)}; where"
            " the authors' code runs, save its state_dict alone with torch.save"
        ) from None
    except Exception as error:  # torch's unpickler lets a damaged file raise nearly anything
        raise ModelError(f"{path}: is truncated or not a file of torch.save: {_last_line(error)}") from None


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
