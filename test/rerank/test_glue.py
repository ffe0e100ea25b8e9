"""Matching by networks: what they are asked, how often, and what becomes of their answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from geowarp_ros.config import LocalizerConfig, VerificationConfig
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.alignment.aligned import LOCATED, SEEN, Photograph
from geowarp_ros.keypoints.detector import KeypointConfig, Keypoints
from geowarp_ros.keypoints.learned import from_bytes, in_bytes
from geowarp_ros.keypoints.matching import REST, STRONGEST
from geowarp_ros.model.learned import LoadedNetwork, keypoints_of, load_keypoints, load_matcher
from geowarp_ros.rerank.glue import Glue, LightGlue
from geowarp_ros.rerank.loftr import LoFTRMatcher
from geowarp_ros.rerank.verification import (
    KeypointMatcher,
    StoredKeypointMatcher,
    build_matcher,
    build_pairing,
    count_inliers,
    method_of,
    pairing_of,
)
from test.rerank.conftest import MemoryGallery, query_of, textured
from test.untrained import store

SHARED = Path(__file__).parents[3] / "shared" / "weights" / "xfeat"
HOMOGRAPHY = np.array([[0.9, 0.08, 12.0], [-0.05, 0.95, 8.0], [1e-4, 2e-4, 1.0]])


def some(seed: int, count: int, dim: int = 128) -> Keypoints:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Keypoints(rng.uniform(0, 90, (count, 2)).astype(np.float32), in_bytes(vectors.astype(np.float32)))


class Asked(nn.Module):
    """Notes what it is asked, and says that keypoints of the same number match."""

    def __init__(self) -> None:
        super().__init__()
        self.anywhere = nn.Parameter(torch.zeros(1))
        self.asked: list[dict[str, Any]] = []

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(data)
        count = min(data[side]["keypoints"].shape[1] for side in ("image0", "image1"))
        return {"matches": [torch.arange(count)[:, None].expand(-1, 2)]}


def test_it_is_asked_about_the_strongest_in_px_of_images_of_their_sizes() -> None:
    network, first, second = Asked(), some(0, 30), some(1, 20)
    first.points[0] = -0.25, 96.2  # rounding puts a point of the border outside
    pairs = LightGlue(network, 25)(first, (128, 96), second, (100, 90))
    assert pairs.dtype == np.int64 and pairs.tolist() == [[row, row] for row in range(20)]
    ((one, two),) = [(asked["image0"], asked["image1"]) for asked in network.asked]
    assert one["keypoints"].shape == (1, 25, 2) and two["descriptors"].shape == (1, 20, 128)
    assert one["keypoints"][0, 0].tolist() == [0.0, 96.0]
    np.testing.assert_array_equal(one["keypoints"][0, 1:], first.points[1:25])
    np.testing.assert_array_equal(two["descriptors"][0], from_bytes(second.descriptors))
    assert (one["image_size"].tolist(), two["image_size"].tolist()) == ([[128, 96]], [[100, 90]])
    nothing = Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    assert LightGlue(network, 25)(first, (128, 96), nothing, (9, 9)).shape == (0, 2) and len(network.asked) == 1


def test_it_is_kornia_that_matches(tmp_path: Path) -> None:
    network: Any = load_matcher(
        "aliked-lightglue", store(tmp_path, "aliked-lightglue") / "aliked-lightglue.safetensors"
    ).network
    network.conf.filter_threshold = 0.0  # nobody trained it: what it is surest of is not sure
    first, second = some(0, 40), some(1, 40)
    found = LightGlue(network, 40)(first, (96, 96), second, (96, 90))
    with torch.inference_mode():
        expected = network(
            {
                f"image{side}": {
                    "keypoints": torch.from_numpy(one.points)[None],
                    "descriptors": torch.from_numpy(from_bytes(one.descriptors))[None],
                    "image": torch.zeros(1, 3, *size),
                }
                for side, (one, size) in enumerate([(first, (96, 96)), (second, (90, 96))])
            }
        )
    assert len(found) > 3
    np.testing.assert_array_equal(found, expected["matches"][0].numpy())


def test_verification_and_pose_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an aligned gallery, and each gets the parts that it asks for."""
    network = Asked()
    kind = KeypointConfig(count=60)
    gallery = MemoryGallery(np.zeros((1, 1)), [textured(0)], keypoints=kind)
    keypoints = gallery.keypoints(0)
    assert keypoints is not None
    count = len(keypoints)
    point = np.where(np.arange(count) % 2 == 0, np.arange(count), -1).astype(np.int32)
    photograph = Photograph(
        0, keypoints, np.ones((count, 2)), np.zeros((count, 3)), point, np.zeros(3), np.eye(3), 1.0, 0.1
    )
    gallery.aligned[0] = photograph
    glue = Glue(gallery, kind, VerificationConfig(keypoints=40), LoadedNetwork(network, "beef"))
    query = query_of(pixels=textured(0))
    ((points_q, points_p),) = StoredKeypointMatcher(gallery, glue, 0.8)(query, [0])
    assert len(points_q) == 40
    np.testing.assert_array_equal(points_q, points_p)
    compared = glue.compared(query, photograph)
    located, seen = (compared.pairs(0.8, (part,), (STRONGEST, REST)) for part in (LOCATED, SEEN))
    assert located[:, 1].tolist() == list(range(0, 40, 2)) and seen[:, 1].tolist() == list(range(1, 40, 2))
    usable = np.arange(len(query.keypoints(kind))) >= 10
    assert compared.pairs(0.8, (SEEN,), (STRONGEST, REST), usable)[:, 0].tolist() == list(range(11, 40, 2))
    assert len(network.asked) == 1


def test_loftr_matches_images_whose_sides_are_no_multiples(tmp_path: Path) -> None:
    loaded = load_matcher("loftr", store(tmp_path, "loftr") / "loftr.safetensors")
    network: Any = loaded.network
    network.coarse_matching.thr = 0.0  # nobody trained it
    gallery = MemoryGallery(np.zeros((2, 1)), [textured(0), textured(1, 100, 90)])
    pairs = list(LoFTRMatcher(gallery, loaded)(query_of(pixels=textured(0)), [0, 1]))
    assert len(pairs) == 2
    for (points_q, points_p), (height, width) in zip(pairs, [(96, 128), (100, 90)], strict=True):
        assert points_q.shape == points_p.shape and points_q.shape[1] == 2 and len(points_q)
        assert (points_q >= -8).all() and (points_q < [136, 104]).all()
        assert (points_p >= -8).all() and (points_p < [width + 8, height + 8]).all()


@pytest.mark.parametrize("method", ["xfeat", "xfeat-lighterglue", "aliked-lightglue", "disk"])
def test_a_gallery_that_stores_other_keypoints_or_none_is_refused(method: str) -> None:
    """No weights are there: it is refused before they are looked for."""
    kind = method.split("-")[0]
    sift = MemoryGallery(np.zeros((1, 1)), [textured(0)], keypoints=KeypointConfig())
    said = rf"memory: its keypoints are sift, 2000 at 1.5x, .*, and {method} matches {kind}; use sift, or build"
    with pytest.raises(GalleryError, match=said + rf" it again .*--output memory --replace --keypoints {kind}\)"):
        build_matcher(sift, method, LocalizerConfig())
    none = MemoryGallery(np.zeros((1, 1)), [textured(0)])
    with pytest.raises(
        GalleryError, match=rf"no keypoints, and {method} .*upgrade memory --keypoints {kind}' makes"
    ):
        build_matcher(none, method, LocalizerConfig())


def test_sift_is_sift(tmp_path: Path) -> None:
    weights = load_keypoints("xfeat", store(tmp_path, "xfeat") / "xfeat.safetensors")
    stored = KeypointConfig(kind="xfeat", weights=weights, scale=1.0)
    gallery = MemoryGallery(np.zeros((1, 1)), [textured(0)], keypoints=stored)
    with pytest.raises(GalleryError, match=r"its keypoints are xfeat, .*, and sift matches sift; use xfeat, or"):
        build_matcher(gallery, "sift", LocalizerConfig())
    assert (method_of("auto", stored), method_of("auto", None), method_of("orb", stored)) == (
        "xfeat",
        "sift",
        "orb",
    )
    assert isinstance(build_matcher(gallery, "auto", LocalizerConfig()), StoredKeypointMatcher)
    assert isinstance(build_matcher(gallery, "orb", LocalizerConfig()), KeypointMatcher)
    for verify in ("auto", "orb", "none", "loftr"):  # a pose is matched by what is stored, whatever verifies
        config = LocalizerConfig.model_validate({"position": {"verify": verify}})
        pairing = pairing_of(gallery, config)
        assert pairing is not None and pairing.keypoints == stored


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data: XFeat's published weights")
@pytest.mark.parametrize(("method", "least", "share"), [("xfeat", 100, 0.5), ("xfeat-lighterglue", 100, 0.9)])
def test_published_weights_match_where_the_homography_says(method: str, least: int, share: float) -> None:
    stored = keypoints_of("xfeat", SHARED / "xfeat.pt")
    place = textured(3, 240, 320)
    gallery = MemoryGallery(np.zeros((2, 1)), [place, textured(4, 240, 320)], keypoints=stored)
    config = LocalizerConfig(matcher_weights=str(SHARED / "xfeat-lighterglue.pt"))
    query = query_of(pixels=np.asarray(cv2.warpPerspective(place, HOMOGRAPHY, (320, 240)), np.uint8))
    matcher = StoredKeypointMatcher(gallery, build_pairing(gallery, method, config), 0.8)
    (points_q, points_p), (false_q, false_p) = matcher(query, [0, 1])
    expected = cv2.perspectiveTransform(points_p[None].astype(float), HOMOGRAPHY)[0]
    right = np.linalg.norm(points_q - expected, axis=1) < 2
    assert right.sum() > least and right.mean() > share
    assert count_inliers(points_q, points_p, 3.0) > 5 * count_inliers(false_q, false_p, 3.0)
