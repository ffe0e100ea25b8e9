from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from geowarp_ros.errors import ConfigError, TrainingError
from geowarp_ros.lab.training.parameters import SessionConfig
from geowarp_ros.lab.training.session import BEST, LAST, SETTINGS, Session
from geowarp_ros.model import inference
from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig

CONFIG = SessionConfig(save_every=3, log_every=2, tensorboard=False, seed=7)


def small_model(aggregation: AggregationName = "gem") -> GeoWarp:
    torch.manual_seed(0)
    return GeoWarp(ModelConfig(encoder="resnet18", aggregation=aggregation, regression=True))


def exponent(model: GeoWarp) -> torch.nn.Parameter:
    """GeM's p."""
    pool: Any = model.pool
    assert isinstance(pool[1].p, torch.nn.Parameter)
    return pool[1].p


def train_regression(output: Path, total: int, *, resume: bool = False, die_at: int | None = None) -> Session:
    """Steps that draw from every source of randomness a training has."""
    model = small_model()
    assert model.regression is not None
    optimizer = torch.optim.SGD(model.regression.parameters(), lr=0.1, momentum=0.9)
    session = Session(model, optimizer, CONFIG, output, {"lr": 0.1})
    session.start(resume)
    for step in session.steps(total):
        if step == die_at:
            raise KeyboardInterrupt
        correlation = torch.rand(2, 225, 15, 15, generator=session.generator("data"))
        noise = torch.randn(2, 8, 2) * float(session.rng("scale").random())
        loss = (model.regression(correlation) - noise).square().mean()
        session.memory["seen"] = torch.cat([session.memory.get("seen", torch.zeros(0)), noise[0, 0, :1]])
        session.apply(loss, [f"image {step}"])
    session.finish()
    return session


def state(session: Session) -> dict[str, Tensor]:
    momenta = session.optimizer.state_dict()["state"]
    buffers = {f"momentum {key}": value["momentum_buffer"] for key, value in momenta.items()}
    return {**session.model.state_dict(), **buffers, **session.memory}


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = state(train_regression(tmp_path / "whole", 6))
    with pytest.raises(KeyboardInterrupt):  # two steps after the last checkpoint: they are done again
        train_regression(tmp_path / "killed", 6, die_at=5)
    resumed = train_regression(tmp_path / "killed", 6, resume=True)
    assert resumed.step == 6
    resumed_state = state(resumed)
    assert whole.keys() == resumed_state.keys()
    assert len(resumed_state["seen"]) == 6
    for key, value in whole.items():
        assert torch.equal(value, resumed_state[key]), key


def test_settings_commit_and_seed_are_written_beside(tmp_path: Path) -> None:
    train_regression(tmp_path, 1)
    record = json.loads((tmp_path / SETTINGS).read_text())
    assert record["settings"] == {"lr": 0.1}
    assert record["seed"] == 7
    assert record["commit"]


def test_a_finished_training_is_not_overwritten(tmp_path: Path) -> None:
    train_regression(tmp_path, 1)
    with pytest.raises(TrainingError, match="holds a training already"):
        train_regression(tmp_path, 1)
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_regression(tmp_path / "elsewhere", 1, resume=True)


def test_a_nan_is_refused_with_the_batch_named(tmp_path: Path) -> None:
    model = small_model()
    session = Session(model, torch.optim.SGD(model.parameters(), lr=1.0), CONFIG, tmp_path, {})
    before = exponent(model).clone()
    with pytest.raises(TrainingError, match=r"step 0: the loss is nan; the batch was: a\.jpg, b\.jpg"):
        session.apply(before.sum() * math.nan, ["a.jpg", "b.jpg"])
    p = exponent(model)
    with pytest.raises(
        TrainingError, match="gradient is nan"
    ):  # finite loss, root of zero: infinite slope times 0
        session.apply(((p - p.detach()).abs().sqrt() * 0).sum(), ["a.jpg"])
    assert torch.equal(p, before)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    model = small_model()
    parameter = exponent(model)
    config = CONFIG.model_copy(update={"clip_norm": 0.25})
    session = Session(model, torch.optim.SGD([parameter], lr=1.0), config, tmp_path, {})
    session.apply(100 * parameter.sum(), [])
    assert float(parameter.detach()) == pytest.approx(3.0 - 0.25, rel=1e-5)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = train_regression(tmp_path, 3)
    before = (tmp_path / LAST).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"last\.pt: cannot be written: No space left"):
        session.save()
    assert (tmp_path / LAST).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, SETTINGS]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train_regression(tmp_path, 1)
    other = small_model("netvlad")
    session = Session(other, torch.optim.SGD(other.parameters(), lr=1.0), CONFIG, tmp_path, {})
    with pytest.raises(TrainingError, match="netvlad"):
        session.start(resume=True)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    train_regression(tmp_path, 1)
    last = tmp_path / LAST
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(TrainingError, match=r"last\.pt: is no checkpoint"):
        train_regression(tmp_path, 2, resume=True)


def test_the_best_score_is_kept_as_a_model(tmp_path: Path) -> None:
    model = small_model()
    session = Session(model, torch.optim.SGD(model.parameters(), lr=1.0), CONFIG, tmp_path, {})
    session.start()
    assert session.save_best(40.0, {"note": "hand-made"})
    with torch.no_grad():
        exponent(model).fill_(1.0)
    assert not session.save_best(30.0)
    assert not session.save_best(40.0)
    assert (session.best, session.stale) == (40.0, 2)
    assert float(exponent(load_model(tmp_path / BEST)).detach()) == 3.0


@pytest.mark.parametrize(
    ("precision", "said"), [("float16", "needs CUDA"), ("bfloat16", "this CPU has no such instructions")]
)
def test_a_precision_that_the_cpu_lacks_is_refused(
    precision: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "cpu_has_bfloat16", lambda: False)
    model = small_model()
    config = CONFIG.model_copy(update={"precision": precision})
    with pytest.raises(ConfigError, match=f"^precision = '{precision}': {said}.*; expected float32$"):
        Session(model, torch.optim.SGD(model.parameters(), lr=1.0), config, tmp_path, {})


def test_event_files_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = small_model()
    config = CONFIG.model_copy(update={"tensorboard": True})
    session = Session(model, torch.optim.SGD(model.pool.parameters(), lr=0.0), config, tmp_path, {})
    session.start()
    for _ in session.steps(2):
        session.apply(exponent(model).sum(), ["a", "b"])
    session.log("recall", 12.5)
    session.finish()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("recall")] == [12.5]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(2, 3.0)]
