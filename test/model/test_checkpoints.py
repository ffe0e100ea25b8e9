from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.model import installed
from geowarp_ros.model.checkpoints import fingerprint, load_model, read_header, save_model
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.installed import find_weights
from test.model.weights import make_model


@pytest.fixture(scope="module")
def model() -> GeoWarp:
    return make_model("resnet18", resolution=240)


@pytest.fixture(scope="module")
def saved(model: GeoWarp, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "street.safetensors"
    save_model(model, path, notes={"trained_on": "the street world"})
    return path


def rewrite(saved: Path, path: Path, *, tensors: dict[str, Tensor] | None = None, **header: str | None) -> Path:
    """A copy of a saved model with other tensors or another header."""
    metadata = {**read_header(saved), **header}
    kept = tensors if tensors is not None else safetensors.torch.load_file(saved)
    safetensors.torch.save_file(kept, path, {k: v for k, v in metadata.items() if v is not None})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_model_comes_back_exactly(model: GeoWarp, saved: Path) -> None:
    loaded = load_model(saved)
    assert loaded.config == model.config
    assert not loaded.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert fingerprint(loaded) == fingerprint(model)
    assert read_header(saved)["trained_on"] == "the street world"


def test_every_kind_of_model_comes_back(tmp_path: Path) -> None:
    for model in (
        make_model("alexnet", "netvlad"),
        make_model("resnet18", "gem", regression=False),
        make_model("mobilenet_v2", projection=16),
    ):
        save_model(model, tmp_path / "m", notes=None)
        assert fingerprint(load_model(str(tmp_path / "m"))) == fingerprint(model)


def test_a_later_entry_at_its_default_changes_neither_header_nor_fingerprint(saved: Path) -> None:
    """Galleries and calibrations of models that were made before ``projection`` are theirs still."""
    names = {"encoder", "aggregation", "resolution", "regression", "retrieval_weight"}
    assert json.loads(read_header(saved)["config"]).keys() == names
    assert make_model("resnet18", projection=8).config.model_dump().keys() == names | {"projection"}


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_halves_the_file_and_then_is_stable(model: GeoWarp, saved: Path, tmp_path: Path) -> None:
    once, twice, full = (tmp_path / name for name in ("once", "twice", "full"))
    save_model(model, once, half=True)
    loaded = load_model(once)
    assert once.stat().st_size < 0.52 * saved.stat().st_size
    assert once.stat().st_size < 16e6  # what ships
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=0, atol=1e-3 * tensor.abs().max().item())
        if "running" in key or "num_batches" in key:
            assert torch.equal(loaded.state_dict()[key], tensor), key
    save_model(loaded, twice, half=True)
    save_model(loaded, full)
    assert (
        fingerprint(loaded)
        == fingerprint(load_model(twice))
        == fingerprint(load_model(full))
        != fingerprint(model)
    )


def test_half_precision_keeps_what_float16_cannot_hold(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        encoder: Any = model.encoder
        encoder[0].weight.mul_(1e6)  # overflows
        encoder[4][0].conv1.weight.mul_(1e-8)  # underflows
        encoder[1].running_var.fill_(1e-7)
    save_model(model, tmp_path / "m", half=True)
    loaded = load_model(tmp_path / "m").state_dict()
    for key in ("encoder.0.weight", "encoder.4.0.conv1.weight", "encoder.1.running_var"):
        assert torch.equal(loaded[key], model.state_dict()[key]), key


def test_fingerprints_tell_models_apart() -> None:
    model = make_model()
    names = {fingerprint(model), fingerprint(make_model(seed=1)), fingerprint(make_model(resolution=240))}
    encoder: Any = model.encoder
    with torch.no_grad():
        encoder[0].weight[0, 0, 0, 0] += 1e-6
    names.add(fingerprint(model))
    assert len(names) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in names)
    counted = fingerprint(model)
    encoder[1].num_batches_tracked += 1  # no part of what the network computes
    assert fingerprint(model) == counted


def test_absent_files_folders_and_foreign_files_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(tmp_path / "absent") == "does not exist, expected a model file"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights("~/m") == find_weights("$HOME/m") == tmp_path / "m"
    assert refusal(tmp_path) == "is a folder, expected a model file"
    for data in (b"", b"no model", bytes(1000), saved.read_bytes()[:-1], saved.read_bytes() + b"more"):
        (tmp_path / "m").write_bytes(data)
        assert refusal(tmp_path / "m").startswith("is truncated or no safetensors file")
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    assert "no geowarp model (format = None, expected 'geowarp')" in refusal(tmp_path / "foreign")
    monkeypatch.setattr(installed, "DEFAULT_MODEL", tmp_path / "default.safetensors")
    with pytest.raises(ModelError, match=r"default\.safetensors: the model that ships is missing"):
        load_model("default")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1, exclude_max=True))
def test_wherever_a_file_is_cut_it_is_refused(saved: Path, tmp_path: Path, part: float) -> None:
    data = saved.read_bytes()[: int(part**4 * 1e5)]  # the header lies within the first 15 kB
    (tmp_path / "cut").write_bytes(data)
    assert refusal(tmp_path / "cut").startswith("is truncated")


def test_other_formats_and_configurations_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert "format_version = '2', expected '1'; it needs a newer geowarp_ros" in refusal(
        rewrite(saved, path, format_version="2")
    )
    assert "format_version = 'x', expected '1'" in refusal(rewrite(saved, path, format_version="x"))
    assert "the header's config" in refusal(rewrite(saved, path, config="{"))
    assert "the header's config" in refusal(rewrite(saved, path, config="[]"))
    assert "the header's config" in refusal(rewrite(saved, path, config=None))
    config = json.loads(read_header(saved)["config"])
    message = refusal(rewrite(saved, path, config=json.dumps({**config, "encoder": "vgg19"})))
    assert "encoder = 'vgg19'" in message
    message = refusal(rewrite(saved, path, config=json.dumps({**config, "agregation": "gem"})))
    assert "did you mean 'aggregation'" in message


def test_foreign_tensors_are_refused_by_name(saved: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    path = tmp_path / "m"
    del tensors["pool.1.p"]
    tensors["pool.centroids"] = torch.zeros(64, 256)
    tensors["regression.linear.weight"] = torch.zeros(8, 64)
    message = refusal(rewrite(saved, path, tensors=tensors))
    assert message == (
        "not the weights of this network: 1 missing: pool.1.p; 1 unexpected: pool.centroids; "
        "1 wrong shape: regression.linear.weight expected 16×64, found 8×64"
    )
    message = refusal(rewrite(saved, path, tensors={"pool.1.p": torch.ones(1)}))
    assert re.search(r"1[0-9]{2} missing: encoder\.0\.weight, .*, … \([0-9]+ more\)$", message)
    tensors = safetensors.torch.load_file(saved)
    tensors["encoder.0.weight"][0] = torch.nan
    assert refusal(rewrite(saved, path, tensors=tensors)) == "1 with NaN or infinite values: encoder.0.weight"
    tensors["encoder.0.weight"] = torch.zeros(64, 3, 7, 7, dtype=torch.int8)
    assert "1 of wrong type: encoder.0.weight" in refusal(rewrite(saved, path, tensors=tensors))


def test_a_full_disk_leaves_the_old_model_whole(model: GeoWarp, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the write fails part way, as on a full disk
    try:
        with pytest.raises(ModelError, match=r"m\.safetensors: cannot be written: "):
            save_model(model, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == saved.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_what_cannot_be_written_is_refused(model: GeoWarp, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written: No such file"):
        save_model(model, tmp_path / "absent" / "m")
    with pytest.raises(ModelError, match="a note may not be called config"):
        save_model(model, tmp_path / "m", notes={"config": "{}"})
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_owns_its_weights(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes(saved.read_bytes())
    loaded = load_model(path)
    before = fingerprint(loaded)
    with path.open("r+b") as file:
        file.seek(20_000)
        file.write(np.full(1_000_000, 255, np.uint8).tobytes())
    assert fingerprint(loaded) == before
