"""Published networks: the descriptors of their authors' code and ours; docs/networks.md says how theirs ran."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.model import methods
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.inference import for_inference
from geowarp_ros.model.methods import METHODS, import_method
from test.model.published_layouts import CASES, FIXTURE, Case, abridged, inputs, seeded_checkpoint

AUTHORS = json.loads(FIXTURE.read_text())
SMALL = Case("cosplace", "ResNet18", 32)


def written(case: Case, path: Path) -> Path:
    torch.save(seeded_checkpoint(case), path)
    return path


def test_every_method_is_held_to_its_authors() -> None:
    assert {case.method for case in CASES} <= METHODS.keys()
    assert {case.name for case in CASES} == AUTHORS.keys()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_descriptors_are_those_of_the_authors_code(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    # up to 240 MB that need not go to the disk and back, and start values that are overwritten
    monkeypatch.setattr(methods, "read_state_dict", lambda path: seeded_checkpoint(case))
    for start in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(nn.init, start, lambda tensor, **_: tensor)
    model = import_method(case.method, Path("published.pth"), **dict(case.entries))
    assert (model.config.encoder, model.descriptor_dim) == (case.encoder, case.dimension)
    expected = np.asarray(AUTHORS[case.name])
    with torch.inference_mode():
        descriptors = model.describe(inputs(case))[0]
    np.testing.assert_allclose(descriptors.norm(dim=1), 1.0, atol=1e-5)
    apart = torch.cdist(descriptors, descriptors)[~torch.eye(3, dtype=torch.bool)].min().item()
    # and a hundredth of what tells the images apart: random weights make deep networks answer much alike
    np.testing.assert_allclose(abridged(descriptors), expected, atol=min(1e-4, apart / 100), rtol=0)


@pytest.mark.parametrize("case", [SMALL, Case("mixvpr", "ResNet50", 128), Case("boq", "ResNet50", 512)])
def test_the_fused_network_answers_alike_in_either_runtime(case: Case, tmp_path: Path) -> None:
    model = import_method(case.method, written(case, tmp_path / "p.pth"))
    images = inputs(case)[:1]  # of another size than the squares'
    with torch.inference_mode():
        expected = model.describe(images)
        for network in (for_inference(model, "cpu"), for_inference(model, "cpu", runtime="onnxruntime")):
            for ours, theirs in zip(network.describe(images), expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_wrappers_and_safetensors_are_the_same_model_and_it_comes_back(tmp_path: Path) -> None:
    import safetensors.torch

    state = seeded_checkpoint(SMALL)
    expected = fingerprint(import_method("cosplace", written(SMALL, tmp_path / "p.pth")))
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": t for k, t in state.items()}}, tmp_path / "p.ckpt")
    safetensors.torch.save_file(state, tmp_path / "p.safetensors")
    for name in ("p.ckpt", "p.safetensors"):
        model = import_method("eigenplaces", tmp_path / name)
        assert fingerprint(model) == expected
    save_model(model, tmp_path / "m.safetensors")
    assert fingerprint(load_model(tmp_path / "m.safetensors")) == expected


def test_squares_keep_their_size_whatever_the_working_resolution(tmp_path: Path) -> None:
    path = written(Case("mixvpr", "ResNet50", 128), tmp_path / "p.pth")
    plain, larger = import_method("mixvpr", path), import_method("mixvpr", path, resolution=480)
    assert (plain.config.resolution, plain.config.matching.resolution) == (320, 320)
    assert (larger.config.resolution, larger.config.matching.resolution) == (480, 320)
    images = torch.randn(1, 3, 480, 640, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(plain.describe(images), larger.describe(images), atol=0, rtol=0)


def test_local_features_are_projected_to_256_channels_unless_told(tmp_path: Path) -> None:
    path = written(SMALL, tmp_path / "p.pth")
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    for entries, channels in (({}, 256), ({"projection": 0}, 512), ({"projection": 64}, 64)):
        model = import_method("cosplace", path, **entries)
        with torch.inference_mode():
            features = model.describe(images)[1]  # of a map of 2x3 cells
        assert features.shape == (1, channels, 15, 15) and model.channels == channels
        np.testing.assert_allclose(features.norm(dim=1), 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("cosplace", {"fc.weight": (3,)}, "1 unexpected: fc.weight"),
        ("cosplace", {"backbone.7.1.bn2.bias": None}, "1 missing: encoder.7.1.bn2.bias"),
        ("cosplace", {"aggregation.3.bias": (31,)}, "pool.2.bias expected 32, found 31"),
        ("cosplace", {"aggregation.3.weight": None}, "holds no weights of cosplace: 'aggregation.3.weight'"),
        ("cosplace", {"backbone.6.2.conv1.weight": (3,)}, "holds no weights of cosplace: 3 is missing"),
        ("mixvpr", {}, "holds no weights of mixvpr: 'aggregator.channel_proj.weight' is missing"),
        ("boq", {}, "holds no weights of boq: 'aggregator.fc.weight' is missing"),
        ("cosplce", {}, r"expected one of cosplace, .* \(did you mean 'cosplace'\?\)"),
    ],
)
def test_other_weights_are_refused(
    method: str, change: dict[str, tuple[int, ...] | None], message: str, tmp_path: Path
) -> None:
    state = seeded_checkpoint(SMALL)
    for key, shape in change.items():
        state.pop(key, None)
        if shape is not None:
            state[key] = torch.ones(shape)
    torch.save(state, tmp_path / "p.pth")
    with pytest.raises(ModelError, match=message):
        import_method(method, tmp_path / "p.pth")


def test_entries_that_a_method_cannot_have_are_refused(tmp_path: Path) -> None:
    path = written(Case("mixvpr", "ResNet50", 128), tmp_path / "p.pth")
    with pytest.raises(ConfigError, match="'mixvpr': expected a square input of 320 px"):
        import_method("mixvpr", path, input_resolution=256)
