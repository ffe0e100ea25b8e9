"""Where a training step's time goes, at one batch size: the parts of both trainings over the encoder's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from geowarp_ros.lab.benchmark.scene import Size, make_model, write_pictures
from geowarp_ros.lab.benchmark.timing import CPU, WALL, Clock, Times, take_turns
from geowarp_ros.lab.training.data import Augmentation, Photographs, common_frame
from geowarp_ros.lab.training.descriptor_losses import triplet_loss
from geowarp_ros.lab.training.objective import WarpLosses, regression_of
from geowarp_ros.lab.training.retrieval import train_mode
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import read_source

ENCODER = "encoder there and back"
READ = "read and decode, one thread"
AUGMENT = "augment"
RETRIEVAL = "retrieval step"
GENERATED = "warp step, generated pairs"
PAIRS = "warp step, query-positive pairs"


def measure_training(
    encoder: EncoderName,
    size: Size,
    rounds: int,
    *,
    batch: int = 16,
    weights: str = "",
    precision: torch.dtype = torch.float32,
    progress: Progress = silent,
    clock: Clock = WALL,
    device: torch.device = CPU,
) -> Times:
    """Time what a step of each training does with ``batch`` images, over the encoder's forward and backward pass.

    Retrieval: augmentation, encoder and aggregation, the triplet loss, backward. Warp: L_ss on generated pairs
    (eq. 13), and L_fw and L_cons on ``batch`` query-positive pairs (eq. 17-19), each backward to R. In a training
    images are read and decoded by several threads while a step runs.

    Args:
        encoder: Its name.
        size: Of the images.
        rounds: That count.
        batch: Images a step, a multiple of 4.
        weights: As :func:`make_model` takes them.
        precision: Of the networks: autocast.
        progress: Shows the rounds.
        clock: In seconds.
        device: Where the networks compute. Pixels are read into the host's memory and moved in each step, as
            the trainings do.
    """
    model, about = make_model(encoder, weights)
    model = model.to(device)
    regression_of(model)  # refuses a model without one

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, precision, enabled=precision is not torch.float32)

    losses = WarpLosses(model, autocast=autocast)
    with tempfile.TemporaryDirectory() as name:
        found = read_source(write_pictures(Path(name), size, batch)).images
        photographs = Photographs(found, common_frame(found), memory_mb=0)
        pixels, _ = photographs.batch(np.arange(batch), size.height, size.width)
        augment, generator = Augmentation(), torch.Generator().manual_seed(0)
        images = augment(pixels.to(device), generator)

        def described(these: torch.Tensor) -> torch.Tensor:
            train_mode(model, "trained")
            with autocast():
                feature_map = model.encoder(these)
            descriptors: torch.Tensor = model.pool(feature_map.float())
            return descriptors

        def there_and_back() -> None:
            described(images).sum().backward()  # type: ignore[no-untyped-call]

        def retrieval() -> None:
            query, positive, *negatives = described(augment(pixels.to(device), generator)).chunk(4)
            triplet_loss(query, positive, torch.stack(negatives, dim=1)).backward()  # type: ignore[no-untyped-call]

        def generated() -> None:
            with torch.random.fork_rng(devices=[]):
                losses.generated(pixels.to(device), generator).backward()  # type: ignore[no-untyped-call]

        def pairs() -> None:
            torch.stack(losses.pairs(images, images.flip(0))).sum().backward()  # type: ignore[no-untyped-call]

        contestants = {
            ENCODER: there_and_back,
            READ: lambda: photographs.batch(np.arange(batch), size.height, size.width),
            AUGMENT: lambda: augment(pixels.to(device), generator),
            RETRIEVAL: retrieval,
            GENERATED: lambda: _frozen(model, generated),
            PAIRS: lambda: _frozen(model, pairs),
        }
        title = f"{batch} images, {encoder}, {size}, {str(precision).removeprefix('torch.')}, {device} ({about})"
        return take_turns(title, contestants, ENCODER, rounds, clock, progress, device)


def _frozen(model: GeoWarp, step: Callable[[], None]) -> None:
    """Run a step of the warp's training: all but R is frozen and in eval mode."""
    model.eval().requires_grad_(False)
    regression_of(model).train().requires_grad_(True)
    step()
    model.requires_grad_(True)
