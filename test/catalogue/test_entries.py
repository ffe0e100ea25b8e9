"""What the catalogue says is whole, consistent and, where it can be checked here, true."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from geowarp_ros.catalogue.entries import CATALOGUE, Entry, find_entry
from geowarp_ros.errors import ModelError
from geowarp_ros.model.aggregation import descriptor_dim
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.encoders import CHANNELS
from geowarp_ros.model.installed import DEFAULT_MODEL
from geowarp_ros.model.methods import METHODS
from test.reference import MODELS, models_page

ENTRIES = list(CATALOGUE.values())


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
    assert entry.read_in and entry.licence.meaning
    assert (entry.dimension is None) == (entry.purpose == "matcher")
    if entry.recall is not None:
        assert 0 < entry.recall.percent < 100 and entry.recall.source


def test_names_and_addresses_are_unique() -> None:
    urls = [entry.url for entry in ENTRIES if entry.url]
    assert len(set(urls)) == len(urls)
    assert [entry.name for entry in ENTRIES] == list(CATALOGUE)


def test_every_method_that_can_be_read_has_an_entry() -> None:
    assert set(METHODS) <= {entry.importer for entry in ENTRIES if entry.purpose == "retrieval"}


def test_the_model_that_ships_is_as_its_entry_says() -> None:
    entry, model = CATALOGUE["default"], load_model("default")
    assert model.descriptor_dim == entry.dimension
    assert entry.resolution == f"shorter side {model.config.resolution}"
    assert DEFAULT_MODEL.stat().st_size == entry.size_bytes


@pytest.mark.parametrize("encoder", ["alexnet", "vgg16", "resnet50"])
@pytest.mark.parametrize("aggregation", ["gem", "netvlad"])
def test_the_papers_pairs_have_the_dimensions_of_their_networks(encoder: str, aggregation: str) -> None:
    entry = CATALOGUE[f"geowarp-{encoder}-{aggregation}"]
    assert entry.dimension == descriptor_dim(aggregation, CHANNELS[encoder])  # type: ignore[arg-type, index]


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    assert find_entry("salad").method == "DINOv2 SALAD"
    with pytest.raises(ModelError, match=r"megalok: no weights are called so \(did you mean 'megaloc'\?\)"):
        find_entry("megalok")


def test_the_documents_tables_are_the_catalogues() -> None:
    assert MODELS.read_text() == models_page(), "run: python -m test.reference"
    for entry in ENTRIES:
        assert f"`{entry.name}`" in MODELS.read_text()
