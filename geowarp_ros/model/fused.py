"""A network's layers, fused: fewer and cheaper steps that compute the same.

Batch norms are folded into the preceding convolutions, activations and residual sums are fused into the
convolutions, and weights are stored in the layout that the kernels read.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from geowarp_ros.model.encoders import BasicBlock, Bottleneck, InvertedResidual

X86 = ("x86_64", "AMD64")
"""Names of this architecture by :func:`platform.machine`."""

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "hardtanh"}
"""Activations that are done where the convolution writes, by oneDNN's names."""


def _onednn_fuses(device: torch.device) -> bool:
    """Whether oneDNN's convolutions with post-operations are there: what torch.compile emits on x86."""
    return (
        device.type == "cpu"
        and platform.machine() in X86
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
        self.geometry: tuple[Any, ...] = (
            [int(side) for side in convolution.padding],
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self.act = act
        self._onednn = onednn

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w). A ``shortcut`` is added before the activation, and overwritten."""
        if not self._onednn:
            padding, stride, dilation, groups = self.geometry
            y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            y = y if shortcut is None else y.add_(shortcut)
            if self.act == "none":
                return y
            return y.relu_() if self.act == "relu" else y.clamp_(0, 6)
        ops: Any = torch.ops.mkldnn
        given = (self.weight, self.bias, *self.geometry)
        limits = [0.0, 6.0] if self.act == "hardtanh" else []
        fused: Tensor = (
            ops._convolution_pointwise(x, *given, self.act, limits, "")
            if shortcut is None
            else ops._convolution_pointwise_(
                shortcut, x, *given, "add", 1.0, None if self.act == "none" else self.act, [], ""
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
        self.last: Convolution
        if isinstance(block, InvertedResidual):
            *first, last = _fuse(list(_flat(block.conv)), onednn, dtype)
            assert isinstance(last, Convolution)
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
            yield layer.to(dtype)  # one of another kind computes as it is


def _laid_out(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
