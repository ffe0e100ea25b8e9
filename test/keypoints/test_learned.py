"""XFeat's keypoints in bytes, by weights of the user's; here such as nobody trained, of the right form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import XFeat
from safetensors.torch import save_file

from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector
from geowarp_ros.keypoints.matching import Comparison, match, prepare, ratio_of
from geowarp_ros.keypoints.learned import FORMS, from_bytes, in_bytes
from geowarp_ros.model.learned import load_keypoints
from test.rerank.conftest import textured

MakeWeights = Callable[[int], Path]


def untrained(seed: int) -> XFeat:
    """XFeat that finds keypoints: the heads of one that nobody trained say everywhere the same."""
    torch.manual_seed(seed)
    network = XFeat().eval()
    state = network.net.state_dict()
    state[[key for key in state if key.startswith("keypoint_head")][-2]].mul_(40)  # the last layer's weight
    return network


@pytest.fixture(scope="module")
def make_weights(tmp_path_factory: pytest.TempPathFactory) -> MakeWeights:
    folder = tmp_path_factory.mktemp("weights")

    def make(seed: int) -> Path:
        path = folder / f"{seed}.pt"
        torch.save(untrained(seed).net.state_dict(), path)
        return path

    return make


@pytest.fixture(scope="module")
def weights(make_weights: MakeWeights) -> str:
    return load_keypoints("xfeat", make_weights(0))


def test_it_is_what_kornia_finds(weights: str) -> None:
    image = textured(3, 128, 160)
    found = KeypointDetector(KeypointConfig(kind="xfeat", weights=weights, count=300, scale=1.0))(image, 160, 128)
    grey = np.asarray(0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]).round()
    truth = untrained(0).detectAndCompute(torch.from_numpy(grey)[None, None].float() / 255, top_k=300)[0]
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
    save_file(untrained(0).net.state_dict(), tmp_path / "same.safetensors")
    assert load_keypoints("xfeat", tmp_path / "same.safetensors") == weights and len(weights) == 16
    with pytest.raises(ModelError, match="keypoints are XFeat's with weights beef, which are not loaded: give"):
        KeypointDetector(KeypointConfig(kind="xfeat", weights="beef"))
    assert str(KeypointConfig(kind="xfeat", weights="beef", scale=2.0)) == "xfeat, 2000 at 2x, weights beef"


def test_files_that_are_not_its_weights(tmp_path: Path) -> None:
    def refused(name: str, said: str) -> None:
        with pytest.raises(ModelError, match=said):
            load_keypoints("xfeat", tmp_path / name)

    refused("absent.pt", r"absent\.pt: is no file, expected XFeat's weights")
    (tmp_path / "text.pt").write_text("no weights")
    refused("text.pt", r"text\.pt: cannot be read as weights")
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pt")
    refused("other.pt", r"other\.pt: is no state dict of XFeat's network")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", r"list\.pt: holds a list, expected XFeat's state dict")
    state = untrained(0).net.state_dict()
    state["keypoint_head.0.layer.0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    refused("nan.pt", r"nan\.pt: keypoint_head\.0\.layer\.0\.weight has values that are not finite")
