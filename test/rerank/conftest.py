"""A gallery in memory, and a small network, for tests of the re-rankers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.model.describer import Describer, Query
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.types import Candidate, Image, Place

if TYPE_CHECKING:
    from geowarp_ros.gallery.alignment.aligned import Photograph
    from geowarp_ros.gallery.store import Gallery
else:
    Gallery = object  # test_cuda.py runs without faiss too


class MemoryGallery(Gallery):
    """What re-rankers read of a gallery."""

    def __init__(
        self,
        descriptors: NDArray[Any],
        images: Sequence[Image] = (),
        local_features: NDArray[np.float16] | None = None,
        keypoints: KeypointConfig | None = None,
    ) -> None:
        self.descriptors = np.asarray(descriptors, np.float32)
        self.images = images
        self._local_features = local_features
        self._keypoint_config = keypoints
        self.path = Path("memory")
        self.aligned: dict[int, Photograph] = {}
        self.photograph = self.aligned.get  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.descriptors)

    def image(self, index: int) -> Image:
        return self.images[index]

    @property
    def keypoint_config(self) -> KeypointConfig | None:
        return self._keypoint_config

    def camera(self, index: int) -> Camera | None:
        return None

    def keypoints(self, index: int) -> Keypoints | None:
        if self._keypoint_config is None:
            return None
        height, width = self.images[index].shape[:2]
        return KeypointDetector(self._keypoint_config)(self.images[index], width, height)

    def local_features(self, indices: Sequence[int]) -> NDArray[np.float16]:
        assert self._local_features is not None
        return self._local_features[list(indices)]


def candidates_of(indices: Sequence[int]) -> list[Candidate]:
    """Candidates with growing distances, as retrieval hands them over."""
    return [Candidate(i, Place(f"{i}.jpg", 0.0, 0.0), 0.1 * rank) for rank, i in enumerate(indices)]


def scores_of(ranked: Sequence[Candidate]) -> list[float]:
    """Scores of candidates that all have one."""
    scores = [candidate.score for candidate in ranked if candidate.score is not None]
    assert len(scores) == len(ranked)
    return scores


def query_of(
    descriptor: Sequence[float] | NDArray[Any] = (),
    pixels: Image | None = None,
    local: NDArray[np.float32] | None = None,
) -> Query:
    """A query of which only what a method reads is filled."""
    return Query(
        torch.empty(0),
        np.asarray(descriptor, np.float32),
        torch.empty(0) if local is None else torch.from_numpy(local),
        np.zeros((32, 32, 3), np.uint8) if pixels is None else pixels,
    )


def textured(seed: int, height: int = 96, width: int = 128) -> Image:
    """Blobs of random colour: plenty of corners, none alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="session")
def model() -> GeoWarp:
    """ResNet-18 with random weights and a regression that does bend."""
    torch.manual_seed(0)
    model = GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")).eval()
    assert model.regression is not None
    with torch.no_grad():
        model.regression.linear.weight.normal_(std=0.05)
    return model


@pytest.fixture(scope="session")
def describer(model: GeoWarp) -> Describer:
    return Describer(model, "cpu")


@pytest.fixture(scope="session")
def gallery(describer: Describer) -> MemoryGallery:
    """Six textured places; two of another size."""
    images = [textured(i) for i in range(4)] + [textured(i, 112, 96) for i in (4, 5)]
    return MemoryGallery(*_described(describer, images))


def _described(
    describer: Describer, images: list[Image]
) -> tuple[NDArray[np.float32], list[Image], NDArray[np.float16]]:
    descriptors, local_features = describer.describe_batch(images)
    return descriptors, images, local_features
