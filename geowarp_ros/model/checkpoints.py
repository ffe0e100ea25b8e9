"""Models on disk: one safetensors file whose header rebuilds the network.

The header's metadata holds ``format`` = geowarp, ``format_version``, ``config`` (:class:`ModelConfig` as JSON)
and any notes; the tensors have the keys of :class:`GeoWarp`. Everything is loaded strictly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.files import write_whole
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.installed import find_weights

T = TypeVar("T")

FORMAT = "geowarp"
FORMAT_VERSION = 1

BATCH_COUNTER = "num_batches_tracked"
"""How the keys end that batch norms count with; they play no part in what the network computes."""


def save_model(model: GeoWarp, path: Path, *, half: bool = False, notes: Mapping[str, str] | None = None) -> None:
    """Write ``model`` to ``path``, whole or not at all: a full disk leaves what was there.

    Args:
        model: On any device.
        path: Where to; replaced if it exists.
        half: Store float16 where it holds the values to 0.1 % of the tensor's largest. Running statistics of
            batch norms stay float32.
        notes: Further metadata: what it was trained on, commit, seed …

    Raises:
        ModelError: The file cannot be written, or a note has a name that the header needs.
    """
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(model.config.model_dump(), sort_keys=True),
    }
    if clash := header.keys() & (notes or {}).keys():
        raise ModelError(f"{path}: a note may not be called {', '.join(sorted(clash))}")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    if half:
        tensors = {key: _halved(key, tensor) for key, tensor in tensors.items()}
    write_whole(path, safetensors.torch.save(tensors, {**(notes or {}), **header}), ModelError)


def load_model(path: Path | str, device: torch.device | str = "cpu") -> GeoWarp:
    """Rebuild a model from its file, in eval mode and float32.

    Args:
        path: A file of :func:`save_model`, or a name that :func:`find_weights` knows: ``"default"`` …
        device: Where the weights go.

    Raises:
        ModelError: The file is absent, truncated, foreign or of a newer format; or its keys, shapes or values
            are not those of the network that its header describes.
    """
    path = find_weights(path)
    notes = read_header(path)
    try:
        config = parse_config(ModelConfig, json.loads(notes["config"]))
    except (KeyError, ValueError, ConfigError) as error:
        raise ModelError(f"{path}: the header's config is not a model's: {error}") from None
    with torch.random.fork_rng(devices=[]):  # the start values are overwritten: the caller's draws stay his own
        model = GeoWarp(config)
    tensors = read_safetensors(path)
    check_tensors(tensors, model.state_dict(), str(path))
    model.load_state_dict(tensors)
    model.file = path
    return model.to(device).eval()


def read_header(path: Path) -> dict[str, str]:
    """Return the metadata of a model file: format, format_version, config and notes.

    Raises:
        ModelError: The file is absent, truncated, foreign or of a newer format.
    """
    metadata = _open_safetensors(path, lambda file: dict(file.metadata() or {}))
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path}: is a safetensors file but no geowarp model (format = {metadata.get('format')!r}, "
            f"expected {FORMAT!r}); published weights are read by 'geowarp import-weights'"
        )
    version = metadata.get("format_version", "")
    if not version.isdecimal() or int(version) != FORMAT_VERSION:
        newer = "; it needs a newer geowarp_ros" if version.isdecimal() and int(version) > FORMAT_VERSION else ""
        raise ModelError(f"{path}: format_version = {version!r}, expected '{FORMAT_VERSION}'{newer}")
    return metadata


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file, ours or not.

    Raises:
        ModelError: The file is absent, truncated or no safetensors file.
    """
    return _open_safetensors(path, lambda file: {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def fingerprint(model: GeoWarp, *, warp: bool = True) -> str:
    """Return 16 hex digits that identify configuration and weights: equal after saving and loading.

    A model saved with ``half=True`` has other weights afterwards, so another fingerprint than before; from then
    on it is stable.

    Args:
        model: On any device.
        warp: False: of the model as if it had no warping regression, on which nothing in a gallery depends.
    """
    config = model.config if warp else model.config.model_copy(update={"regression": False})
    kept = {key: t for key, t in model.state_dict().items() if warp or not key.startswith("regression.")}
    kept = {key: tensor for key, tensor in kept.items() if not key.endswith(BATCH_COUNTER)}
    return digest_of(kept, json.dumps(config.model_dump(), sort_keys=True))


def digest_of(tensors: Mapping[str, Tensor], before: str = "") -> str:
    """Return 16 hex digits that identify named tensors, and what goes before them."""
    digest = hashlib.sha256(before.encode())
    for key, tensor in sorted(tensors.items()):
        digest.update(key.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], origin: str) -> None:
    """Compare keys, shapes and values with what a network takes.

    Raises:
        ModelError: One line that starts with ``origin`` and names missing and unexpected keys, and shapes.
    """
    shapes = [
        f"{key} expected {_shape(expected[key])}, found {_shape(found[key])}"
        for key in found.keys() & expected.keys()
        if found[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(names)} {what}: {_abbreviate(names)}"
        for what, names in (
            ("missing", expected.keys() - found.keys()),
            ("unexpected", found.keys() - expected.keys()),
            ("wrong shape", shapes),
        )
        if names
    ]
    if problems:
        raise ModelError(f"{origin}: not the weights of this network: {'; '.join(problems)}")
    if bad := [key for key, tensor in found.items() if not tensor.isfinite().all()]:
        raise ModelError(f"{origin}: {len(bad)} with NaN or infinite values: {_abbreviate(bad)}")
    if bad := [
        key for key, tensor in found.items() if tensor.is_floating_point() != (not key.endswith(BATCH_COUNTER))
    ]:
        raise ModelError(f"{origin}: {len(bad)} of wrong type: {_abbreviate(bad)}, expected floating point")


def _halved(key: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or key.rpartition(".")[2].startswith("running_"):
        return tensor
    half = tensor.half()
    error = (half.to(tensor.dtype) - tensor).abs().max()  # inf where float16 overflows
    return half if error <= 1e-3 * tensor.abs().max() else tensor


def _open_safetensors(path: Path, read: Callable[[Any], T]) -> T:
    if not path.is_file():
        raise ModelError(f"{path}: {'is a folder' if path.is_dir() else 'does not exist'}, expected a model file")
    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is truncated or no safetensors file: {error}") from None


def _shape(tensor: Tensor) -> str:
    return "×".join(str(side) for side in tensor.shape) or "scalar"


def _abbreviate(names: Iterable[str], limit: int = 4) -> str:
    ordered = sorted(names)
    more = f", … ({len(ordered) - limit} more)" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more
