"""Two processes that share every batch train what one process trains alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

from geowarp_ros.cli import main
from geowarp_ros.lab.training.parameters import RetrievalTraining
from geowarp_ros.lab.training.retrieval import starting_model, train_retrieval
from geowarp_ros.lab.training.session import LAST, seeded
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from test.lab.training.street import HEIGHT, WIDTH, write_lane
from test.model.weights import regression_of

PATIENCE_S = 240.0

RETRIEVAL = RetrievalTraining(
    height=HEIGHT, width=WIDTH, batch_size=2, queries_per_round=4, negatives=2, negative_pool=20, iterations=2,
    learning_rate=1e-4, batch_norm="frozen", tensorboard=False, tilt=0.1, zoom=0.2,
)  # fmt: skip


def scratch() -> GeoWarp:
    with seeded(0):
        return starting_model("scratch", ModelConfig(regression=False))


def train_warp(folder: Path, output: Path) -> None:
    words = (
        f"train warp {folder / 'street'} --model {folder / 'model.safetensors'} --output {output / 'warp'} "
        f"--split train --iterations 2 --seed 3 --batch-generated 2 --batch-pairs 2 --height {HEIGHT} "
        f"--width {WIDTH} --learning-rate 0.01 --device cpu --no-tensorboard"
    )
    assert main(words.split()) == 0


def train_encoder(folder: Path, output: Path) -> None:
    train_retrieval([folder / "street"], output / "retrieval", RETRIEVAL, scratch())


TRAININGS = (train_warp, train_encoder)


def one_of_two(rank: int, ports: Sequence[int], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for train, port in zip(TRAININGS, ports, strict=True):  # one each: the last group's may not be closed yet
        os.environ["MASTER_PORT"] = str(port)
        train(folder, folder / "two")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """Both trainings in one go: starting two processes takes longer than what they train."""
    folder = write_lane(tmp_path)
    with seeded(0):
        model = GeoWarp(ModelConfig())
        torch.nn.init.normal_(regression_of(model).linear.weight, std=1.0)
    save_model(model, folder / "model.safetensors")
    for train in TRAININGS:
        train(folder, folder / "one")
    workers = spawn(one_of_two, (free_ports(len(TRAININGS)), folder), nprocs=2, join=False)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not workers.join(timeout=1):  # raises what a worker raises
            assert time.monotonic() < deadline, "the two processes wait for one another"
    finally:
        for process in workers.processes:
            process.kill()

    for training, start, trained, atol in (
        ("retrieval", scratch(), "conv", 2e-5),
        ("warp", model, "regression.conv", 1e-5),
    ):
        one, two = (
            torch.load(folder / processes / training / LAST, weights_only=True)["model"]
            for processes in ("one", "two")
        )
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, atol=atol, rtol=1e-4, msg=f"{training}: {key}")
        weights = [key for key in one if trained in key and key.endswith("weight")]
        moved = min(float((one[key] - start.state_dict()[key]).abs().max()) for key in weights)
        assert moved > 2.5 * atol, f"{training}: more than the tolerance, so that agreement means something"
