"""Learned matchers as kornia has them, with weights that the user brings; nothing is downloaded.

LoFTR: Sun et al., "Detector-free local feature matching with transformers", CVPR 2021. DISK: Tyszkiewicz et al.,
NeurIPS 2020, matched by LightGlue: Lindenberger et al., ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geowarp_ros.errors import ModelError
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.checkpoints import check_tensors
from geowarp_ros.model.describer import Query
from geowarp_ros.model.torch_files import load_torch
from geowarp_ros.rerank.verification import Points
from geowarp_ros.types import Image

_STRIDE = 8  # of LoFTR's coarse map: images are cropped to its multiple, at the right and the bottom


class LoFTRMatcher:
    """LoFTR on grey images at working resolution; points in px.

    Args:
        gallery: Its images.
        weights: A state dict as kornia or the authors publish it (``.ckpt``, ``.pth``, ``.safetensors``).
        device: Where the network runs.

    Raises:
        ModelError: No weights, or not LoFTR's.
    """

    def __init__(self, gallery: Gallery, weights: str, device: torch.device) -> None:
        from kornia.feature import LoFTR

        self._gallery = gallery
        self._device = device
        self._network = _load(LoFTR(pretrained=None), weights, "rerank.weights", "LoFTR").to(device)

    @torch.inference_mode()
    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched points."""
        grey_q = self._grey(query.pixels)
        for index in indices:
            found = self._network({"image0": grey_q, "image1": self._grey(self._gallery.image(index))})
            yield _points(found["keypoints0"]), _points(found["keypoints1"])

    def _grey(self, image: Image) -> Tensor:
        height, width = (side - side % _STRIDE for side in image.shape[:2])
        grey = cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(grey)[None, None].to(self._device).float() / 255


class DiskLightGlueMatcher:
    """DISK keypoints matched by LightGlue, at working resolution; points in px.

    Args:
        gallery: Its images.
        weights: LightGlue's state dict for DISK.
        keypoint_weights: DISK's state dict.
        keypoints: Strongest keypoints kept per image.
        device: Where the networks run.

    Raises:
        ModelError: No weights, or not these networks'.
    """

    def __init__(
        self, gallery: Gallery, weights: str, keypoint_weights: str, keypoints: int, device: torch.device
    ) -> None:
        from kornia.feature import DISK, LightGlue

        self._gallery = gallery
        self._device = device
        self._keypoints = keypoints
        self._disk = _load(DISK(), keypoint_weights, "rerank.keypoint_weights", "DISK").to(device)
        self._glue = _load(LightGlue(None, input_dim=128), weights, "rerank.weights", "LightGlue").to(device)

    @torch.inference_mode()
    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched keypoints."""
        found_q = self._detect(query.pixels)
        for index in indices:
            found_p = self._detect(self._gallery.image(index))
            pairs = self._glue({"image0": found_q, "image1": found_p})["matches"][0]
            yield (
                _points(found_q["keypoints"][0, pairs[:, 0]]),
                _points(found_p["keypoints"][0, pairs[:, 1]]),
            )

    def _detect(self, image: Image) -> dict[str, Tensor]:
        pixels = torch.from_numpy(image.copy()).to(self._device).permute(2, 0, 1)[None].float() / 255
        found = self._disk(pixels, n=self._keypoints, pad_if_not_divisible=True)[0]
        size = torch.tensor([[image.shape[1], image.shape[0]]], device=self._device)
        return {"keypoints": found.keypoints[None], "descriptors": found.descriptors[None], "image_size": size}


def _load(network: nn.Module, weights: str, parameter: str, name: str) -> nn.Module:
    """Give a network the weights of a file, strictly, and return it in eval mode."""
    if not weights:
        raise ModelError(f"{parameter} = '': {name} needs a file of weights; none ships, none is downloaded")
    found = _read(Path(weights), parameter)
    expected = network.state_dict()
    for derived in ("confidence_thresholds",):  # LightGlue computes it; published files lack it
        if derived in expected:
            found.setdefault(derived, expected[derived])
    check_tensors(found, expected, f"{parameter} = {weights!r}")
    network.load_state_dict(found)
    return network.eval()


def _read(path: Path, parameter: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{parameter} = {str(path)!r}: does not exist, expected a file of weights")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = load_torch(path)
    except Exception as error:  # torch and safetensors raise a dozen kinds for a foreign file
        raise ModelError(f"{parameter} = {str(path)!r}: cannot be read as weights: {error}") from None
    for wrapper in ("state_dict", "extractor"):  # LoFTR's authors wrap it, DISK's too
        found = found.get(wrapper, found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{parameter} = {str(path)!r}: holds no state dict")
    return {_current_key(key): value for key, value in found.items()}


def _current_key(key: str) -> str:
    """Return kornia's key for one of the published files: no wrapper's prefix, LightGlue's layers nested."""
    key = key.removeprefix("matcher.")
    for layer in ("self_attn", "cross_attn"):
        if key.startswith(f"{layer}."):
            number, _, rest = key.removeprefix(f"{layer}.").partition(".")
            return f"transformers.{number}.{layer}.{rest}"
    return key


def _points(keypoints: Tensor) -> Points:
    points: Points = keypoints.float().cpu().numpy()
    return points
