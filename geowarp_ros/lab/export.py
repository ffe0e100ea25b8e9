"""The network for other runtimes: two ONNX graphs, for ONNX Runtime, TensorRT and what else reads them.

``features.onnx`` is encoder, aggregation and local features in one (retrieval, matching and score share the pass);
``regression.onnx`` goes from two sets of local features to both quads. The warp between them is
:func:`geowarp_ros.geometry.warp`, which every runtime has of its own or a few lines replace.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geowarp_ros.errors import ModelError
from geowarp_ros.model import GRID
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.geowarp import GeoWarp

FEATURES, REGRESSION = "features.onnx", "regression.onnx"

OPSET = 18
"""What the exporter writes without converting; TensorRT 8.6 and ONNX Runtime 1.14 read it."""


class _Describe(nn.Module):
    def __init__(self, model: GeoWarp) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.describe(images)


class _Regress(nn.Module):
    def __init__(self, model: GeoWarp) -> None:
        super().__init__()
        self.model = model

    def forward(self, f_q: Tensor, f_p: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.regress(f_q, f_p)


def export_onnx(model: GeoWarp, folder: Path, height: int, width: int) -> list[Path]:
    """Write the graphs of ``model``; their first dimension, the number of images or pairs, is free.

    Args:
        model: Exported in float32, as it answers in eval mode.
        folder: Made where it is not there.
        height: Height of the graph's input, px; fixed, since the 15×15 pooling depends on it.
        width: Likewise.

    Returns:
        The files: ``features.onnx`` (images (B, 3, H, W), ImageNet-normalised -> descriptor (B, D), local_features
        (B, C, 15, 15)) and, of a model with a regression, ``regression.onnx`` (f_q, f_p (P, C, 15, 15) -> quad_q,
        quad_p (P, 4, 2)).

    Raises:
        ModelError: The packages that write ONNX are absent, or the folder cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401 - with which torch writes
    except ImportError as error:
        raise ModelError(f"writing ONNX needs {error.name}: pip install 'geowarp_ros[export]'") from None
    model = model.to("cpu").eval()
    about = {
        "geowarp_fingerprint": fingerprint(model),
        "geowarp_config": json.dumps(model.config.model_dump(), sort_keys=True),
    }
    images = torch.zeros(2, 3, height, width)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = ["descriptor", "local_features"]
        written = [_write(_Describe(model), (images,), ["images"], names, folder / FEATURES, about)]
        if model.regression is not None:
            pair = (torch.zeros(2, model.channels, GRID, GRID), torch.zeros(2, model.channels, GRID, GRID))
            graph = _Regress(model)
            written.append(_write(graph, pair, ["f_q", "f_p"], ["quad_q", "quad_p"], folder / REGRESSION, about))
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from None
    return written


def _write(
    graph: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
    about: dict[str, str],
) -> Path:
    free = torch.export.Dim("batch", min=1)
    chatty = logging.getLogger("torch.onnx")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        program: Any = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamic_shapes=tuple({0: free} for _ in examples),
            verbose=False,
        )
    finally:
        chatty.setLevel(level)
    program.model.metadata_props.update(about)
    program.save(path, external_data=False)
    return path
