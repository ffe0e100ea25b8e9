from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import ImageError, ModelError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines.densevlad import (
    DenseVlad,
    DenseVladConfig,
    cell_features,
    dense_root_sift,
    train_densevlad,
    vlad,
)
from geowarp_ros.readers import Source, SourceImage
from geowarp_ros.types import Image, Place

CONFIG = DenseVladConfig(words=8, dimension=4, stride_px=12, bins_px=(4, 6))


def _textured(seed: int, height: int = 96, width: int = 128) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _unreadable() -> Image:
    raise ImageError("broken")


def _photographs(count: int) -> tuple[SourceImage, ...]:
    return tuple(SourceImage(Place(f"{i}.jpg", 45 + i * 1e-4, 9), partial(_textured, i)) for i in range(count))


@pytest.fixture(scope="module")
def trained() -> DenseVlad:
    broken = SourceImage(Place("broken.jpg", 45, 9), _unreadable)
    return train_densevlad([*_photographs(20), broken], CONFIG, seed=1)


def test_vlad_equals_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    descriptors, words = rng.random((30, 128)).astype(np.float32), rng.random((5, 128)).astype(np.float32)
    expected = np.zeros((5, 128))
    for descriptor in descriptors:
        nearest = min(range(5), key=lambda k: np.sum((descriptor - words[k]) ** 2))
        expected[nearest] += descriptor - words[nearest]
    for word in expected:
        if word.any():
            word /= np.linalg.norm(word)
    expected /= np.linalg.norm(expected)
    assert vlad(descriptors, words) == pytest.approx(expected.ravel(), abs=1e-5)


def test_vlad_of_nothing_is_zero() -> None:
    assert not vlad(np.empty((0, 128), np.float32), np.ones((3, 128), np.float32)).any()


def test_root_sift_is_the_root_of_sifts_shares() -> None:
    image = _textured(0)
    keypoint = cv2.KeyPoint(8.0, 8.0, 8 / 3, 0.0)  # bins of 4 px: the first of the grid
    sift = cv2.SIFT.create()
    _, plain = sift.compute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), [keypoint])
    found = dense_root_sift(sift, image, DenseVladConfig(stride_px=12, bins_px=(4,)))
    assert found[0] == pytest.approx(np.sqrt(plain[0] / plain[0].sum()), abs=1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert len(found) == len(range(8, 121, 12)) * len(range(8, 89, 12))


def test_a_flat_image_has_no_descriptors_and_a_zero_direction_but_is_described(trained: DenseVlad) -> None:
    flat = np.full((96, 128, 3), 127, np.uint8)
    assert len(dense_root_sift(cv2.SIFT.create(), flat, CONFIG)) == 0
    assert np.isfinite(trained(flat).descriptor).all()


def test_cells_are_rows_and_columns() -> None:
    """Texture in the lower right quarter only: cells elsewhere see nothing."""
    image = np.full((150, 150, 3), 90, np.uint8)
    image[80:, 80:] = _textured(3, 150, 150)[80:, 80:]
    norms = np.linalg.norm(cell_features(cv2.SIFT.create(), image), axis=0)
    assert norms[12, 12] == pytest.approx(1.0, abs=1e-5)
    assert norms[2, 12] == norms[12, 2] == norms[2, 2] == 0.0


def test_the_training_images_come_out_white(trained: DenseVlad) -> None:
    descriptors, local_features = trained.describe_batch([_textured(i) for i in range(20)])
    assert descriptors.shape == (20, 4)
    assert local_features.shape == (20, 128, 15, 15)
    assert np.linalg.norm(descriptors, axis=1) == pytest.approx(1.0, abs=1e-5)
    raw = np.stack(
        [vlad(dense_root_sift(cv2.SIFT.create(), _textured(i), CONFIG), trained._words) for i in range(20)]
    )
    projected = (raw - trained._mean) @ trained._projection.T
    assert np.cov(projected.T) == pytest.approx(np.eye(4), abs=0.02)


def test_one_image_is_described_as_in_a_batch_and_found_again_when_shifted(trained: DenseVlad) -> None:
    images = [_textured(i) for i in range(20)]
    descriptors, local_features = trained.describe_batch(images)
    query = trained(images[5])
    assert query.descriptor == pytest.approx(descriptors[5], abs=1e-6)
    assert query.local_features.numpy()[0] == pytest.approx(local_features[5].astype(np.float32), abs=1e-3)
    shifted = trained(np.roll(images[5], (6, 6), axis=(0, 1))).descriptor
    assert ((descriptors - shifted) ** 2).sum(axis=1).argmin() == 5


def test_training_is_seeded(trained: DenseVlad) -> None:
    images = _photographs(20)
    assert train_densevlad(images, CONFIG, seed=1).fingerprint == trained.fingerprint
    assert train_densevlad(images, CONFIG, seed=2).fingerprint != trained.fingerprint


def test_it_is_saved_and_loaded_and_makes_a_gallery(trained: DenseVlad, tmp_path: Path) -> None:
    trained.save(tmp_path / "dense.safetensors")
    loaded: Any = DenseVlad.load(tmp_path / "dense.safetensors")  # a describer where no network is asked for
    assert loaded.fingerprint == trained.fingerprint
    build_gallery(Source(_photographs(6)), loaded, tmp_path / "gallery")
    gallery = Gallery.open(tmp_path / "gallery")
    gallery.check_model(trained.fingerprint)
    assert gallery.manifest.model.config.model_dump() == CONFIG.model_dump(mode="json")
    assert gallery.search(trained(_textured(4)).descriptor)[0].index == 4


def test_foreign_and_truncated_files_are_refused(trained: DenseVlad, tmp_path: Path) -> None:
    path = tmp_path / "dense.safetensors"
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read as a DenseVLAD"):
        DenseVlad.load(path)
    with pytest.raises(ModelError, match="cannot be read"):
        DenseVlad.load(tmp_path / "absent.safetensors")
    from safetensors.numpy import save_file

    save_file({"words": np.zeros((2, 128), np.float32)}, path, {"format": "other"})
    with pytest.raises(ModelError, match="format = 'other'"):
        DenseVlad.load(path)


def test_too_few_images_and_too_little_texture_are_said() -> None:
    flat = [SourceImage(Place("flat.jpg", 45, 9), lambda: np.full((96, 128, 3), 9, np.uint8))]
    with pytest.raises(ModelError, match="1 readable images, expected at least 8"):
        train_densevlad(flat, CONFIG)
    with pytest.raises(ModelError, match="too little texture"):
        train_densevlad(flat * 9, CONFIG)
