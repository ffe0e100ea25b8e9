"""Weights of XFeat as their authors publish them: read, checked, and handed to the keypoint detectors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.xfeat import register


def load_xfeat(path: Path) -> str:
    """Load weights for this process's detectors; returns their fingerprint, 16 hex digits.

    Args:
        path: State dict of the network: ``xfeat.pt`` of the authors, or ``.safetensors`` with the same keys.

    Raises:
        ModelError: The file is absent, damaged or of another network, or kornia is too old.
    """
    import torch

    try:
        from kornia.feature import XFeat
    except ImportError:
        raise ModelError("XFeat's keypoints need kornia 0.9: pip install 'kornia>=0.9'") from None
    state = _read(path)
    network = XFeat()
    try:
        network.net.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise ModelError(
            f"{path}: is no state dict of XFeat's network, as xfeat.pt of its authors: {line}"
        ) from None
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {key} has values that are not finite")
        digest.update(key.encode() + tensor.detach().float().contiguous().numpy().tobytes())
    weights = digest.hexdigest()[:16]
    register(weights, network.eval())
    return weights


def _read(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    from geowarp_ros.model.torch_files import load_torch

    if not path.is_file():
        raise ModelError(f"{path}: is no file, expected XFeat's weights")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except ModelError:
        raise
    except Exception as error:  # torch and safetensors let nearly anything out
        raise ModelError(f"{path}: cannot be read as weights: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds a {type(found).__name__}, expected XFeat's state dict")
    return found
