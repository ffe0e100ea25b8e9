"""What the catalogue says is whole, consistent and, where it can be checked here, true."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest
import torch

from geowarp_ros.catalogue.entries import CATALOGUE, Entry, Purpose, find_entry
from geowarp_ros.config import LearnedMatcher
from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.learned import FORMS
from geowarp_ros.model.aggregation import descriptor_dim
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.encoders import CHANNELS
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.installed import DEFAULT_MODEL
from geowarp_ros.model.methods import METHODS
from test.model import transformer_layout
from test.model.published_layouts import Case, published_shapes
from test.reference import MODELS, models_page

ENTRIES = list(CATALOGUE.values())
PURPOSES = get_args(Purpose)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_whole(entry: Entry) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", entry.name), "a plain name, which is never taken for a path"
    assert bool(entry.url) + bool(entry.by_hand) + (entry.name == "default") == 1
    if entry.url:
        assert urlsplit(entry.url).scheme == "https"
        assert Path(urlsplit(entry.url).path).suffix in (".pth", ".pt", ".ckpt", ".safetensors")
        assert "drive.google" not in entry.url, "it answers with a page that asks"
    assert re.fullmatch(r"([0-9a-f]{64})?", entry.sha256)
    assert not entry.sha256 or entry.size_bytes
    assert (entry.size_bytes is None) != (entry.parameters is None)
    assert entry.read_in and entry.licence.meaning
    assert (entry.dimension is None) == (entry.purpose == "matcher")
    if entry.recall is not None:
        assert 0 < entry.recall.percent < 100 and entry.recall.source


def test_names_and_addresses_are_unique() -> None:
    urls = [entry.url for entry in ENTRIES if entry.url]
    assert len(set(urls)) == len(urls)
    assert [entry.name for entry in ENTRIES] == list(CATALOGUE)


def test_every_entry_can_be_read_and_every_method_has_one() -> None:
    importers = {purpose: {e.importer for e in ENTRIES if e.purpose == purpose} for purpose in PURPOSES}
    assert importers["retrieval"] == {*METHODS, "geowarp", ""}
    assert importers["keypoints"] == {*FORMS}
    assert importers["matcher"] == {*get_args(LearnedMatcher)}
    by_their_own_name = {e.name for e in ENTRIES if e.purpose != "retrieval" and e.name == e.importer}
    assert by_their_own_name == importers["keypoints"] | importers["matcher"], "parameters left empty find them"


def shapes_of(entry: Entry) -> dict[str, tuple[int, ...]]:
    """Key -> shape of an entry's file, as its authors publish it."""
    if entry.importer == "dinov2":
        return transformer_layout.dinov2("", entry.dimension or 0, 12)
    if "DINOv2" in entry.encoder:
        found = transformer_layout.layout(entry.importer, 12)
        wide = {"aggregator.linear.weight": (8448, 256 + 64 * 256), "aggregator.linear.bias": (8448,)}
        return found | (wide if entry.importer == "megaloc" else {})
    backbone = entry.encoder.partition(",")[0]
    case = Case(entry.importer, backbone, entry.dimension or 0)
    return published_shapes(case.method, case.encoder, case.dimension)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.importer in METHODS], ids=lambda entry: entry.name)
def test_a_networks_dimension_and_image_are_those_that_its_file_gives(entry: Entry) -> None:
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(entry).items()}
    config = ModelConfig.model_validate({"regression": False, **METHODS[entry.importer].configure(state)})
    assert descriptor_dim(config.aggregation, CHANNELS[config.encoder], config.dimension) == entry.dimension
    assert sum(map(math.prod, shapes_of(entry).values())) == entry.parameters
    side = config.resolution
    assert entry.resolution == (f"{side} × {side}" if config.square else f"shorter side {side}")


def test_the_model_that_ships_is_as_its_entry_says() -> None:
    entry, model = CATALOGUE["default"], load_model("default")
    assert model.descriptor_dim == entry.dimension
    assert entry.resolution == f"shorter side {model.config.resolution}"
    assert DEFAULT_MODEL.stat().st_size == entry.size_bytes


@pytest.mark.parametrize("encoder", ["alexnet", "vgg16", "resnet50"])
@pytest.mark.parametrize("aggregation", ["gem", "netvlad"])
def test_the_papers_pairs_have_the_dimensions_of_their_networks(encoder: str, aggregation: str) -> None:
    entry = CATALOGUE[f"geowarp-{encoder}-{aggregation}"]
    network = GeoWarp(ModelConfig.model_validate({"encoder": encoder, "aggregation": aggregation}))
    assert entry.dimension == network.descriptor_dim
    assert entry.parameters == sum(tensor.numel() for tensor in network.state_dict().values())


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    assert find_entry("salad").method == "DINOv2 SALAD"
    with pytest.raises(ModelError, match=r"megalok: no weights are called so \(did you mean 'megaloc'\?\)"):
        find_entry("megalok")


def test_the_documents_tables_are_the_catalogues() -> None:
    assert MODELS.read_text() == models_page(), "run: python -m test.reference"
    for entry in ENTRIES:
        assert f"`{entry.name}`" in MODELS.read_text()
