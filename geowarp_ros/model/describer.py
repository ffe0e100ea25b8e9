"""Inference: from images to descriptors, and from a query and its candidates to scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.cameras import Camera
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ModelError
from geowarp_ros.geometry import warp
from geowarp_ros.images import resize_shorter, to_tensor
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.keypoints.matching import Comparison, Key, Matched, Prepared, prepare
from geowarp_ros.model import GRID
from geowarp_ros.model.checkpoints import fingerprint, load_model
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import Precision, for_inference
from geowarp_ros.model.matching import similarity
from geowarp_ros.model.passes import Passes, pixels_per_pass
from geowarp_ros.model.runtimes import OnnxLayers, Runtime
from geowarp_ros.threads import use_threads
from geowarp_ros.types import Gravity, Image


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA where there is one.

    Raises:
        ModelError: ``cuda`` is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("device = 'cuda': this machine has no usable CUDA device; expected auto or cpu here")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def open_describer(config: LocalizerConfig) -> Describer:
    """Load the model that the configuration names, on its device, and set the process's number of threads.

    ``gallery`` is the model that ships here; :func:`geowarp_ros.gallery.store.own_model` finds a gallery's own.

    Raises:
        ModelError: The file is missing, truncated or foreign, or CUDA or ONNX Runtime is asked for and absent.
    """
    device = choose_device(config.device)
    use_threads(config.threads)
    return Describer(load_model(config.model, device), device, config.precision, config.runtime)


@dataclass(frozen=True, slots=True)
class Query:
    """One image as the network sees it.

    Attributes:
        image: (1, 3, H, W) normalised, at working resolution.
        descriptor: (D,) float32.
        local_features: (1, C, 15, 15), unit length over C.
        pixels: (H, W, 3) uint8 RGB, the same image for methods without a network.
        original: (H, W, 3) uint8 RGB, before it was shrunk, where keypoints are detected; None: ``pixels`` is all.
        camera: Its camera for ``pixels``; None where unknown.
        gravity: Where up is for the camera; None where nothing says so.
    """

    image: Tensor
    descriptor: NDArray[np.float32]
    local_features: Tensor
    pixels: Image
    original: Image | None = None
    camera: Camera | None = None
    gravity: Gravity | None = None
    _detected: dict[KeypointConfig, Keypoints] = field(default_factory=dict, repr=False, compare=False)
    _prepared: dict[tuple[KeypointConfig, int], dict[Key, Prepared]] = field(default_factory=dict, repr=False)
    _compared: dict[tuple[KeypointConfig, int], Comparison] = field(default_factory=dict, repr=False)
    _matched: dict[tuple[str, int], tuple[object, Matched]] = field(default_factory=dict, repr=False)

    def keypoints(self, config: KeypointConfig) -> Keypoints:
        """Return its keypoints, detected when first asked for: all that need them share them."""
        if config not in self._detected:
            height, width = self.pixels.shape[:2]
            original = self.pixels if self.original is None else self.original
            self._detected[config] = KeypointDetector(config)(original, width, height)
        return self._detected[config]

    def compared(self, config: KeypointConfig, place: dict[Key, Prepared], strongest: int) -> Comparison:
        """Return the comparison of its keypoints with a place's, the same to all who ask with the same ``place``.

        Args:
            config: Kind and settings of both.
            place: The place's; must not change.
            strongest: Number of keypoints that can be matched by themselves, as in ``place``.
        """
        own = config, strongest
        pair = config, id(place)  # the comparison keeps the place, so that no other gets its number
        if own not in self._prepared:
            self._prepared[own] = prepare(self.keypoints(config).descriptors, strongest)
        if pair not in self._compared:
            self._compared[pair] = Comparison(self._prepared[own], place)
        return self._compared[pair]

    def matched(self, place: object, by: str, find: Callable[[], Matched]) -> Matched:
        """Return what a network found between it and a place, once for all who ask with the same ``place``.

        Args:
            place: The place, which is kept: no other gets its number.
            by: Name of the network and its settings.
            find: Asks the network.
        """
        key = by, id(place)
        if key not in self._matched:
            self._matched[key] = place, find()
        return self._matched[key][1]


@dataclass(frozen=True, slots=True)
class PairScores:
    """A query against P candidates.

    Attributes:
        score: (P,) after the warp, larger is better.
        score_unwarped: (P,) the same without the warp.
        quads_q: (P, 4, 2) on the query, clockwise from top-left, -1..1.
        quads_p: (P, 4, 2) on each candidate.
    """

    score: NDArray[np.float32]
    score_unwarped: NDArray[np.float32]
    quads_q: NDArray[np.float32]
    quads_p: NDArray[np.float32]


class Describer:
    """Images to descriptors and local features, one encoder pass for both.

    The model is moved to ``device`` and put in eval mode. Inference uses a copy made here: later training of
    the model has no effect.

    Attributes:
        model: The model as given.
        network: Its copy for inference, :func:`geowarp_ros.model.inference.for_inference`.
        passes: Splits images into encoder passes.

    Raises:
        ConfigError: The device does not compute in that precision, or the runtime not on that device.
        ModelError: ONNX Runtime is asked for by name and not installed.
    """

    def __init__(
        self,
        model: GeoWarp,
        device: torch.device | str,
        precision: Precision = "float32",
        runtime: Runtime = "auto",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.network = for_inference(model, self.device, precision, runtime)
        self.passes = Passes(pixels_per_pass(self.device))

    @property
    def runtime(self) -> Runtime:
        """What the encoder computes with."""
        return "onnxruntime" if isinstance(self.network.encoder, OnnxLayers) else "torch"

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the model, which its galleries store."""
        return fingerprint(self.model)

    def prepare(self, image: Image) -> Image:
        """Return the image at the model's working resolution."""
        return resize_shorter(image, self.model.config.resolution)

    @torch.inference_mode()
    def __call__(self, image: Image, camera: Camera | None = None) -> Query:
        """Describe one image of any size.

        Args:
            image: (H, W, 3).
            camera: Its camera, at any size.

        Raises:
            CameraError: The camera's images have another aspect ratio.
        """
        pixels = self.prepare(image)
        own = camera and camera.scaled_to(pixels.shape[1], pixels.shape[0])
        described: list[Query] = []

        def describe(_: list[int]) -> None:
            tensor = to_tensor(pixels, self.device)
            descriptor, local_features = self.network.describe(tensor)
            described.append(Query(tensor, _numpy(descriptor[0]), local_features, pixels, image, own))

        self.passes.run([pixels.shape], describe)
        return described[0]

    @torch.inference_mode()
    def describe_batch(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Describe B images; those that share a size share encoder passes.

        Returns:
            Descriptors (B, D) float32 and local features (B, C, 15, 15) float16, in the order given.
        """
        prepared = [self.prepare(image) for image in images]
        descriptors = np.empty((len(images), self.model.descriptor_dim), np.float32)
        local_features = np.empty((len(images), self.model.channels, GRID, GRID), np.float16)

        def describe(rows: list[int]) -> None:
            d, f = self.network.describe(to_tensor([prepared[row] for row in rows], self.device))
            descriptors[rows], local_features[rows] = _numpy(d), f.half().cpu().numpy()

        self.passes.run([image.shape for image in prepared], describe)
        return descriptors, local_features


class Warper:
    """Pairwise warp and dense comparison of a query with its candidates (paper sec. 3.2, eq. 1-4, 9).

    Args:
        describer: Describer of query and candidates; its network and its passes are shared.

    Raises:
        ModelError: The model has no warping regression.
    """

    def __init__(self, describer: Describer) -> None:
        if describer.network.regression is None:
            raise ModelError("the model has no warping regression; re-rank in mode 'fast', or train or import one")
        self._device = describer.device
        self._network = describer.network
        self._passes = describer.passes

    @torch.inference_mode()
    def __call__(self, query: Query, images: Sequence[Image], local_features: NDArray[np.floating]) -> PairScores:
        """Warp and compare the query with P candidates.

        Args:
            query: As :class:`Describer` made it.
            images: P candidate images at working resolution, (H, W, 3) uint8; their sizes may differ.
            local_features: (P, C, 15, 15) of the candidates; half precision is enough.

        Returns:
            P scores and quads, in the order given.
        """
        f_p = torch.from_numpy(np.ascontiguousarray(local_features, np.float32)).to(self._device)
        f_q = query.local_features.expand_as(f_p)
        quads_q, quads_p = self._network.regress(f_q, f_p)
        score = torch.empty(len(images), device=self._device)

        def compare(rows: list[int]) -> None:
            warped_q = warp(query.image.expand(len(rows), -1, -1, -1), quads_q[rows])
            warped_p = warp(to_tensor([images[row] for row in rows], self._device), quads_p[rows])
            score[rows] = similarity(*self._encode(warped_q, warped_p))

        self._passes.run([image.shape for image in images], compare, per_row=2)
        return PairScores(_numpy(score), _numpy(similarity(f_q, f_p)), _numpy(quads_q), _numpy(quads_p))

    def _encode(self, warped_q: Tensor, warped_p: Tensor) -> tuple[Tensor, Tensor]:
        if warped_q.shape != warped_p.shape:
            return self._network.local_features(warped_q), self._network.local_features(warped_p)
        features = self._network.local_features(torch.cat([warped_q, warped_p]))
        return features[: len(warped_q)], features[len(warped_q) :]


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
