"""The encoder alone: memory layout, fusing, precision, images a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.benchmark.scene import Size, make_model
from geowarp_ros.lab.benchmark.timing import CPU, WALL, Clock, Times, Work, take_turns
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.inference import Precision, for_inference
from geowarp_ros.progress import Progress, silent

PLAIN = "as trained, planar"
"""Layer by layer, colours in planes: how the published code runs it."""

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")


def measure_encoders(
    encoders: Sequence[EncoderName],
    sizes: Sequence[Size],
    batches: Sequence[int],
    rounds: int,
    weights: str = "",
    progress: Progress = silent,
    clock: Clock = WALL,
    device: torch.device = CPU,
) -> list[Times]:
    """Time one pass of each encoder at each size and number of images."""
    found = []
    for encoder in encoders:
        model, about = make_model(encoder, weights)
        model = model.to(device)
        networks: dict[str, Callable[[Tensor], Tensor]] = {
            PLAIN: model.encoder,
            "as trained, channels last": model.feature_map,
        }
        for precision in _PRECISIONS:
            try:
                networks[f"fused, {precision}"] = for_inference(model, device, precision).feature_map
            except ConfigError:
                continue  # this device has no such arithmetic
        for size in sizes:
            for batch in batches:
                generator = torch.Generator().manual_seed(0)
                images = torch.randn(batch, 3, size.height, size.width, generator=generator).to(device)
                title = f"{encoder}, {size}, {batch} an encoder pass, {device} ({about})"
                contestants = {name: _pass(network, images) for name, network in networks.items()}
                found.append(take_turns(title, contestants, PLAIN, rounds, clock, progress, device))
    return found


def _pass(network: Callable[[Tensor], Tensor], images: Tensor) -> Work:
    @torch.inference_mode()
    def work() -> Tensor:
        return network(images)

    return work
