"""Networks that find and match keypoints, as kornia builds them; weights as their authors publish them.

LightGlue: Lindenberger et al., "LightGlue: local feature matching at light speed", ICCV 2023. LighterGlue: a
smaller one for XFeat, by XFeat's authors. LoFTR: Sun et al., "LoFTR: detector-free local feature matching with
transformers", CVPR 2021.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from geowarp_ros.config import LearnedMatcher
from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.detector import KeypointConfig, Kind
from geowarp_ros.keypoints.learned import FORMS, LearnedKind, register
from geowarp_ros.model.checkpoints import check_tensors, digest_of
from geowarp_ros.model.installed import find_weights
from geowarp_ros.model.published import read_state_dict

_DERIVED = ("confidence_thresholds", "dkd.hw_grid")
"""Buffers of kornia's networks that are computed, and stored in some published files."""


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with its weights.

    Attributes:
        network: In eval mode, on its device.
        weights: Their fingerprint, 16 hex digits.
    """

    network: nn.Module
    weights: str


def load_keypoints(kind: LearnedKind, weights: Path | str = "", device: torch.device | str = "cpu") -> str:
    """Load weights for this process's keypoint detectors; returns their fingerprint.

    Args:
        kind: Kind of keypoints.
        weights: File, or name of weights that ``geowarp models get`` stored; empty: those named as the kind.
        device: Device of the network.

    Raises:
        ModelError: The file is absent, damaged or of another network, or kornia is too old.
    """
    loaded = _load(kind, weights, "keypoint_weights", device)
    register(loaded.weights, loaded.network)
    return loaded.weights


def keypoints_of(kind: Kind, weights: Path | str = "", device: torch.device | str = "cpu") -> KeypointConfig:
    """Return the keypoints that a new gallery stores, their network loaded; of SIFT the default.

    Raises:
        ModelError: As :func:`load_keypoints`.
    """
    if kind == "sift":
        return KeypointConfig()
    return KeypointConfig(kind=kind, weights=load_keypoints(kind, weights, device), scale=FORMS[kind].scale)


def load_matcher(
    method: LearnedMatcher, weights: Path | str = "", device: torch.device | str = "cpu"
) -> LoadedNetwork:
    """Load a network that matches.

    Args:
        method: ``position.verify`` or ``--rerank`` names it so.
        weights: File, or name of weights that ``geowarp models get`` stored; empty: those named as the method.
        device: Device of the network.

    Raises:
        ModelError: As :func:`load_keypoints`.
    """
    return _load(method, weights, "matcher_weights", device)


def read_weights(name: str, path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the state dict in a file of a network's weights, by kornia's keys, and its fingerprint.

    Raises:
        ModelError: As :func:`load_keypoints`.
    """
    fingerprint = _read_network(name, path, path.stat().st_mtime_ns, torch.device("cpu")).weights
    return _state(path), fingerprint


def _load(name: str, weights: Path | str, parameter: str, device: torch.device | str) -> LoadedNetwork:
    try:
        path = find_weights(weights or name)
    except ModelError as error:
        said = f"{parameter} = {str(weights)!r}: {name} needs weights: {error}"
        raise ModelError(said) from None
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_network(name, path, stamp, torch.device(device))


@lru_cache(maxsize=8)
def _read_network(name: str, path: Path, stamp: int, device: torch.device) -> LoadedNetwork:
    """Read a file once for all who ask; ``stamp`` tells it from one that took its place."""
    import kornia.feature  # takes a second, and few need it

    of_kornia, build = _NETWORKS[name]
    made: Any = getattr(kornia.feature, of_kornia, None)
    if made is None:
        raise ModelError(
            f"{name} needs {of_kornia} of kornia, and kornia {kornia.__version__} here has none:"
            " pip install 'kornia>=0.9'"
        )
    state = _state(path)
    network = build(made, state)
    inner = network.net if name == "xfeat" else network
    expected = inner.state_dict()
    computed = {key: expected[key] for key in _DERIVED if key in expected}
    check_tensors({**computed, **state}, expected, f"{path}: {name}")
    inner.load_state_dict({**computed, **state})
    return LoadedNetwork(network.eval().to(device), digest_of(state))


def _state(path: Path) -> dict[str, Tensor]:
    """Read a state dict by kornia's keys: without wrappers and prefixes, LightGlue's layers nested."""
    found = read_state_dict(path)
    prefixed = any(key.startswith("matcher.") for key in found)  # LighterGlue's file has a copy of XFeat, too
    return {
        re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key.removeprefix("matcher.")): value
        for key, value in found.items()
        if not (prefixed and key.startswith("extractor.")) and not _LEFT_OVER.fullmatch(key)
    }


_LEFT_OVER = re.compile(r"log_assignment\.\d+\.r")
"""LightGlue's authors' file for DISK has these numbers, which their code does not read."""

_State: TypeAlias = Mapping[str, Tensor]


def _aliked(made: Any, state: _State) -> nn.Module:
    sampled = state.get("desc_head.agg_weights", torch.empty(16))  # points that a descriptor is made of
    name = "aliked-n32" if len(sampled) == 32 else "aliked-n16"
    # by number, not by threshold; the number comes with every image
    network: nn.Module = made(name, max_num_keypoints=1, detection_threshold=-1.0)
    return network


def _lightglue(**sizes: float) -> Callable[[Any, _State], nn.Module]:
    return lambda made, state: made(None, **sizes)


_LIGHTER = {"descriptor_dim": 96, "n_layers": 6, "num_heads": 1, "depth_confidence": -1, "width_confidence": 0.95}

_NETWORKS: dict[str, tuple[str, Callable[[Any, _State], Any]]] = {
    "xfeat": ("XFeat", lambda made, state: made()),
    "aliked": ("ALIKED", _aliked),
    "disk": ("DISK", lambda made, state: made()),
    "xfeat-lighterglue": ("LightGlue", _lightglue(input_dim=64, **_LIGHTER)),
    "aliked-lightglue": ("LightGlue", _lightglue(input_dim=128)),
    "disk-lightglue": ("LightGlue", _lightglue(input_dim=128)),
    "loftr": ("LoFTR", lambda made, state: made(pretrained=None)),
}
"""Name of the weights -> kornia's class, and how it is built for them."""
