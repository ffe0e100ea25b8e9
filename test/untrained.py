"""Weights that nobody trained of the networks that find and match keypoints, as their authors' files have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from kornia.feature import ALIKED, DISK, LightGlue, LoFTR, XFeat
from safetensors.torch import save_file
from torch import Tensor, nn

from geowarp_ros.config import LearnedMatcher
from geowarp_ros.keypoints.learned import LearnedKind

NAMES = (*get_args(LearnedKind), *get_args(LearnedMatcher))


@cache
def state_of(name: str, seed: int = 0) -> dict[str, Tensor]:
    """State dict by kornia's keys; the heads of XFeat say something, which those of one just made do not."""
    torch.manual_seed(seed)
    if name == "xfeat":
        state = XFeat().net.state_dict()
        state[[key for key in state if key.startswith("keypoint_head")][-2]].mul_(40)  # the last layer's weight
        return dict(state)
    lighter = {"input_dim": 64, "descriptor_dim": 96, "n_layers": 6, "num_heads": 1}
    none: Any = None  # kornia means str | None
    make: dict[str, Callable[[], nn.Module]] = {
        "aliked": ALIKED,
        "disk": DISK,
        "loftr": lambda: LoFTR(pretrained=None),
        "xfeat-lighterglue": lambda: LightGlue(none, **lighter),
    }
    network = make.get(name, lambda: LightGlue(none, input_dim=128))()
    derived = ("confidence_thresholds", "dkd.hw_grid")
    return {key: value.clone() for key, value in network.state_dict().items() if key not in derived}


def published(name: str, seed: int = 0) -> Any:
    """The same as its authors publish it: wrapped, prefixed, LightGlue's by old keys, with what is left over."""
    state = state_of(name, seed)
    if name == "loftr":
        return {"state_dict": {f"matcher.{key}": value for key, value in state.items()}}
    if name == "disk":
        return {"extractor": state}
    if name in ("disk-lightglue", "xfeat-lighterglue"):
        old = {}
        for key, value in state.items():
            parts = key.split(".")
            old[".".join([parts[2], parts[1], *parts[3:]] if parts[0] == "transformers" else parts)] = value
        if name == "disk-lightglue":
            return {**old, "log_assignment.0.r": torch.zeros(1)}
        return {f"matcher.{key}": value for key, value in old.items()} | {"extractor.bias": torch.zeros(1)}
    return state


def store(folder: Path, *names: str) -> Path:
    """Put weights where ``geowarp models get`` puts them; returns the folder."""
    for name in names or NAMES:
        save_file(state_of(name), folder / f"{name}.safetensors")
    return folder
