"""Training steps of retrieval and warp, over the encoder's forward and backward pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from geowarp_ros.lab.benchmark.scene import make_model, write_pictures
from geowarp_ros.lab.benchmark.timing import Bench, Times
from geowarp_ros.lab.training.data import Augmentation, Photographs, common_frame
from geowarp_ros.lab.training.descriptor_losses import triplet_loss
from geowarp_ros.lab.training.objective import WarpLosses, regression_of
from geowarp_ros.lab.training.retrieval import train_mode
from geowarp_ros.lab.training.session import PRECISIONS
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp

ENCODER = "encoder there and back"
READ = "read and decode, one thread"
AUGMENT = "augment"
RETRIEVAL = "retrieval step"
GENERATED = "warp step, generated pairs"
PAIRS = "warp step, query-positive pairs"


def measure_training(encoder: EncoderName, size: Size, bench: Bench, batch: int = 16) -> Times:
    """Time the steps of each training with ``batch`` images, over the encoder's forward and backward pass.

    Retrieval: augmentation, encoder, aggregation, triplet loss, backward. Warp: L_ss on generated pairs (eq. 13),
    and L_fw and L_cons on ``batch`` query-positive pairs (eq. 17-19), each backward to R. Reading is timed
    separately because trainings read in background threads.

    Args:
        encoder: Encoder name.
        size: Image size.
        bench: Rounds, weights, autocast precision and device; pixels are copied to it in each step.
        batch: Images per step, a multiple of 4.
    """
    device = bench.device
    model, about = make_model(encoder, bench.weights)
    model = model.to(device)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, PRECISIONS[bench.precision], enabled=bench.precision != "float32")

    losses = WarpLosses(model, autocast=autocast)
    with tempfile.TemporaryDirectory() as name:
        found = write_pictures(Path(name), size, batch).images
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
            described(images).sum().backward()

        def retrieval() -> None:
            query, positive, *negatives = described(augment(pixels.to(device), generator)).chunk(4)
            triplet_loss(query, positive, torch.stack(negatives, dim=1)).backward()

        def generated() -> None:
            with torch.random.fork_rng(devices=[]):
                losses.generated(pixels.to(device), generator).backward()

        def pairs() -> None:
            torch.stack(losses.pairs(images, images.flip(0))).sum().backward()

        contestants = {
            ENCODER: there_and_back,
            READ: lambda: photographs.batch(np.arange(batch), size.height, size.width),
            AUGMENT: lambda: augment(pixels.to(device), generator),
            RETRIEVAL: retrieval,
            GENERATED: lambda: _frozen(model, generated),
            PAIRS: lambda: _frozen(model, pairs),
        }
        title = f"{batch} images, {encoder}, {size}, {bench.precision}, {device} ({about})"
        return bench.compare(title, contestants, ENCODER)


def _frozen(model: GeoWarp, step: Callable[[], None]) -> None:
    """Run a warp training step with everything but R frozen and in eval mode."""
    model.eval().requires_grad_(False)
    regression_of(model).train().requires_grad_(True)
    step()
    model.requires_grad_(True)
