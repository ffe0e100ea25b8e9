"""A gallery of real photographs with a real, untrained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source

LUND = Path(__file__).parents[3] / "shared" / "data" / "lund"


@pytest.mark.real_images
@pytest.mark.skipif(not LUND.is_dir(), reason="needs the image set lund (shared/data beside the checkout)")
def test_a_street_in_lund(tmp_path: Path) -> None:
    torch.manual_seed(0)
    describer = Describer(GeoWarp(ModelConfig(encoder="resnet18", resolution=96)), "cpu")
    source = read_source(LUND)
    report = build_gallery(source, describer, tmp_path / "g")
    assert (report.images, report.skipped) == (29, ())
    gallery = Gallery.open(tmp_path / "g")
    gallery.check_model(describer.fingerprint)
    extent = np.ptp(gallery.positions_enu, axis=0)
    assert extent == pytest.approx([56.1, 171.6, 8.0], abs=0.2)
    assert gallery.image(0).shape == (96, 128, 3)
    asked = [source.images[row] for row in (0, 11, 28)]
    queries = [describer(image.read()) for image in asked]
    found = [gallery.search(query.descriptor)[0] for query in queries]
    assert [candidate.place.name for candidate in found] == [image.place.name for image in asked]
    stored = gallery.local_features([found[1].index]).astype(np.float32)
    np.testing.assert_allclose(stored, queries[1].local_features.numpy(), atol=2e-3)  # half precision
    assert gallery.verify() == []
