from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from geowarp_ros.cli import main
from geowarp_ros.errors import ConfigError, ModelError, SourceError, TrainingError
from geowarp_ros.geometry import full_frame
from geowarp_ros.lab.training.data import Photographs, common_frame
from geowarp_ros.lab.training.losses import features_wise_loss
from geowarp_ros.lab.training.objective import WarpLosses
from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig
from geowarp_ros.lab.training.session import BEST, LAST, SETTINGS
from geowarp_ros.lab.training.warping import (
    learning_rate,
    mine,
    read_sets,
    train_warp,
    with_regression,
)
from geowarp_ros.model import inference
from geowarp_ros.model.checkpoints import load_model, read_header, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.regression import WarpRegression
from test.model.conftest import needs_bfloat16
from test.model.weights import regression_of

SIZE = 120
SMALL = WarpConfig(
    iterations=4, lambda_fw=0, lambda_cons=0, batch_generated=2, height=SIZE, width=SIZE, validate_every=4
)
QUIET = SessionConfig(tensorboard=False, device="cpu", save_every=2)


class Colours(nn.Module):
    """An 'encoder' of stride 8 without parameters, quick and exact: colours and their changes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(x, 8)
        return torch.cat([x, -x, x - x.roll(1, -1), x - x.roll(1, -2)], dim=1)


def clouds(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth photographs of nothing: (count, SIZE, SIZE, 3) uint8."""
    coarse = np.random.default_rng(seed).normal(128, 60, (count, 12, 12, 3)).clip(0, 255).astype(np.uint8)
    larger = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return np.asarray(np.stack(larger), np.uint8)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clouds on a line, 8 m apart, every fourth a query."""
    folder = tmp_path_factory.mktemp("clouds")
    lines = ["filename,latitude,longitude,split"]
    for index, image in enumerate(clouds(24)):
        cv2.imwrite(str(folder / f"{index:02d}.png"), image)
        lines.append(
            f"{index:02d}.png,{48 + index * 8 / 111_200:.8f},11,{'query' if index % 4 == 3 else 'gallery'}"
        )
    (folder / "positions.csv").write_text("\n".join(lines) + "\n")
    return folder


def small_model(seed: int = 0) -> GeoWarp:
    torch.manual_seed(seed)
    model = GeoWarp(ModelConfig())
    model.encoder = nn.Sequential(Colours())
    return model.eval()


def as_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_defaults_are_the_papers() -> None:
    config = WarpConfig()
    assert (config.lambda_ss, config.lambda_fw, config.lambda_cons) == (1, 10, 0.1)
    assert (config.k, config.views, config.batch_generated, config.batch_pairs) == (0.6, 2, 16, 16)
    assert (config.iterations, config.optimizer, config.learning_rate) == (50_000, "sgd", 1e-4)
    assert (config.momentum, config.weight_decay, config.t_geo_m, config.t_feat) == (0.9, 1e-3, 25, 1.2)
    assert (config.colour, config.mirror, config.schedule) == (0, False, "constant")
    assert config.needs_pairs
    assert not WarpConfig(lambda_fw=0, lambda_cons=0).needs_pairs


def test_untrained_regression_gives_full_frames_and_their_losses() -> None:
    model = small_model()
    photographs = as_tensor(clouds(4)).float() / 128 - 1
    f = model.local_features(photographs)
    losses = WarpLosses(model, k=0.0)
    fw, cons = losses.pairs(photographs[:2], photographs[2:])
    assert cons == 0, "full frames are consistent"
    assert torch.allclose(fw, features_wise_loss(f[:2], f[2:]), atol=1e-5), "no warp: as the images are"
    fw, _ = losses.pairs(photographs[:2], photographs[:2])
    assert fw == 0
    assert losses.generated(as_tensor(clouds(2)), torch.Generator()) < 1e-9, "k = 0: the overlap is the full frame"
    frame = full_frame(2, f)
    assert torch.equal(model.regress(f[:2], f[2:])[0], frame)


def test_features_wise_gradient_reaches_the_regression_and_nothing_else() -> None:
    model = small_model()
    regression = regression_of(model.requires_grad_(False)).requires_grad_(True)
    torch.nn.init.normal_(regression.linear.weight, std=0.01)
    images = as_tensor(clouds(4)).float() / 128 - 1
    fw, _ = WarpLosses(model).pairs(images[:2], images[2:])
    fw.backward()
    gradient = regression.linear.weight.grad
    assert gradient is not None and gradient.abs().max() > 0
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("regression."))


class NarrowRegression(WarpRegression):
    """R with 32 channels in every layer: input, output and depth stay, and a fifth of the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 225
        for layer in [layer for layer in self.conv if isinstance(layer, nn.Conv2d)]:
            layers += [nn.Conv2d(channels, 32, layer.kernel_size[0], padding=1), nn.BatchNorm2d(32), nn.ReLU()]
            channels = 32
        self.conv = nn.Sequential(*layers)
        full_frame_bias = self.linear.bias
        self.linear = nn.Linear(channels, 16)
        self.linear.bias = full_frame_bias
        nn.init.zeros_(self.linear.weight)


def narrow_model() -> GeoWarp:
    model = small_model()
    model.regression = NarrowRegression()
    model.requires_grad_(False)
    model.regression.requires_grad_(True)
    return model


def test_training_from_scratch_improves_the_corner_error() -> None:
    model = narrow_model()
    regression = regression_of(model).train()
    photographs, held_out = as_tensor(clouds(32)), as_tensor(clouds(12, seed=1))
    losses = WarpLosses(model, k=0.6, views=4)
    optimizer = torch.optim.AdamW(regression.parameters(), 2e-3)
    before = losses.generated_corner_error(held_out)
    for step in range(60):
        loss = losses.generated(photographs[torch.randperm(32)[:2]], torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = losses.generated_corner_error(held_out)
    assert after < 0.85 * before


@needs_bfloat16
def test_losses_in_bfloat16_are_those_in_float32_to_two_digits() -> None:
    model = narrow_model().eval()
    nn.init.normal_(regression_of(model).linear.weight, std=10)  # quads that differ by more than a rounding
    pixels = as_tensor(clouds(2))
    images = pixels.float() / 128 - 1
    found = []
    for autocast in (nullcontext, lambda: torch.autocast("cpu", torch.bfloat16)):
        losses = WarpLosses(model, k=0.6, autocast=autocast)
        torch.manual_seed(1)
        fw, cons = losses.pairs(images[:1], images[1:])
        found.append(torch.stack([losses.generated(pixels, torch.Generator()), fw, cons]).detach())
    assert found[1].dtype == torch.float32
    assert not torch.equal(found[0], found[1]), "the networks did run in bfloat16"
    torch.testing.assert_close(found[1], found[0], rtol=0.03, atol=0)


def test_resume_continues_bit_by_bit(source: Path, tmp_path: Path) -> None:
    photographs, held_out = read_sets([source], SMALL)

    def train(folder: Path, iterations: int, resume: bool = False) -> dict[str, torch.Tensor]:
        config = SMALL.model_copy(update={"iterations": iterations, "schedule": "constant", "colour": 0.3})
        train_warp(small_model(), photographs, held_out, config, QUIET, folder, resume=resume)
        state: dict[str, torch.Tensor] = torch.load(folder / LAST, weights_only=True)["model"]
        return state

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "cut", 2)
    resumed = train(tmp_path / "cut", 4, resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_command_trains_with_all_losses_and_keeps_the_encoder(source: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = GeoWarp(ModelConfig(regression=False))
    save_model(start, tmp_path / "encoder.safetensors")
    arguments = ["train", "warp", str(source), "--model", str(tmp_path / "encoder.safetensors")]
    arguments += ["--output", str(tmp_path / "out"), "--iterations", "2", "--batch-generated", "2"]
    arguments += ["--batch-pairs", "2", "--height", "96", "--width", "96", "--validate-every", "2"]
    assert main([*arguments, "--optimizer", "adamw", "--learning-rate", "0.01", "--device", "cpu"]) == 0
    trained = load_model(tmp_path / "out" / BEST)
    assert trained.regression is not None
    for key, tensor in start.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[key]), f"{key} is the encoder's: frozen, in eval mode"
    assert trained.regression.linear.weight.abs().max() > 0
    assert float(read_header(tmp_path / "out" / BEST)["corner_error"]) > 0
    record = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert record["settings"]["warp"]["lambda_fw"] == 10
    assert main([*arguments, "--device", "cpu"]) == 1, "the folder is in use"


def test_pairs_are_mined_and_warps_trained_on_a_transformer(source: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(encoder="dinov2_vits14", depth=1, aggregation="salad", resolution=126)
    photographs, held_out = read_sets([source], SMALL)
    changes = {"lambda_cons": 0.1, "t_feat": 1e9, "batch_pairs": 2, "iterations": 1, "height": 126, "width": 126}
    training = SMALL.model_copy(update=changes)
    error = train_warp(GeoWarp(config), photographs, held_out, training, QUIET, tmp_path / "out")
    assert 0 < error < 1
    trained = load_model(tmp_path / "out" / BEST)
    assert trained.config == config and regression_of(trained).linear.weight.abs().max() > 0


def small_resnet() -> GeoWarp:
    torch.manual_seed(0)
    return GeoWarp(ModelConfig())


def test_pairs_are_mined_between_queries_and_gallery(source: Path) -> None:
    photographs, _ = read_sets([source], SMALL)
    pairs = mine(
        small_model_with_descriptors(), photographs, SMALL.model_copy(update={"t_geo_m": 9, "t_feat": 1e9})
    )
    names = [(photographs.names[q], photographs.names[g]) for q, g in pairs]
    assert ("03.png", "02.png") in names
    assert all(int(q[:2]) % 4 == 3 for q, _ in names)
    assert all(abs(int(q[:2]) - int(g[:2])) == 1 for q, g in names), "8 m apart, and no farther than 9 m"


def small_model_with_descriptors() -> GeoWarp:
    model = small_model()
    model.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, model.descriptor_dim))
    return model


def test_held_out_photographs_are_not_trained_on(source: Path) -> None:
    kept, held_out = read_sets([source], SMALL.model_copy(update={"hold_out": ("1?.png",)}))
    assert set(held_out.names) == {f"{i:02d}.png" for i in range(10, 20)}
    assert not set(kept.names) & set(held_out.names)
    kept, held_out = read_sets([source], SMALL)
    assert len(kept) + len(held_out) == 24
    near = SMALL.model_copy(update={"hold_out": ("0.25",), "t_geo_m": 5.0})  # squares of 20 m along 192 m
    kept, held_out = read_sets([source], near, seed=1)
    assert len(held_out) >= 6 and not set(kept.names) & set(held_out.names)
    apart = np.linalg.norm(kept.positions_m[:, None] - held_out.positions_m[None], axis=2)
    assert apart.min() >= 5.0
    with pytest.raises(TrainingError, match="0 are held out"):
        read_sets([source], SMALL.model_copy(update={"hold_out": ("nothing*",)}))


def test_unreadable_photographs_are_counted_and_replaced(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for index in range(24):
        data = (source / f"{index:02d}.png").read_bytes()
        (broken / f"{index:02d}.png").write_bytes(data[:500] if index % 6 == 0 else data)
    (broken / "positions.csv").write_text((source / "positions.csv").read_text())
    photographs, held_out = read_sets([broken], SMALL)
    error = train_warp(small_model(), photographs, held_out, SMALL, QUIET, tmp_path / "out")
    assert 0 < error < 1
    assert photographs.unreadable


def test_mistakes_are_refused_before_training(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs, held_out = read_sets([source], SMALL)
    few = Photographs(photographs.images[:1], common_frame(photographs.images))
    with pytest.raises(TrainingError, match="1 photographs are fewer than a batch of 2"):
        train_warp(small_model(), few, held_out, SMALL, QUIET, tmp_path / "out")
    with pytest.raises(ModelError, match="no warping regression"):
        train_warp(GeoWarp(ModelConfig(regression=False)), photographs, held_out, SMALL, QUIET, tmp_path / "out")
    monkeypatch.setattr(inference, "cpu_has_bfloat16", lambda: False)
    emulated = QUIET.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(ConfigError, match=r"^precision = 'bfloat16': this CPU has no such instructions"):
        train_warp(small_model(), photographs, held_out, SMALL, emulated, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fresh_regression_replaces_a_trained_one() -> None:
    model = small_resnet()
    torch.nn.init.ones_(regression_of(model).linear.weight)
    assert regression_of(with_regression(model)).linear.weight.min() == 1
    assert regression_of(with_regression(model, fresh=True)).linear.weight.abs().max() == 0
    assert with_regression(GeoWarp(ModelConfig(regression=False))).config.regression


def test_cosine_rises_then_falls_to_nothing() -> None:
    config = WarpConfig(iterations=1000, learning_rate=1.0, schedule="cosine")
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 20)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[500] == pytest.approx(0.5)
    assert rates[-1] < 1e-5
    assert learning_rate(WarpConfig(), 49_999) == 1e-4


def test_mining_leaves_the_regression_in_train_mode(source: Path, tmp_path: Path) -> None:
    photographs, held_out = read_sets([source], SMALL)
    model = small_model_with_descriptors()
    norm: Any = regression_of(model).conv[1]
    before = norm.running_mean.clone()
    config = SMALL.model_copy(update={"lambda_cons": 0.1, "t_feat": 1e9, "batch_pairs": 2, "iterations": 1})
    train_warp(model, photographs, held_out, config, QUIET, tmp_path / "out")
    assert not torch.equal(norm.running_mean, before), "batch norms follow the data"


PUBLISHED: dict[str, dict[str, Any]] = {
    "stride 32, as CosPlace": {"encoder": "resnet18_layer4", "aggregation": "gem_linear", "dimension": 64},
    "stride 14, squares, as SALAD": {
        "encoder": "dinov2_vits14", "depth": 1, "aggregation": "salad", "resolution": 140, "square": True,
    },
    "a network each": {
        "encoder": "mobilenet_v2", "aggregation": "gem", "projection": 8,
        "retrieval": {"encoder": "dinov2_vits14_reg", "depth": 1, "resolution": 56},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_warp_is_trained_on_a_model_by_its_name_and_its_gallery_takes_it_over(
    kind: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With all losses, by the command: descriptors and local features stay to the bit, and so does the gallery."""
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path))
    torch.manual_seed(0)
    model = GeoWarp(ModelConfig.model_validate({**PUBLISHED[kind], "regression": False})).eval()
    save_model(model, tmp_path / "published.safetensors")
    gallery = tmp_path / "gallery"
    assert main(["gallery", "build", str(source), "--model", "published", "--output", str(gallery)]) == 0
    training = ["train", "warp", str(source), "--model", "published", "--output", str(tmp_path / "out")]
    training += ["--iterations", "2", "--batch-generated", "2", "--batch-pairs", "2", "--validate-every", "2"]
    training += ["--height", "96", "--optimizer", "adamw", "--learning-rate", "0.01", "--device", "cpu"]
    assert main([*training, "--t-feat", "1e9"]) == 0
    warped = load_model(tmp_path / "out" / BEST)
    assert regression_of(warped).linear.weight.abs().max() > 0
    image = clouds(1)[0]
    before, after = (Describer(each, "cpu")(image) for each in (load_model("published"), warped))
    np.testing.assert_array_equal(after.descriptor, before.descriptor)
    assert torch.equal(after.local_features, before.local_features)
    capsys.readouterr()
    assert main(["gallery", "upgrade", str(gallery), "--model", str(tmp_path / "out" / BEST)]) == 0
    assert "and has a warp: none described anew" in capsys.readouterr().out
    question = ["localize", str(source / "03.png"), "--gallery", str(gallery), "--set", "rerank.mode=exact"]
    assert main([*question, "--model", str(tmp_path / "out" / BEST)]) in (0, 1)
    assert "03.png" in capsys.readouterr().out


def test_sizes_that_are_not_given_are_the_models() -> None:
    def sizes(config: WarpConfig, resolution: int) -> tuple[int, int, int]:
        config = config.sized_for(resolution)
        return config.height, config.width, config.resolution

    assert sizes(WarpConfig(), 0) == (480, 640, 0), "the paper's"
    assert sizes(WarpConfig(), 240) == (240, 320, 240)
    assert sizes(WarpConfig(height=192, resolution=320), 240) == (192, 256, 320)
    assert sizes(WarpConfig(height=96, width=96), 0) == (96, 96, 0)
    with pytest.raises(TrainingError, match=r"training images of 64×48 px: expected 64 px a side or more"):
        WarpConfig(height=48).sized_for(0)


def test_generated_pairs_need_no_positions(source: Path, tmp_path: Path) -> None:
    for file in source.glob("*.png"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept, held_out = read_sets([tmp_path], SMALL)
    assert len(kept) + len(held_out) == 24
    with pytest.raises(SourceError, match="no usable image"):
        read_sets([tmp_path], SMALL.model_copy(update={"lambda_cons": 0.1}))
