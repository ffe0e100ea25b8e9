"""Encoder passes: memory layout, fusion, precision and batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.benchmark.scene import make_model
from geowarp_ros.lab.benchmark.timing import Bench, Times
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.inference import Precision, for_inference

PLAIN = "as trained, planar"
"""Unfused, NCHW memory layout: as in the published code."""


def measure_encoder(name: EncoderName, sizes: Sequence[Size], batches: Sequence[int], bench: Bench) -> list[Times]:
    """Time one pass of an encoder, in each precision that the device knows, at each image size and batch size."""
    model, about = make_model(name, bench.weights)
    model = model.to(bench.device)
    networks: dict[str, Callable[[Tensor], Tensor]] = {
        PLAIN: model.encoder,
        "as trained, channels last": model.feature_map,
    }
    for precision in get_args(Precision):
        try:
            networks[f"fused, {precision}"] = for_inference(model, bench.device, precision).feature_map
        except ConfigError:
            continue  # not supported by this device
    found = []
    for size in sizes:
        for batch in batches:
            generator = torch.Generator().manual_seed(0)
            images = torch.randn(batch, 3, size.height, size.width, generator=generator).to(bench.device)
            title = f"{name}, {size}, {batch} an encoder pass, {bench.device} ({about})"
            with torch.inference_mode():
                contestants = {layout: partial(network, images) for layout, network in networks.items()}
                found.append(bench.compare(title, contestants, PLAIN))
    return found
