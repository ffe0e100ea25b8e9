"""Keypoints of networks in bytes, by weights of the user's; here such as nobody trained, of the right form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import ALIKED, DISK, XFeat
from safetensors.torch import save_file

from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector
from geowarp_ros.keypoints.learned import FORMS, LearnedKind, from_bytes, in_bytes
from geowarp_ros.keypoints.matching import Comparison, match, prepare, ratio_of
from geowarp_ros.model.learned import load_keypoints
from test.rerank.conftest import textured
from test.untrained import state_of, store

MakeWeights = Callable[[int], Path]


@pytest.fixture(scope="module")
def make_weights(tmp_path_factory: pytest.TempPathFactory) -> MakeWeights:
    folder = tmp_path_factory.mktemp("weights")

    def make(seed: int) -> Path:
        path = folder / f"{seed}.pt"
        torch.save(state_of("xfeat", seed), path)
        return path

    return make


@pytest.fixture(scope="module")
def weights(make_weights: MakeWeights) -> str:
    return load_keypoints("xfeat", make_weights(0))


def test_it_is_what_kornia_finds(weights: str) -> None:
    image = textured(3, 128, 160)
    found = KeypointDetector(KeypointConfig(kind="xfeat", weights=weights, count=300, scale=1.0))(image, 160, 128)
    grey = np.asarray(0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]).round()
    network = XFeat().eval()
    network.net.load_state_dict(state_of("xfeat"))
    truth = network.detectAndCompute(torch.from_numpy(grey)[None, None].float() / 255, top_k=300)[0]
    assert 20 < len(found) <= 300 and found.descriptors.shape == (len(found), FORMS["xfeat"].dim)
    both = {tuple(p): d for p, d in zip(truth["keypoints"].tolist(), truth["descriptors"].numpy(), strict=True)}
    same = [row for row, point in enumerate(found.points.tolist()) if tuple(point) in both]
    assert len(same) > 0.9 * len(both), "grey levels are rounded otherwise here and there"
    expected = np.array([both[tuple(found.points[row].tolist())] for row in same])
    off = np.abs((found.descriptors[same].astype(float) - 128) / 256 - expected)
    assert np.quantile(off, 0.95) < 0.02


def test_points_are_in_pixels_of_the_working_resolution(weights: str) -> None:
    """192 of 200 px wide and 64 of 60 high is what the network gets; a whole pixel of it lies where it says."""
    image = textured(4, 60, 200)
    found = KeypointDetector(KeypointConfig(kind="xfeat", weights=weights, scale=1.0))(image, 200, 60)
    assert len(found) > 5
    back = (found.points + 0.5) * [192 / 200, 64 / 60] - 0.5
    np.testing.assert_allclose(back, np.rint(back), atol=1e-4)
    assert (back >= 2).all() and (back <= [189, 61]).all()
    flat = KeypointDetector(KeypointConfig(kind="xfeat", weights=weights))(
        np.full((96, 128, 3), 127, np.uint8), 128, 96
    )
    assert flat.descriptors.shape[1] == FORMS["xfeat"].dim


def test_aliked_and_disk_are_what_kornia_finds_in_colours(tmp_path: Path) -> None:
    """Their images may have any sides; the strongest come first."""
    image = textured(3, 90, 130)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    store(tmp_path, "aliked", "disk")
    aliked = ALIKED(max_num_keypoints=60, detection_threshold=-1.0).eval()
    aliked.load_state_dict(state_of("aliked"), strict=False)
    disk = DISK().eval()
    disk.load_state_dict(state_of("disk"))
    with torch.inference_mode():
        (one,), (two,) = aliked(pixels), disk(pixels, n=60, pad_if_not_divisible=True)
    kinds: tuple[LearnedKind, LearnedKind] = ("aliked", "disk")
    scores = one.keypoint_scores, two.detection_scores
    for kind, truth, score in zip(kinds, (one, two), scores, strict=True):
        weights = load_keypoints(kind, tmp_path / f"{kind}.safetensors")
        config = KeypointConfig(kind=kind, weights=weights, count=60, scale=1.0)
        found = KeypointDetector(config)(image, 130, 90)
        order = score.argsort(descending=True, stable=True)
        assert 20 < len(found) <= 60 and config.descriptor_dim == found.descriptors.shape[1] == 128, kind
        np.testing.assert_allclose(found.points, truth.keypoints[order].numpy(), atol=1e-3)
        np.testing.assert_allclose(from_bytes(found.descriptors), truth.descriptors[order].numpy(), atol=4e-3)
        twice = KeypointDetector(config.model_copy(update={"scale": 2.0}))(image, 130, 90)
        assert (twice.points > -0.3).all() and (twice.points < [129.3, 89.3]).all()


def test_bytes_keep_distances() -> None:
    assert in_bytes(np.array([[0.0, 0.25, -0.5, 0.9, -0.9]], np.float32)).tolist() == [[128, 192, 0, 255, 0]]
    rng = np.random.default_rng(0)
    floats = rng.normal(size=(200, 64)).astype(np.float32)
    floats /= np.linalg.norm(floats, axis=1, keepdims=True)
    bytes_ = in_bytes(floats).astype(float)
    true = np.linalg.norm(floats[:, None] - floats[None], axis=2)
    stored = np.linalg.norm(bytes_[:, None] - bytes_[None], axis=2) / 256
    np.testing.assert_allclose(stored, true, atol=0.03)


def test_the_ratio_is_of_squared_distances() -> None:
    """Nearest at 8, second at 10: a ratio of 0.8, and 0.64 squared."""
    assert (ratio_of(0.8, 128), ratio_of(0.81, 64)) == (0.8, 0.9)
    first, second = np.zeros((1, 64), np.uint8), np.zeros((2, 64), np.uint8)
    second[:, 0] = 8, 10
    assert match(first, second, 0.65).tolist() == [[0, 0]] and len(match(first, second, 0.63)) == 0
    compared = Comparison(prepare(first, 1), prepare(second, 2))
    assert compared.pairs(0.65, (0,), (0,)).tolist() == [[0, 0]] and len(compared.pairs(0.63, (0,), (0,))) == 0


def test_weights_are_told_by_what_they_hold(make_weights: MakeWeights, tmp_path: Path, weights: str) -> None:
    assert load_keypoints("xfeat", make_weights(0)) == weights != load_keypoints("xfeat", make_weights(1))
    save_file(state_of("xfeat"), tmp_path / "same.safetensors")
    assert load_keypoints("xfeat", tmp_path / "same.safetensors") == weights and len(weights) == 16
    with pytest.raises(ModelError, match="keypoints are XFeat's with weights beef, which are not loaded: give"):
        KeypointDetector(KeypointConfig(kind="xfeat", weights="beef"))
    assert str(KeypointConfig(kind="xfeat", weights="beef", scale=2.0)) == "xfeat, 2000 at 2x, weights beef"
