"""Methods on DINOv2: what their authors' own code made of weights that NumPy seeds, ours makes of them, too.

``transformers.json`` holds, for three pictures each, the first values of the descriptor and its products with
random directions. They were computed by the public code of facebookresearch/dinov2, serizba/salad,
gmberton/MegaLoc, amaralibey/Bag-of-Queries and Lu-Feng/CricaVPR, run beside ours; nothing of it is here. For
that run torch.hub gave DINOv2's own class without a download, torchvision's resize was torch's bilinear
interpolation with antialiasing, which it calls, timm's DropPath the identity, which it is but in training, and
what training alone needs was empty. Transformers have a block or two here, by their authors' arguments; whole
ones were compared by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geowarp_ros.config import parse_config
from geowarp_ros.errors import ModelError
from geowarp_ros.images import to_tensor
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.methods import METHODS, import_method
from test.model.conftest import picture
from test.model.transformer_layout import CASES, layout, seeded

REFERENCE = json.loads(Path(__file__).with_name("transformers.json").read_text())
METHOD = {"dinov2_reg": "dinov2"}
BLOCKS = {"dinov2": 2}


def written(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


@pytest.mark.parametrize("name", CASES)
def test_descriptors_are_the_authors(name: str, tmp_path: Path) -> None:
    reference: dict[str, Any] = REFERENCE[name]
    state: Any = seeded(layout(name, BLOCKS.get(name, 1)), reference["seed"])
    if name == "cricavpr":
        state = {"model_state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}
    model = import_method(
        METHOD.get(name, name), written(tmp_path, state), resolution=0, input_resolution=0, square=False
    )
    for (height, width, seed), values, products in zip(
        reference["images"], reference["values"], reference["projections"], strict=True
    ):
        with torch.inference_mode():
            found = model.describe(to_tensor(picture(height, width, seed)))[0][0].double().numpy()
        directions = np.random.default_rng(11).standard_normal((model.descriptor_dim, 6))
        np.testing.assert_allclose(found[:4], values, atol=1e-5)
        np.testing.assert_allclose(found @ directions, products, atol=3e-5)


@pytest.mark.parametrize(
    ("name", "encoder", "aggregation", "side", "square", "dimension"),
    [
        ("dinov2", "dinov2_vits14", "gem", 224, False, 384),
        ("dinov2_reg", "dinov2_vits14_reg", "gem", 224, False, 384),
        ("salad", "dinov2_vitb14", "salad", 322, True, 8448),
        ("megaloc", "dinov2_vitb14", "megaloc", 322, False, 32),
        ("boq", "boq_vitb14", "boq", 322, True, 12288),
        ("cricavpr", "cricavpr_vitb14", "cricavpr", 224, True, 10752),
    ],
)
def test_whole_networks_are_recognised_by_their_shapes(
    name: str, encoder: str, aggregation: str, side: int, square: bool, dimension: int
) -> None:
    """As their authors publish and evaluate them; the tensors have shapes and nothing in them."""
    state = {key: torch.empty(shape, device="meta") for key, shape in layout(name, depth=12).items()}
    method = METHODS[METHOD.get(name, name)]
    with torch.device("meta"):
        config = parse_config(ModelConfig, {"regression": False, **method.configure(state)})
        model = GeoWarp(config)
    assert (config.encoder, config.aggregation, config.depth) == (encoder, aggregation, 0)
    assert (config.describing.resolution, config.square, model.descriptor_dim) == (side, square, dimension)
    found, expected = method.rename(state), model.state_dict()
    absent = {key for key in expected if key.endswith("num_batches_tracked")} - found.keys()
    assert found.keys() | absent == expected.keys()
    assert all(tensor.shape == expected[key].shape for key, tensor in found.items())


def test_an_imported_model_is_saved_and_opened(tmp_path: Path) -> None:
    path = written(tmp_path, seeded(layout("salad"), 1))
    model = import_method("salad", path)
    save_model(model, tmp_path / "model.safetensors")
    opened = load_model(tmp_path / "model.safetensors")
    assert fingerprint(opened) == fingerprint(model)
    assert (opened.config.encoder, opened.config.depth) == ("dinov2_vitb14", 1)
    wide = torch.randn(1, 3, 90, 200)  # fewer patches than clusters, were it not made a square of 322 px
    assert opened.describe(wide)[0].shape == (1, 8448)


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    def refusal(name: str, state: dict[str, Tensor]) -> str:
        with pytest.raises(ModelError) as caught:
            import_method(name, written(tmp_path, state))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    state = seeded(layout("dinov2"), 1)
    assert "holds no weights of salad: 'backbone.model.cls_token' is missing" in refusal("salad", state)
    assert "1 unexpected: encoder.head.weight" in refusal("dinov2", {**state, "head.weight": torch.ones(1)})
    with_more = {**state, "register_tokens": torch.zeros(1, 7, 384)}
    assert "encoder.register_tokens expected 1×4×384, found 1×7×384" in refusal("dinov2", with_more)
    assert "cls_token has 100 channels: expected" in refusal("dinov2", {"cls_token": torch.zeros(1, 1, 100)})
    del state["blocks.0.attn.qkv.bias"]
    assert "1 missing: encoder.blocks.0.attn.qkv.bias" in refusal("dinov2", state)
