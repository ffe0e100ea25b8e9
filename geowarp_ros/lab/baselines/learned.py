"""Learned matchers of kornia with weights that the user brings; nothing is downloaded.

LoFTR: Sun et al., "LoFTR: Detector-free local feature matching with transformers", CVPR 2021. DISK: Tyszkiewicz et
al., NeurIPS 2020, matched by LightGlue: Lindenberger et al., ICCV 2023.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geowarp_ros.errors import ModelError
from geowarp_ros.files import expanded
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.checkpoints import check_tensors
from geowarp_ros.model.describer import Query
from geowarp_ros.model.torch_files import load_torch
from geowarp_ros.rerank.verification import Points
from geowarp_ros.types import Image


class LoFTRMatcher:
    """LoFTR on grey images at working resolution; points in px.

    Args:
        gallery: Source of the candidates' images.
        weights: File of a state dict as kornia or the authors publish it (``.ckpt``, ``.pth``, ``.safetensors``).
        device: Device of the network.

    Raises:
        ModelError: The file is absent or holds other weights than LoFTR's.
    """

    def __init__(self, gallery: Gallery, weights: str, device: torch.device) -> None:
        from kornia.feature import LoFTR

        self._gallery = gallery
        self._device = device
        self._network = _load(LoFTR(pretrained=None), weights, "baselines.weights").to(device)

    @torch.inference_mode()
    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched points."""
        grey_q = self._grey(query.pixels)
        for index in indices:
            found = self._network({"image0": grey_q, "image1": self._grey(self._gallery.image(index))})
            yield found["keypoints0"].cpu().numpy(), found["keypoints1"].cpu().numpy()

    def _grey(self, image: Image) -> Tensor:
        from kornia.color import rgb_to_grayscale

        height, width = (side - side % 8 for side in image.shape[:2])  # kornia before 0.9 takes no other sizes
        grey: Tensor = rgb_to_grayscale(_tensor(image[:height, :width], self._device))
        return grey


class DiskLightGlueMatcher:
    """DISK keypoints matched by LightGlue, at working resolution; points in px.

    Args:
        gallery: Source of the candidates' images.
        weights: File of LightGlue's state dict for DISK.
        keypoint_weights: File of DISK's state dict.
        keypoints: Maximum number of keypoints per image, strongest first.
        device: Device of the networks.

    Raises:
        ModelError: A file is absent or holds other weights than these networks'.
    """

    def __init__(
        self, gallery: Gallery, weights: str, keypoint_weights: str, keypoints: int, device: torch.device
    ) -> None:
        from kornia.feature import DISK, LightGlue

        self._gallery = gallery
        self._device = device
        self._keypoints = keypoints
        self._disk = _load(DISK(), keypoint_weights, "baselines.keypoint_weights").to(device)
        glue = LightGlue(None, input_dim=128)  # type: ignore[arg-type]  # kornia means str | None
        self._glue = _load(glue, weights, "baselines.weights").to(device)

    @torch.inference_mode()
    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched keypoints."""
        found_q = self._detect(query.pixels)
        for index in indices:
            found_p = self._detect(self._gallery.image(index))
            rows_q, rows_p = self._glue({"image0": found_q, "image1": found_p})["matches"][0].T
            points_q, points_p = found_q["keypoints"][0, rows_q], found_p["keypoints"][0, rows_p]
            yield points_q.cpu().numpy(), points_p.cpu().numpy()

    def _detect(self, image: Image) -> dict[str, Tensor]:
        pixels = _tensor(image, self._device)
        found = self._disk(pixels, n=self._keypoints, pad_if_not_divisible=True)[0]
        return {"keypoints": found.keypoints[None], "descriptors": found.descriptors[None], "image": pixels}


def _load(network: nn.Module, weights: str, parameter: str) -> nn.Module:
    """Give a network the weights of a file, strictly, and return it in eval mode."""
    name, said = type(network).__name__, f"{parameter} = {weights!r}"
    if not weights:
        raise ModelError(f"{said}: {name} needs a file of weights; none ships, none is downloaded")
    expected = network.state_dict()
    computed = {key: value for key, value in expected.items() if key == "confidence_thresholds"}  # of LightGlue
    found = {**computed, **_read(expanded(weights), said)}
    check_tensors(found, expected, said)
    network.load_state_dict(found)
    return network.eval()


def _read(path: Path, said: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{said}: does not exist, expected a file of weights")
    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else load_torch(path)
    except Exception as error:  # torch and safetensors raise a dozen kinds for a foreign file
        raise ModelError(f"{said}: cannot be read as weights: {error}") from None
    for wrapper in ("state_dict", "extractor"):  # LoFTR's authors wrap it, DISK's too
        found = found.get(wrapper, found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{said}: holds no state dict")
    return {_current_key(key): value for key, value in found.items()}


def _current_key(key: str) -> str:
    """Return kornia's key for a published one: without a wrapper's prefix, LightGlue's layers nested."""
    return re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key.removeprefix("matcher."))


def _tensor(image: Image, device: torch.device) -> Tensor:
    """Return the image as (1, 3, H, W) in 0..1."""
    return torch.from_numpy(image.copy()).to(device).permute(2, 0, 1)[None].float() / 255
