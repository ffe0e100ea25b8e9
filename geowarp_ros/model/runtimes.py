"""Layers in ONNX Runtime instead of torch, on a CPU.

The graph is written from the fused layers when the model is loaded. That takes ten or twenty milliseconds, so that
nothing is cached and no other exporter is needed.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geowarp_ros.errors import ConfigError, ModelError
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.fused import Convolution, Residual
from geowarp_ros.model.vit import is_transformer

Runtime: TypeAlias = Literal["auto", "torch", "onnxruntime"]

FAST = "pip install 'geowarp_ros[fast]'"

_OPSET, _IR_VERSION = 13, 7
"""Enough for these layers; ONNX Runtime 1.8 and later read them."""

_log = logging.getLogger(__name__)


def faster_in_onnxruntime(encoder: EncoderName) -> bool:
    """Whether one pass of this encoder takes less time there than in torch, fused.

    Measured by ``geowarp benchmark --parts encoders`` (docs/performance.md): MobileNetV2 everywhere, the others
    where torch's kernels are AVX-512's. The regression is not faster anywhere.
    """
    if is_transformer(encoder):
        return False  # it does not compute them
    return encoder == "mobilenet_v2" or torch.backends.cpu.get_cpu_capability() == "AVX512"


def in_runtime(layers: nn.Sequential, runtime: Runtime, faster: bool) -> nn.Sequential:
    """Return fused layers as the runtime computes them.

    Args:
        layers: On a CPU, float32.
        runtime: auto: ONNX Runtime where it is ``faster``, installed and takes the layers.
        faster: Whether it is faster for these layers.

    Raises:
        ModelError: ``onnxruntime`` is asked for and not installed, or does not take the layers.
    """
    if runtime == "torch" or (runtime == "auto" and not faster):
        return layers
    try:
        return OnnxLayers(layers)
    except ModuleNotFoundError as error:
        level, problem = logging.INFO, f"needs {error.name}, which is not installed: {FAST}"
    except Exception as error:  # its own are of no common class
        level, problem = logging.WARNING, f"cannot compute this network: {' '.join(str(error).split())}"
    if runtime == "onnxruntime":
        raise ModelError(f"runtime = 'onnxruntime': {problem}; expected auto or torch here")
    _log.log(level, "runtime: torch; ONNX Runtime would be faster, but %s", problem)
    return layers


def check_runtime(runtime: Runtime, device: torch.device, precision: str) -> None:
    """Refuse ONNX Runtime where it does not compute.

    Raises:
        ConfigError: Naming the device or the precision.
    """
    if runtime == "onnxruntime" and device.type != "cpu":
        raise ConfigError(f"runtime = 'onnxruntime': computes on a CPU and the device is {device}; expected auto")
    if runtime == "onnxruntime" and precision != "float32":
        raise ConfigError(f"runtime = 'onnxruntime': computes in float32 and precision = {precision!r}")


class OnnxLayers(nn.Sequential):
    """Fused layers as a graph of ONNX Runtime; batch and size of its input are free.

    Images go through one at a time: eight in a pass take 1.0 (ResNet-18) to 1.4 times (MobileNetV2) as long.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        # its wheels report to their maker from 1.29 on, and read this once, when they are first used
        # (https://github.com/microsoft/onnxruntime/pull/27379)
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # idle threads sleep: torch's and OpenCV's need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(graph_of(layers), options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        """As the layers: (B, in, H, W) -> (B, out, h, w)."""
        given = x.contiguous().numpy()
        maps = [self._session.run(None, {"x": given[row : row + 1]})[0] for row in range(len(given))]
        return torch.from_numpy(maps[0] if len(maps) == 1 else np.concatenate(maps))


def graph_of(layers: nn.Sequential) -> bytes:
    """Return fused layers as an ONNX model from ``x`` (B, in, H, W) to ``y`` (B, out, h, w).

    Raises:
        TypeError: A layer of another kind than encoders and regression are made of.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    last = graph.layer(layers, "x")
    graph.nodes.append(helper.make_node("Identity", [last], ["y"]))
    given, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{side}" for side in range(4)])
        for name in ("x", "y")
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, "layers", [given], [found], graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes and constants of a graph that grows layer by layer."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def layer(self, layer: nn.Module, x: str) -> str:
        """Append a layer behind the value ``x``; returns the name of what it computes."""
        if isinstance(layer, Residual):
            return self._convolution(layer.last, self.layer(layer.first, x), self.layer(layer.downsample, x))
        if isinstance(layer, Convolution):
            return self._convolution(layer, x)
        if isinstance(layer, nn.Sequential):
            for each in layer:
                x = self.layer(each, x)
            return x
        if isinstance(layer, nn.Identity):
            return x
        if isinstance(layer, nn.ReLU):
            return self._node("Relu", x)
        if isinstance(layer, nn.MaxPool2d) and not layer.ceil_mode:
            kernel, stride, padding = (_pair(v) for v in (layer.kernel_size, layer.stride, layer.padding))
            return self._node("MaxPool", x, kernel_shape=kernel, strides=stride, pads=padding * 2)
        raise TypeError(f"no ONNX for {layer}")

    def _convolution(self, layer: Convolution, x: str, shortcut: str = "") -> str:
        padding, stride, dilation, groups = layer.geometry
        given = [x, self._constant(layer.weight), *([] if layer.bias is None else [self._constant(layer.bias)])]
        y = self._node("Conv", *given, pads=padding * 2, strides=stride, dilations=dilation, group=groups)
        y = self._node("Add", y, shortcut) if shortcut else y
        if layer.act == "none":
            return y
        if layer.act == "relu":
            return self._node("Relu", y)
        return self._node("Clip", y, self._constant(torch.tensor(0.0)), self._constant(torch.tensor(6.0)))

    def _node(self, kind: str, *given: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, given, [name], **attributes))
        return name

    def _constant(self, values: Tensor) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        array: NDArray[np.float32] = values.detach().float().contiguous().numpy()
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
