from __future__ import annotations

import numpy as np
import pytest
import torch

from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.images import resize_shorter, to_tensor
from geowarp_ros.model import passes
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.describer import Describer, Warper, choose_device
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.types import Image
from test.model.conftest import Models, needs_bfloat16, picture
from test.model.weights import make_model

SIZES = [(48, 64), (56, 50), (48, 64), (64, 48), (48, 64)]


@pytest.fixture(scope="module")
def street() -> list[Image]:
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def small(models: Models) -> GeoWarp:
    return models("resnet18")


def test_a_batch_equals_its_images_one_by_one(models: Models, street: list[Image]) -> None:
    for aggregation in ("gem", "netvlad"):
        describer = Describer(models("resnet18", aggregation), "cpu")
        descriptors, local_features = describer.describe_batch(street)
        assert descriptors.dtype == np.float32 and local_features.dtype == np.float16
        for row, image in enumerate(street):
            query = describer(image)
            np.testing.assert_allclose(descriptors[row], query.descriptor, atol=1e-5)
            # unit vectors in half precision: 2^-11 of values up to 1
            np.testing.assert_allclose(local_features[row], query.local_features[0], atol=5e-4)


def test_an_empty_batch_is_empty(small: GeoWarp) -> None:
    descriptors, local_features = Describer(small, "cpu").describe_batch([])
    assert descriptors.shape == (0, 256)
    assert local_features.shape == (0, 256, 15, 15)


def test_images_are_described_at_working_resolution() -> None:
    describer = Describer(make_model(resolution=32), "cpu")
    image = picture(96, 128)
    assert describer.prepare(image).shape == (32, 43, 3)
    query = describer(image)
    torch.testing.assert_close(query.image, to_tensor(resize_shorter(image, 32)))
    np.testing.assert_array_equal(
        query.descriptor, Describer(make_model(), "cpu")(resize_shorter(image, 32)).descriptor
    )
    np.testing.assert_allclose(describer.describe_batch([image])[0][0], query.descriptor, atol=1e-5)


def test_describer_evaluates_and_knows_its_fingerprint(small: GeoWarp) -> None:
    describer = Describer(make_model().train(), "cpu")
    assert not describer.model.training
    assert describer.fingerprint == fingerprint(small)


@pytest.mark.parametrize("pixels", [passes.PIXELS_PER_PASS, 2 * 48 * 64])
def test_warper_equals_matching_each_pair(small: GeoWarp, street: list[Image], pixels: int) -> None:
    describer = Describer(small, "cpu")
    describer.passes.pixels = pixels  # all at once, or pair by pair
    warper = Warper(describer)
    query = describer(street[0])
    exact = torch.cat([describer(image).local_features for image in street]).numpy()
    pairs = warper(query, street, exact)
    for row, image in enumerate(street):
        with torch.inference_mode():
            score, quad_q, quad_p = small.match(query.image, to_tensor(image))
        np.testing.assert_allclose(pairs.score[row], score[0], rtol=1e-5)
        np.testing.assert_allclose(pairs.quads_q[row], quad_q[0], atol=1e-5)
        np.testing.assert_allclose(pairs.quads_p[row], quad_p[0], atol=1e-5)
        unwarped = (query.local_features[0].numpy() * exact[row]).sum()
        np.testing.assert_allclose(pairs.score_unwarped[row], unwarped, rtol=1e-5)
    assert np.ptp(pairs.score) > 1  # the pairs do differ


def test_half_precision_local_features_are_enough_for_the_warper(small: GeoWarp, street: list[Image]) -> None:
    describer = Describer(small, "cpu")
    warper = Warper(describer)
    query = describer(street[0])
    exact = torch.cat([describer(image).local_features for image in street]).numpy()
    stored = describer.describe_batch(street)[1]
    full, half = warper(query, street, exact), warper(query, street, stored)
    np.testing.assert_allclose(half.quads_q, full.quads_q, atol=1e-3)
    np.testing.assert_allclose(half.score, full.score, rtol=1e-3)
    np.testing.assert_allclose(half.score_unwarped, full.score_unwarped, rtol=1e-3)


def test_warper_of_no_candidates_gives_no_scores(small: GeoWarp, street: list[Image]) -> None:
    describer = Describer(small, "cpu")
    query = describer(street[0])
    pairs = Warper(describer)(query, [], np.empty((0, 256, 15, 15), np.float16))
    assert pairs.score.shape == pairs.score_unwarped.shape == (0,)
    assert pairs.quads_q.shape == pairs.quads_p.shape == (0, 4, 2)


def test_what_cannot_be_done_is_refused(small: GeoWarp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match=r"^device = 'cuda': .*expected auto or cpu"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match=r"^precision = 'float16': needs CUDA"):
        Describer(small, "cpu", "float16")
    with pytest.raises(ModelError, match="no warping regression"):
        Warper(Describer(make_model(regression=False), "cpu"))


@needs_bfloat16
def test_half_precision_runs_the_encoder_alone_in_sixteen_bits(small: GeoWarp, street: list[Image]) -> None:
    """What autocast does on CUDA, shown with the CPU's bfloat16: descriptors stay close and float32."""
    images = to_tensor(street[0])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        feature_map = small.feature_map(images)
        descriptor, local_features = small.describe(images)
    assert feature_map.dtype == descriptor.dtype == local_features.dtype == torch.float32
    exact = small.encoder(images).detach()
    error = (feature_map - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.05
