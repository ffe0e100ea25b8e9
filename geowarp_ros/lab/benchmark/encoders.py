"""Encoder passes and the regression: memory layout, fusion, precision, runtime and batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.lab.benchmark.scene import make_model
from geowarp_ros.lab.benchmark.timing import Bench, Times
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model import GRID
from geowarp_ros.model.aggregation import l2_norm
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.inference import Precision, for_inference
from geowarp_ros.model.runtimes import Runtime

PLAIN = "as trained, planar"
"""Unfused, NCHW memory layout: as in the published code."""
ONNX = "ONNX Runtime, float32"
FUSED = "fused, float32"


def measure_encoder(name: EncoderName, sizes: Sequence[Size], batches: Sequence[int], bench: Bench) -> list[Times]:
    """Time one pass of an encoder, in each precision and runtime of the device, at each image and batch size."""
    model, about = make_model(name, bench.weights)
    model = model.to(bench.device)
    networks: dict[str, Callable[[Tensor], Tensor]] = {
        PLAIN: model.encoder,
        "as trained, channels last": model.feature_map,
    }
    networks |= {name: network.feature_map for name, network in _answering(model, bench.device).items()}
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


def measure_regression(candidates: int, bench: Bench) -> Times:
    """Time the regression of ``candidates`` pairs, both orders in one batch, over torch's on a CPU."""
    networks = _answering(make_model("resnet18")[0], torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    f_q, f_p = (l2_norm(torch.randn(candidates, 256, GRID, GRID, generator=generator)) for _ in range(2))
    with torch.inference_mode():
        contestants = {
            name: partial(networks[name].regress, f_q, f_p) for name in (FUSED, ONNX) if name in networks
        }
        return bench.compare(f"regression of {candidates} pairs, cpu", contestants, FUSED)


def _answering(model: GeoWarp, device: torch.device) -> dict[str, GeoWarp]:
    """Return the copies for inference that this device and what is installed can compute."""
    kinds: dict[str, tuple[Precision, Runtime]] = {
        f"fused, {name}": (name, "torch") for name in get_args(Precision)
    }
    found = {}
    for title, (precision, runtime) in (kinds | {ONNX: ("float32", "onnxruntime")}).items():
        with suppress(ConfigError, ModelError):
            found[title] = for_inference(model, device, precision, runtime)
    return found
