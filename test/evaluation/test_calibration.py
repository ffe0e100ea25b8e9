"""What is collected for a calibration, and when there is too little of it; over the gallery of test_localizer."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from geowarp_ros.errors import GalleryError, ImageError, SourceError
from geowarp_ros.evaluation.calibration import calibrate_gallery, collect_samples, plain_questions
from geowarp_ros.gallery.making.build import remove_from_gallery
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import load_calibration, settings_of
from geowarp_ros.localizer import Localizer
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import Image
from test.test_localizer import PLACES, config, gallery_path, model_path, picture, source_image

__all__ = ["gallery_path", "model_path"]  # fixtures


@pytest.fixture
def localizer(tmp_path: Path, gallery_path: Path, model_path: Path) -> Localizer:
    """Retrieval alone, over a gallery that may be written to."""
    folder = shutil.copytree(gallery_path, tmp_path / "gallery")
    return Localizer.open(folder, config(model_path, rerank={"method": "none"}, position={"verify": "none"}))


def street(count: int = PLACES) -> list[SourceImage]:
    return [source_image(index, partial(picture, index)) for index in range(count)]


def unreadable() -> Image:
    raise ImageError("x.png: is truncated")


def test_each_image_is_asked_about_twice_and_what_is_left_out_is_counted(localizer: Localizer) -> None:
    images = [*street(), source_image(3, unreadable)]
    collected = collect_samples(localizer, images, correct_within_m=5.0)
    textured = len(plain_questions()) - collected.textureless
    assert len(collected.samples) == 2 * PLACES + textured
    assert [sample.right for sample in collected.samples] == [True] * PLACES + [False] * (PLACES + textured)
    assert collected.unreadable == ("03.png",)
    assert collected.themselves == PLACES, "the street's pictures are the gallery's"


def test_the_calibration_is_stored_with_what_it_was_measured_with(localizer: Localizer) -> None:
    calibration, summary, collected = calibrate_gallery(localizer, street(), correct_within_m=5.0)
    assert load_calibration(localizer.gallery.path / CALIBRATION) == calibration
    assert calibration.measured_with == settings_of(
        localizer.config, localizer.describer.fingerprint, localizer.gallery.keypoint_config
    )
    assert calibration.samples == len(collected.samples) and summary["auc"] > 0.9
    assert "score" not in calibration.features, "nothing was re-ranked"


def test_too_few_images_an_empty_source_and_an_empty_gallery_are_refused(localizer: Localizer) -> None:
    folder = localizer.gallery.path
    with pytest.raises(SourceError, match="no images to calibrate with"):
        calibrate_gallery(localizer, [])
    with pytest.raises(SourceError, match=r"cannot calibrate .*gallery: 9 right and \d+ wrong answers"):
        calibrate_gallery(localizer, street(9), correct_within_m=5.0)
    remove_from_gallery(folder, [image.place.name for image in street()])
    with pytest.raises(GalleryError, match="an empty gallery cannot be calibrated"):
        calibrate_gallery(Localizer.open(folder, localizer.config), street())
    assert not (folder / CALIBRATION).exists()
