from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from geowarp_ros.lab.baselines import Method
from geowarp_ros.lab.studies.dataset import Outcome
from geowarp_ros.lab.training.recall import gallery_of, rank_candidates
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import SourceImage, read_source
from test.lab.training.street import write_street
from test.rerank.conftest import scores_of


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[SourceImage, ...]:
    """Twelve shots, three of each of four walls."""
    return read_source(write_street(tmp_path_factory.mktemp("street"), places=4, shots=3)).images


@pytest.fixture(scope="module")
def describer() -> Describer:
    with seeded(0):
        model = GeoWarp(ModelConfig())
    assert model.regression is not None
    model.regression.linear.weight.data.normal_(std=0.05)
    return Describer(model, "cpu")


def ranked(
    describer: Describer, images: tuple[SourceImage, ...], candidates: int, *methods: Method
) -> list[Outcome]:
    with gallery_of(images, describer) as gallery:
        return rank_candidates(describer, gallery, images, methods, candidates)


def test_the_nearest_other_images_are_found_with_their_distances(
    images: tuple[SourceImage, ...], describer: Describer
) -> None:
    (found,) = ranked(describer, images, 11, "none")
    descriptors = {image.place.name: describer(image.read()).descriptor.astype(float) for image in images}
    for image, candidates in zip(images, found.ranked, strict=True):
        names = [candidate.place.name for candidate in candidates]
        assert sorted(names) == sorted(descriptors.keys() - {image.place.name}), "all but itself"
        expected = [((descriptors[name] - descriptors[image.place.name]) ** 2).sum() for name in names]
        np.testing.assert_allclose([c.distance for c in candidates], expected, rtol=1e-4, atol=1e-6)
        assert [c.distance for c in candidates] == sorted(c.distance for c in candidates)
    assert found.error_m.shape == (12, 11)
    assert found.nearest_m == pytest.approx(2.0, abs=0.01), "the next shot, 2 m on"


def test_scores_are_those_of_the_warper_on_the_files_themselves(
    images: tuple[SourceImage, ...], describer: Describer
) -> None:
    """Nothing is lost to a JPEG: the gallery refers to the photographs."""
    plain, warped = ranked(describer, images, 3, "none", "geowarp")
    files = {image.place.name: image for image in images}
    warper = Warper(describer)
    for image, before, after in zip(images, plain.ranked, warped.ranked, strict=True):
        assert {c.index for c in before} == {c.index for c in after}
        pictures = [describer.prepare(files[c.place.name].read()) for c in after]
        _, local_features = describer.describe_batch(pictures)
        pairs = warper(describer(image.read()), pictures, local_features)
        assert [c.score for c in after] == pytest.approx((pairs.score / 225).tolist(), abs=1e-5)
        assert scores_of(after) == sorted(scores_of(after), reverse=True)


def test_a_gallery_smaller_than_the_shortlist_gives_what_it_has(
    images: tuple[SourceImage, ...], describer: Describer
) -> None:
    (found,) = ranked(describer, images[:3], 5, "none")
    assert [len(candidates) for candidates in found.ranked] == [2, 2, 2]
    assert np.isinf(found.error_m[:, 2:]).all()


def test_photographs_without_files_are_stored(images: tuple[SourceImage, ...], describer: Describer) -> None:
    """As of a bag, whose images no gallery can refer to."""
    read = [image.read() for image in images[:3]]
    recorded = [SourceImage(image.place, partial(read.__getitem__, i)) for i, image in enumerate(images[:3])]
    with gallery_of(recorded, describer) as gallery:
        assert len(gallery) == 3
        folder = gallery.path
        assert np.abs(gallery.image(0).astype(int) - read[0]).mean() < 12, "noise, as JPEG"
    assert not folder.exists()
