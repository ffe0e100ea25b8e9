"""Truncated ImageNet classifiers, with torchvision's key layout under ``encoder.N`` (paper sec. 3.1).

torchvision itself is no dependency: its wheel does not import beside a CPU-only torch, and robot boards seldom
have it. The numbers of the layers are torchvision's, so that its state dicts load.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from geowarp_ros.model.vit import SIZES, TransformerName, VisionTransformer, is_transformer

EncoderName: TypeAlias = Literal[
    "alexnet",
    "vgg16",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "resnet18_layer4",
    "resnet50_layer4",
    "resnet101_layer4",
    "resnet152_layer4",
    TransformerName,
]
"""Name of an encoder. ResNets end behind layer3, at stride 16, or by their name behind layer4, at stride 32."""

CHANNELS: dict[EncoderName, int] = {
    "alexnet": 256,
    "vgg16": 512,
    "resnet18": 256,
    "resnet50": 1024,
    "mobilenet_v2": 576,
    "resnet18_layer4": 512,
    "resnet50_layer4": 2048,
    "resnet101_layer4": 2048,
    "resnet152_layer4": 2048,
    **{name: size.channels for name, size in SIZES.items()},
}
"""C of each encoder's feature map."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2016, the blocks of ResNet-18)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, channels, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided), 1×1 convolutions and a shortcut (the blocks of ResNet-50, as torchvision has them)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, 4·channels, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, linear 1×1 convolution, shortcut (MobileNetV2, Sandler et al., CVPR 2018)."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.conv = nn.Sequential(
            *([_limited(in_channels, inner, 1)] if expansion > 1 else []),
            _limited(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.adds = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, channels, H/stride, W/stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


def _limited(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),  # conv5, without its ReLU
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    in_channels = 3
    for stage in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for channels in stage:
            layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
            in_channels = channels
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[:-2])  # ends at conv5_3, without its ReLU and pooling


def _resnet(block: type[BasicBlock] | type[Bottleneck], *depths: int) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    in_channels = 64
    for stage, depth in enumerate(depths):
        channels = 64 << stage
        blocks = []
        for index in range(depth):
            blocks.append(block(in_channels, channels, 2 if stage and not index else 1))
            in_channels = channels * getattr(block, "expansion", 1)
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers)


def _mobilenet_v2() -> nn.Sequential:
    layers: list[nn.Module] = [_limited(3, 32, 3, 2)]
    in_channels = 32
    # table 2 of Sandler et al., CVPR 2018: expansion, channels, depth, stride
    for expansion, channels, depth, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
    ):
        for index in range(depth):
            layers.append(InvertedResidual(in_channels, channels, 1 if index else stride, expansion))
            in_channels = channels
    # of the block that goes to stride 32 its expansion, under torchvision's name
    layers.append(nn.Sequential(OrderedDict(conv=nn.Sequential(_limited(96, 576, 1)))))
    return nn.Sequential(*layers)


def build_encoder(name: EncoderName, depth: int = 0) -> nn.Sequential:
    """Return encoder E, randomly initialised: (B, 3, H, W) -> (B, C, h, w), stride 16 or 32, of transformers 14.

    Convolutions start with He's normal initialisation, batch norms at the identity, as torchvision's do.

    Args:
        name: Which.
        depth: Number of blocks of a vision transformer; 0: all.

    Raises:
        KeyError: An unknown name (configurations check theirs before).
    """
    builders: dict[EncoderName, Callable[[], nn.Sequential]] = {
        "alexnet": _alexnet,
        "vgg16": _vgg16,
        "resnet18": lambda: _resnet(BasicBlock, 2, 2, 2),
        "resnet50": lambda: _resnet(Bottleneck, 3, 4, 6),
        "mobilenet_v2": _mobilenet_v2,
        "resnet18_layer4": lambda: _resnet(BasicBlock, 2, 2, 2, 2),
        "resnet50_layer4": lambda: _resnet(Bottleneck, 3, 4, 6, 3),
        "resnet101_layer4": lambda: _resnet(Bottleneck, 3, 4, 23, 3),
        "resnet152_layer4": lambda: _resnet(Bottleneck, 3, 8, 36, 3),
    }
    encoder = VisionTransformer(SIZES[name], depth) if is_transformer(name) else builders[name]()
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return encoder
