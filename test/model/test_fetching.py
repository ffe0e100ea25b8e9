"""Weights fetched from a server on loopback, or brought: read as their method says, stored, recorded, verified."""

from __future__ import annotations

import dataclasses
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia.feature import DISK, XFeat
from torch import Tensor

from geowarp_ros.catalogue.entries import CATALOGUE
from geowarp_ros.errors import DownloadError, ModelError
from geowarp_ros.files import sha256_of
from geowarp_ros.model.checkpoints import fingerprint, load_model, read_header, read_safetensors
from geowarp_ros.model.fetching import get, is_intact, read_record, remove
from geowarp_ros.model.installed import find_weights, installed_weights
from geowarp_ros.model.learned import load_keypoints
from geowarp_ros.model.methods import METHODS, Method
from test.catalogue.serving import Site
from test.model.conftest import Models
from test.model.published_layouts import Case, seeded_checkpoint
from test.model.transformer_layout import dinov2, seeded
from test.model.weights import published


def torch_file(state: Any) -> bytes:
    file = BytesIO()
    torch.save(state, file)
    return file.getvalue()


def of(model: torch.nn.Module) -> dict[str, Tensor]:
    """A state dict as nobody publishes it: with a prefix that the method takes away."""
    return {f"theirs.{key}": tensor for key, tensor in model.state_dict().items()}


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, empty."""
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def url(site: Site, models: Models, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the weights of an entry of our own, ``tiny``: ResNet-18 and GeM under other keys."""
    method = Method(
        configure=lambda state: {"encoder": "resnet18", "aggregation": "gem"},
        rename=lambda state: {key.removeprefix("theirs."): tensor for key, tensor in state.items()},
        source="here",
    )
    address = site.put("tiny.pth", torch_file(of(models("resnet18", "gem", regression=False))))
    entry = dataclasses.replace(
        CATALOGUE["cosplace-resnet18-512"], name="tiny", importer="tiny", dimension=256, url=address
    )
    monkeypatch.setitem(METHODS, "tiny", method)
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    return address


def test_weights_are_fetched_read_and_found_by_name(url: str, models: Models, weights: Path, site: Site) -> None:
    record = get("tiny")
    stored = find_weights("tiny")
    assert stored == weights / "tiny.safetensors"
    assert fingerprint(load_model("tiny")) == record.fingerprint
    assert record.fingerprint == fingerprint(models("resnet18", "gem", regression=False))
    (origin,) = record.files
    body = site.pages["/tiny.pth"].body
    assert (origin.source, origin.size_bytes, origin.etag) == (url, len(body), '"1"')
    assert sorted(path.name for path in weights.iterdir()) == ["tiny.json", "tiny.safetensors"]
    assert read_record("tiny") == record
    assert record.stored_sha256 == sha256_of(stored) and is_intact("tiny")
    written = json.loads((weights / "tiny.json").read_text())
    assert written["licence"] == "MIT" and written["date"].endswith("+00:00")


def test_the_stored_file_names_source_licence_and_checksum(url: str) -> None:
    (origin,) = get("tiny").files
    notes = read_header(find_weights("tiny"))
    assert notes["source"] == url
    assert notes["licence"] == "MIT" and "LICENSE" in notes["licence_read_in"]
    assert notes["sha256"] == origin.sha256
    assert notes["method"] == "CosPlace, CVPR 2022"


def test_a_file_that_the_user_brings_is_the_same(url: str, tmp_path: Path, site: Site) -> None:
    (tmp_path / "mine.pth").write_bytes(site.pages["/tiny.pth"].body)
    record = get("tiny", [str(tmp_path / "mine.pth")])
    assert record.files[0].source == "mine.pth" and site.asked == []
    assert (tmp_path / "mine.pth").exists()
    assert get("tiny", [url]).files[0].sha256 == record.files[0].sha256


def test_later_the_same_file_must_come_again(url: str, site: Site, models: Models) -> None:
    first = get("tiny")
    remove("tiny")
    assert not installed_weights("tiny").exists()
    site.put("tiny.pth", torch_file(of(models("resnet18", "gem", regression=False, seed=1))), etag='"2"')
    with pytest.raises(DownloadError, match=rf"{first.files[0].sha256}, the one of 20.*remove tiny --forget"):
        get("tiny")
    assert not installed_weights("tiny").exists()
    with pytest.raises(ModelError, match="tiny: is not among the weights"):
        remove("tiny")
    remove("tiny", forget=True)
    assert get("tiny").fingerprint != first.fingerprint


def test_a_published_checksum_is_held_at_once(url: str, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    entry = CATALOGUE["tiny"]
    monkeypatch.setitem(CATALOGUE, "tiny", dataclasses.replace(entry, sha256="0" * 64))
    with pytest.raises(DownloadError, match=r"expected 0{64}, the one that its authors publish"):
        get("tiny")
    assert list(weights.iterdir()) == []
    monkeypatch.setitem(CATALOGUE, "tiny", dataclasses.replace(entry, size_bytes=5))
    with pytest.raises(DownloadError, match="expected 5"):
        get("tiny")


def test_damage_on_the_disk_is_noticed(url: str) -> None:
    get("tiny")
    stored = installed_weights("tiny")
    damaged = bytearray(stored.read_bytes())
    damaged[-1] ^= 1
    stored.write_bytes(damaged)
    assert not is_intact("tiny")
    get("tiny")
    assert is_intact("tiny")


def test_a_damaged_record_is_refused_by_name(url: str, weights: Path) -> None:
    get("tiny")
    (weights / "tiny.json").write_text("{")
    with pytest.raises(ModelError, match=r"tiny\.json: is damaged: .*remove tiny --forget"):
        is_intact("tiny")
    remove("tiny", forget=True)
    assert get("tiny") == read_record("tiny")


def test_other_weights_are_refused_and_nothing_stays(
    url: str,
    site: Site,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    weights: Path,
) -> None:
    body = site.pages["/tiny.pth"].body
    monkeypatch.setitem(CATALOGUE, "tiny", dataclasses.replace(CATALOGUE["tiny"], dimension=512))
    with pytest.raises(ModelError, match="descriptors of 256 values, expected the 512 of tiny"):
        get("tiny")
    site.put("tiny.pth", torch_file({"theirs.other": torch.zeros(3)}))
    with pytest.raises(ModelError, match="not the weights of this network"):
        get("tiny")
    site.put("tiny.pth", body[: len(body) // 2])
    with pytest.raises(ModelError, match="is truncated or not a file of torch"):
        get("tiny")
    assert list(weights.iterdir()) == []


def test_what_could_run_code_is_refused(url: str, site: Site) -> None:
    site.put("tiny.pth", torch_file({"theirs.a": Path("/")}))
    with pytest.raises(ModelError, match="is no state dict of plain tensors"):
        get("tiny")


def test_without_a_network_the_way_out_is_said(url: str, site: Site) -> None:
    site.pages.clear()
    with pytest.raises(DownloadError, match=r"answers 404.*; geowarp models get tiny --from FILE takes a file"):
        get("tiny")


def test_what_a_browser_must_fetch_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"open https://drive.*; then: geowarp models get mixvpr\S+ --from FILE$"):
        get("mixvpr-resnet50-512")
    for given in ([], [__file__]):
        with pytest.raises(ModelError, match="default: ships with the package"):
            get("default", given)
    with pytest.raises(ModelError, match=r"absent\.ckpt: cannot be read: No such file"):
        get("mixvpr-resnet50-512", [str(tmp_path / "absent.ckpt")])
    with pytest.raises(ModelError, match="is made of 1 file, 2 are given"):
        get("mixvpr-resnet50-512", ["a", "b"])


def test_another_network_of_the_same_dimension_is_refused(tmp_path: Path, weights: Path) -> None:
    torch.save(seeded_checkpoint(Case("cosplace", "ResNet50", 512)), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"a\.pth: holds resnet50_layer4, expected ResNet18, GeM, linear of cos"):
        get("cosplace-resnet18-512", [str(tmp_path / "a.pth")])
    torch.save(seeded(dinov2("", 384, 1), 0), tmp_path / "b.pth")
    with pytest.raises(ModelError, match=r"holds dinov2_vits14, cut short to 1 blocks, expected ViT-S/14, GeM of"):
        get("dinov2-vits14", [str(tmp_path / "b.pth")])
    torch.save(seeded(dinov2("", 384, 12, registers=4), 0), tmp_path / "c.pth")
    with pytest.raises(ModelError, match=r"holds dinov2_vits14_reg, expected ViT-S/14, GeM of"):
        get("dinov2-vits14", [str(tmp_path / "c.pth")])
    assert not list(weights.iterdir())
    torch.save(seeded_checkpoint(Case("cosplace", "ResNet18", 512)), tmp_path / "a.pth")
    get("cosplace-resnet18-512", [str(tmp_path / "a.pth")])


def test_the_papers_pairs_come_from_two_files(models: Models, tmp_path: Path, site: Site) -> None:
    model = models("alexnet", "gem")
    for name, state in zip(("features", "regression"), published(model), strict=True):
        torch.save(state, tmp_path / f"{name}.pth")
    files = [str(tmp_path / "features.pth"), str(tmp_path / "regression.pth")]
    assert get("geowarp-alexnet-gem", files).fingerprint == fingerprint(model)
    assert load_model("geowarp-alexnet-gem").regression is not None
    remove("geowarp-alexnet-gem")
    get("geowarp-alexnet-gem", files[:1])
    assert load_model("geowarp-alexnet-gem").regression is None
    with pytest.raises(DownloadError, match=r"regression\.pth: has the SHA-256"):
        get("geowarp-alexnet-gem", files[::-1])
    urls = [site.put(f"{number}/a.pth", Path(file).read_bytes()) for number, file in enumerate(files)]
    assert get("geowarp-alexnet-gem", urls).fingerprint == fingerprint(model)


def test_a_network_of_keypoints_is_stored_with_the_keys_of_its_authors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "xfeat", dataclasses.replace(CATALOGUE["xfeat"], sha256=""))
    torch.manual_seed(0)
    state = XFeat().net.state_dict()
    torch.save(state, tmp_path / "xfeat.pt")
    record = get("xfeat", [str(tmp_path / "xfeat.pt")])
    stored = read_safetensors(find_weights("xfeat"))
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[key], tensor) for key, tensor in state.items())
    torch.save({"net.0": torch.zeros(1)}, tmp_path / "other.pt")
    remove("xfeat", forget=True)
    with pytest.raises(ModelError, match=r"other\.pt"):
        get("xfeat", [str(tmp_path / "other.pt")])
    assert len(record.fingerprint) == 16


def test_the_wrapper_of_a_published_file_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "disk", dataclasses.replace(CATALOGUE["disk"], sha256=""))
    torch.manual_seed(0)
    state = DISK().state_dict()
    torch.save({"extractor": state}, tmp_path / "depth-save.pth")
    record = get("disk", [str(tmp_path / "depth-save.pth")])
    assert read_safetensors(find_weights("disk")).keys() == state.keys()
    assert load_keypoints("disk") == record.fingerprint, "by the kind's own name"
