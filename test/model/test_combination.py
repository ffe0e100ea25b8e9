"""Two models in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.images import to_tensor
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.combination import combine
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig, sized
from test.model.conftest import picture
from test.model.weights import make_model


@pytest.mark.parametrize(
    ("retrieves", "matches", "working", "sides"),
    [
        (96, 64, 96, (96, 64)),
        (48, 64, 64, (48, 64)),
        (0, 64, 0, (0, 64)),
        (48, 0, 0, (48, 0)),
        (64, 64, 64, (64, 64)),
    ],
)
def test_each_works_at_its_resolution_and_images_are_kept_for_the_larger(
    retrieves: int, matches: int, working: int, sides: tuple[int, int]
) -> None:
    retrieval = make_model("alexnet", regression=False, resolution=retrieves)
    matching = make_model("resnet18", resolution=matches, projection=20)
    both = combine(retrieval, matching, retrieval_weight=2.0)
    config = both.config
    assert (config.resolution, config.retrieval_weight) == (working, 2.0)
    assert (config.describing.resolution, config.matching.resolution) == sides
    image = picture(120, 160, seed=3)
    found = Describer(both, "cpu")(image)
    assert min(found.pixels.shape[:2]) == (working or 120)
    pixels = to_tensor(found.pixels)
    with torch.inference_mode():
        descriptor = retrieval.describe(sized(pixels, retrieves, square=False))[0][0]
        features = matching.local_features(sized(pixels, matches, square=False))
    np.testing.assert_allclose(found.descriptor, descriptor, atol=1e-4 * float(descriptor.abs().max()))
    np.testing.assert_allclose(found.local_features, features, atol=1e-4)


def test_the_file_holds_both_and_its_fingerprint_covers_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = make_model("alexnet", "netvlad", regression=False, seed=1), make_model("resnet18")
    save_model(one, tmp_path / "one")
    save_model(two, tmp_path / "two")
    words = ["combine", "--retrieval", str(tmp_path / "one"), "--matching", str(tmp_path / "two")]
    assert main([*words, "--output", str(tmp_path / "both")]) == 0
    said = capsys.readouterr().out
    assert "16384 values a descriptor by alexnet + netvlad, local features by resnet18, with warping" in said
    both = load_model(tmp_path / "both")
    assert fingerprint(both) == fingerprint(combine(one, two)) and fingerprint(both) in said
    other = make_model("alexnet", "netvlad", regression=False, seed=2)
    names = {fingerprint(combine(a, b)) for a in (one, other) for b in (two, make_model("resnet18", seed=5))}
    assert len(names) == 4
    again = combine(both, both)  # its own descriptor, its own local features
    assert fingerprint(again) == fingerprint(both)


def test_pairs_are_warped_by_the_matching_network_alone() -> None:
    retrieval, matching = make_model("alexnet", regression=False), make_model("resnet18", projection=20)
    scores = []
    for model in (matching, combine(retrieval, matching)):
        describer = Describer(model, "cpu")
        places = [picture(60, 80, seed=n) for n in range(3)]
        features = describer.describe_batch(places)[1]
        scores.append(Warper(describer)(describer(picture(60, 80, seed=9)), places, features))
    np.testing.assert_allclose(scores[1].score, scores[0].score, atol=1e-4)
    np.testing.assert_allclose(scores[1].quads_q, scores[0].quads_q, atol=1e-5)
    assert np.ptp(scores[0].score) > 0.1


def test_a_transformer_retrieves_and_a_convolutional_network_matches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    retrieval = GeoWarp(
        ModelConfig(
            encoder="dinov2_vits14", depth=1, aggregation="salad", resolution=140, square=True, regression=False
        )
    ).eval()
    matching = make_model("resnet18")
    save_model(combine(retrieval, matching), tmp_path / "both")
    both = Describer(load_model(tmp_path / "both"), "cpu")
    assert both.model.config.describing == retrieval.config.matching
    pixels = to_tensor(picture(120, 160, seed=3))
    with torch.inference_mode():
        found = both.network.describe(pixels)
        expected = retrieval.describe(pixels)[0], matching.local_features(pixels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    descriptors, features = both.describe_batch([picture(120, 160, seed=3)] * 2)
    np.testing.assert_allclose(descriptors[1], expected[0][0], atol=1e-5)
    assert features.shape == (2, 256, 15, 15)
