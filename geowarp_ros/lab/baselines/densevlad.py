"""DenseVLAD: a baseline without a network, behind the same interface as :class:`Describer`.

Torii, Arandjelović, Sivic, Okutomi and Pajdla, "24/7 place recognition by view synthesis", CVPR 2015 (paper
Table 2): RootSIFT on a dense grid at four scales, VLAD over 128 visual words, the residuals of each normalised,
PCA with whitening. Not reproduced: their view synthesis, and their vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from geowarp_ros.cameras import Camera
from geowarp_ros.config import Section, parse_config
from geowarp_ros.errors import ImageError, ModelError
from geowarp_ros.images import resize_shorter, to_tensor
from geowarp_ros.model import GRID
from geowarp_ros.model.describer import Query
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray, Image

FORMAT = "geowarp-densevlad"

_SIFT_DIM = 128
_SIZE_PER_BIN = 2 / 3  # OpenCV's SIFT has bins 3·(size/2) px wide
_SAMPLES_PER_IMAGE = 500


class DenseVladConfig(Section):
    """Configuration of a DenseVLAD, stored in its file and in the galleries that it makes."""

    encoder: Literal["rootsift"] = Field("rootsift", description="Local descriptor, in the place of an encoder.")
    aggregation: Literal["vlad"] = Field("vlad", description="From local descriptors to the descriptor.")
    retrieval_weight: float = Field(
        0.0, ge=0.0, le=1000.0, description="Weight of the descriptor distance in re-ranking, as for networks."
    )
    words: int = Field(128, ge=2, le=4096, description="Number of visual words.")
    dimension: int = Field(
        4096, ge=1, le=100_000, description="D after PCA; at most a quarter of the number of training images."
    )
    stride_px: int = Field(8, ge=1, le=64, description="Spacing of the grid of local descriptors (px).")
    bins_px: tuple[int, ...] = Field((4, 6, 8, 10), min_length=1, description="SIFT bin widths, one a scale (px).")
    resolution: int = Field(
        480, ge=0, le=4096, description="Shorter side to which images are shrunk (px); 0: not resized."
    )


class DenseVlad:
    """Describes images by a unit-length descriptor (D,) and 15×15 local features, one RootSIFT a cell.

    It has the interface of :class:`Describer` that galleries and re-rankers use, but nothing to warp by.

    Args:
        config: Configuration.
        words: (K, 128) visual words.
        mean: (K·128,) of the training images' VLADs.
        projection: (D, K·128) principal directions over their deviations.
    """

    def __init__(
        self, config: DenseVladConfig, words: FloatArray, mean: FloatArray, projection: FloatArray
    ) -> None:
        self.config = config
        self.device = torch.device("cpu")
        self.regression = None  # there is nothing to warp by
        self.file = None  # a gallery of it is used by the study that made it
        # safetensors writes the buffer as it lies, and scikit-learn's lie column by column
        self._words = np.ascontiguousarray(words, np.float32)
        self._mean = np.ascontiguousarray(mean, np.float32)
        self._projection = np.ascontiguousarray(projection, np.float32)
        self._sift = cv2.SIFT.create()

    @cached_property
    def fingerprint(self) -> str:
        """Identity of configuration, vocabulary and projection, 16 hex digits."""
        digest = hashlib.sha256(_header(self.config)["config"].encode())
        for array in (self._words, self._mean, self._projection):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    @property
    def model(self) -> DenseVlad:
        """Itself; vocabulary and projection are the whole model."""
        return self

    @property
    def channels(self) -> int:
        """C of the local features."""
        return _SIFT_DIM

    @property
    def descriptor_dim(self) -> int:
        """D of the descriptor."""
        return len(self._projection)

    def prepare(self, image: Image) -> Image:
        """Return the image at working resolution."""
        return resize_shorter(image, self.config.resolution)

    def __call__(self, image: Image, camera: Camera | None = None) -> Query:
        """Describe one image of any size, (H, W, 3), taken by a camera of any size."""
        pixels = self.prepare(image)
        own = camera and camera.scaled_to(pixels.shape[1], pixels.shape[0])
        local_features = torch.from_numpy(cell_features(self._sift, pixels))[None]
        return Query(to_tensor(pixels), self._describe(pixels), local_features, pixels, image, own)

    def describe_batch(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Describe B images: descriptors (B, D), local features (B, 128, 15, 15)."""
        prepared = [self.prepare(image) for image in images]
        local_features = np.stack([cell_features(self._sift, image) for image in prepared]).astype(np.float16)
        return np.stack([self._describe(image) for image in prepared]), local_features

    def save(self, path: Path) -> None:
        """Write vocabulary and projection as safetensors.

        Raises:
            ModelError: The file cannot be written.
        """
        arrays = {"words": self._words, "mean": self._mean, "projection": self._projection}
        try:
            save_file(arrays, path, _header(self.config))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be written: {error}") from None

    @classmethod
    def load(cls, path: Path) -> DenseVlad:
        """Read a file that :meth:`save` wrote.

        Raises:
            ModelError: The file is absent, truncated or foreign, or its shapes disagree.
        """
        try:
            with safe_open(path, framework="np") as file:
                metadata = dict(file.metadata() or {})
                if metadata.get("format") != FORMAT:
                    raise ModelError(f"{path}: format = {metadata.get('format')!r}, expected {FORMAT!r}")
                arrays = {key: file.get_tensor(key) for key in ("words", "mean", "projection")}
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path}: cannot be read as a DenseVLAD: {error}") from None
        config = parse_config(DenseVladConfig, json.loads(metadata["config"]))
        width = config.words * _SIFT_DIM
        found = {key: array.shape for key, array in arrays.items()}
        if found != {
            "words": (config.words, _SIFT_DIM),
            "mean": (width,),
            "projection": (len(arrays["projection"]), width),
        }:
            raise ModelError(f"{path}: has shapes {found}, expected {config.words} words of {_SIFT_DIM} numbers")
        return cls(config, **arrays)

    def _describe(self, prepared: Image) -> NDArray[np.float32]:
        whole = vlad(dense_root_sift(self._sift, prepared, self.config), self._words)
        projected = self._projection @ (whole - self._mean)
        return np.asarray(projected / max(float(np.linalg.norm(projected)), 1e-12), np.float32)


def train_densevlad(
    images: Sequence[SourceImage],
    config: DenseVladConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> DenseVlad:
    """Learn the visual words and the whitening projection from a collection of images, in two passes.

    Args:
        images: Training images; those that cannot be read are left out.
        config: Configuration; None: the defaults.
        seed: Seed of sampling and clustering.
        progress: Shows the images.

    Raises:
        ModelError: There are too few images for a projection, or too little texture in them for the words.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA

    config = config or DenseVladConfig()
    rng = np.random.default_rng(seed)
    dense = partial(_dense_of_readable, images, config, progress)
    samples = [found[rng.permutation(len(found))[:_SAMPLES_PER_IMAGE]] for found in dense("DenseVLAD: vocabulary")]
    if len(samples) < 8:
        raise ModelError(f"DenseVLAD is to be trained on {len(samples)} readable images, expected at least 8")
    sampled = np.concatenate(samples)
    if len(sampled) < config.words:
        raise ModelError(f"too little texture in {len(samples)} images for words = {config.words}")
    kmeans = MiniBatchKMeans(config.words, random_state=seed, n_init=1, batch_size=4096).fit(sampled)
    words = np.asarray(kmeans.cluster_centers_, np.float32)
    vlads = np.stack([vlad(found, words) for found in dense("DenseVLAD: projection")])
    # whitening with as many directions as images makes all of them equally far apart: keep a quarter
    pca = PCA(min(config.dimension, len(vlads) // 4), whiten=True, random_state=seed).fit(vlads)
    deviations = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
    return DenseVlad(config, words, pca.mean_, pca.components_ / deviations[:, None])


def _dense_of_readable(
    images: Sequence[SourceImage], config: DenseVladConfig, progress: Progress, label: str
) -> Iterator[NDArray[np.float32]]:
    sift = cv2.SIFT.create()
    for image in progress(images, len(images), label):
        try:
            yield dense_root_sift(sift, resize_shorter(image.read(), config.resolution), config)
        except ImageError:
            continue


def dense_root_sift(sift: cv2.SIFT, image: Image, config: DenseVladConfig) -> NDArray[np.float32]:
    """RootSIFT (Arandjelović and Zisserman, CVPR 2012) on a grid at every scale, upright: (N, 128), unit length.

    Patches without any gradient are left out; a featureless image has N = 0.
    """
    height, width = image.shape[:2]
    parts = [
        _root_sift(sift, image, _grid(width, height, config.stride_px, 2 * bin_px), bin_px * _SIZE_PER_BIN)
        for bin_px in config.bins_px
    ]
    found = np.concatenate(parts)
    return found[found.any(axis=1)]


def cell_features(sift: cv2.SIFT, image: Image) -> NDArray[np.float32]:
    """One upright RootSIFT for each of 15×15 cells, four bins as wide as the cell: (128, 15, 15)."""
    height, width = image.shape[:2]
    cell_x, cell_y = width / GRID, height / GRID
    centres = [((x + 0.5) * cell_x, (y + 0.5) * cell_y) for y in range(GRID) for x in range(GRID)]
    found = _root_sift(sift, image, centres, max(cell_x, cell_y) / 4 * _SIZE_PER_BIN)
    return np.ascontiguousarray(found.T).reshape(_SIFT_DIM, GRID, GRID)


def vlad(descriptors: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Aggregate local descriptors: sum of the residuals of each word, normalised by word, then as a whole.

    Intra-normalisation is that of Arandjelović and Zisserman, "All about VLAD", CVPR 2013.

    Args:
        descriptors: (N, 128).
        words: (K, 128).

    Returns:
        (K·128,), unit length; zeros where N is 0.
    """
    # |d - w|² = |d|² - 2 d·w + |w|²: the first does not decide
    nearest = ((words**2).sum(axis=1) / 2 - descriptors @ words.T).argmin(axis=1)
    residuals = np.zeros_like(words)
    np.add.at(residuals, nearest, descriptors - words[nearest])
    residuals /= np.maximum(np.linalg.norm(residuals, axis=1, keepdims=True), 1e-12)
    flat = residuals.ravel()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-12), np.float32)


def _grid(width: int, height: int, stride: int, margin: int) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for y in range(margin, height - margin + 1, stride)
        for x in range(margin, width - margin + 1, stride)
    ]


def _root_sift(
    sift: cv2.SIFT, image: Image, centres: Sequence[tuple[float, float]], size: float
) -> NDArray[np.float32]:
    keypoints = [cv2.KeyPoint(x, y, size, 0.0) for x, y in centres]
    if not keypoints:
        return np.empty((0, _SIFT_DIM), np.float32)
    _, found = sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), keypoints)
    sums = np.maximum(found.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.sqrt(np.maximum(found, 0.0) / sums), np.float32)


def _header(config: DenseVladConfig) -> dict[str, str]:
    return {"format": FORMAT, "config": json.dumps(config.model_dump(), sort_keys=True)}
