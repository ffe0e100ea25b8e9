"""The network optimised for inference: the same function in fewer and cheaper steps.

Batch norms are folded into the preceding convolutions, activations and residual sums are fused into the
convolutions, and weights are stored in the layout that the kernels read. This is a copy: training, saving and
fingerprinting use the :class:`~geowarp_ros.model.geowarp.GeoWarp` itself.
"""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from geowarp_ros.errors import ConfigError
from geowarp_ros.model.encoders import BasicBlock, Bottleneck, InvertedResidual
from geowarp_ros.model.geowarp import GeoWarp

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "hardtanh"}
"""Activations that are done where the convolution writes, by oneDNN's names."""

_X86 = ("x86_64", "AMD64")
"""Names of this architecture by :func:`platform.machine`."""


def for_inference(model: GeoWarp, device: torch.device | str, precision: Precision = "float32") -> GeoWarp:
    """Return a copy of ``model`` for inference only: faster, equal up to rounding (1e-5 in float32).

    Later changes of ``model`` do not reach the copy.

    Args:
        model: Left as it is.
        device: Where the copy computes.
        precision: Precision of the encoder; aggregation, matching and regression stay in float32.

    Raises:
        ConfigError: This device has no arithmetic of that precision.
    """
    device = torch.device(device)
    check_precision(device, precision)
    answering = copy.deepcopy(model).to(device).eval().requires_grad_(False)
    answering.encoder = Fused(answering.encoder, device, _DTYPES[precision])
    if answering.regression is not None:
        linear = answering.regression.linear
        answering.regression.conv = Fused(answering.regression.conv, device, linear.weight.dtype)
    return answering


def check_precision(device: torch.device, precision: Precision) -> None:
    """Refuse a precision that the device does not compute in.

    Raises:
        ConfigError: Naming both.
    """
    if precision == "float16" and device.type != "cuda":
        raise ConfigError(f"precision = 'float16': needs CUDA and the device is {device}; expected float32")
    if precision == "bfloat16" and device.type == "cpu" and not cpu_has_bfloat16():
        raise ConfigError("precision = 'bfloat16': this CPU has no such instructions; expected float32")


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions; without, oneDNN emulates it 3 to 35 times slower than float32.

    Limits set by ONEDNN_MAX_CPU_ISA count: what oneDNN may not use, the CPU does not have.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or not supported():
        return False
    # torch says yes to every x86 CPU with AVX-512, of which those before Cooper Lake and Zen 4 lack bfloat16
    extension = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if platform.machine() not in _X86 or extension is None:
        return True
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    return bool(extension()) and limit.upper() not in ("AVX512_CORE", "AVX512_CORE_VNNI")


def _onednn_fuses(device: torch.device) -> bool:
    """Whether oneDNN's convolutions with post-operations are there: what torch.compile emits on x86."""
    return (
        device.type == "cpu"
        and platform.machine() in _X86
        and bool(torch.backends.mkldnn.is_available())
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    )


class Fused(nn.Sequential):
    """A sequence of convolutions, batch norms, ReLUs, poolings and residual blocks, fused.

    Args:
        layers: In eval mode.
        device: Where they are.
        dtype: Type of the arithmetic; input and output keep the input's.
    """

    def __init__(self, layers: nn.Sequential, device: torch.device, dtype: torch.dtype) -> None:
        onednn = _onednn_fuses(device) and dtype != torch.float64  # which oneDNN does not compute in
        super().__init__(*_fuse(list(_flat(layers)), onednn, dtype))
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """As the layers: (B, in, H, W) -> (B, out, h, w)."""
        y = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        for layer in self:
            y = layer(y)
        return y.to(x.dtype)


class Convolution(nn.Module):
    """A convolution, its batch norm folded in, and the activation behind it: none, relu, or hardtanh (0..6)."""

    def __init__(
        self, convolution: nn.Conv2d, norm: nn.BatchNorm2d | None, act: str, onednn: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        weight, bias = convolution.weight, convolution.bias
        if norm is not None and norm.running_mean is not None and norm.running_var is not None:
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        self.weight = nn.Parameter(_laid_out(weight, dtype), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False)
        # padding by name ("same") is none of the encoders'
        self._geometry: tuple[Any, ...] = (
            [int(side) for side in convolution.padding],
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self._act = act
        self._onednn = onednn

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w). A ``shortcut`` is added before the activation, and overwritten."""
        if not self._onednn:
            padding, stride, dilation, groups = self._geometry
            y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            y = y if shortcut is None else y.add_(shortcut)
            if self._act == "none":
                return y
            return y.relu_() if self._act == "relu" else y.clamp_(0, 6)
        ops: Any = torch.ops.mkldnn
        given = (self.weight, self.bias, *self._geometry)
        limits = [0.0, 6.0] if self._act == "hardtanh" else []
        fused: Tensor = (
            ops._convolution_pointwise(x, *given, self._act, limits, "")
            if shortcut is None
            else ops._convolution_pointwise_(
                shortcut, x, *given, "add", 1.0, None if self._act == "none" else self._act, [], ""
            )
        )
        return fused


class Residual(nn.Module):
    """A residual block: the last convolution adds the shortcut and, but for MobileNetV2, ends with the ReLU."""

    def __init__(
        self, block: BasicBlock | Bottleneck | InvertedResidual, onednn: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if isinstance(block, InvertedResidual):
            *first, last = _fuse(list(_flat(block.conv)), onednn, dtype)
            self.first, self.last = nn.Sequential(*first), last
            return
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        self.first = nn.Sequential(*(Convolution(c, n, "relu", onednn, dtype) for c, n in pairs[:-1]))
        self.last = Convolution(*pairs[-1], "relu", onednn, dtype)
        if block.downsample is not None:
            self.downsample = nn.Sequential(*_fuse(list(block.downsample), onednn, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w); ``x`` may be overwritten."""
        shortcut, y = self.downsample(x), self.first(x)
        result: Tensor = self.last(y, shortcut)
        return result


def _flat(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Sequential):
            yield from _flat(layer)
        else:
            yield layer


def _fuse(layers: list[nn.Module], onednn: bool, dtype: torch.dtype) -> Iterator[nn.Module]:
    """Yield the layers with each convolution, the batch norm and the activation behind it as one."""
    while layers:
        layer = layers.pop(0)
        if isinstance(layer, InvertedResidual) and not layer.adds:
            yield from _fuse(list(_flat(layer.conv)), onednn, dtype)
        elif isinstance(layer, BasicBlock | Bottleneck | InvertedResidual):
            yield Residual(layer, onednn, dtype)
        elif isinstance(layer, nn.Conv2d):
            norm = layers.pop(0) if layers and isinstance(layers[0], nn.BatchNorm2d) else None
            act = _ACTIVATIONS.get(type(layers[0]), "none") if layers else "none"
            if act != "none":
                layers.pop(0)
            yield Convolution(layer, norm, act, onednn, dtype)  # type: ignore[arg-type]
        else:
            yield layer


def _laid_out(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
