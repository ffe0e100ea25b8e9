"""The method once more, in float64 and plain loops: the oracle that the fast code is held to.

Written from METHOD and the paper's equations alone; slow on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.types import Image

Array: TypeAlias = NDArray[np.float64]

GRID = 15
VGG_STAGES = (2, 2, 3, 3, 3)
RESNET_DEPTHS = {
    "resnet18": (2, 2, 2),
    "resnet50": (3, 4, 6),
    "resnet18_layer4": (2, 2, 2, 2),
    "resnet50_layer4": (3, 4, 6, 3),
    "resnet101_layer4": (3, 4, 23, 3),
    "resnet152_layer4": (3, 8, 36, 3),
}


def encode(name: str, state: Mapping[str, Tensor], image: Array) -> Array:
    """Feature map (C, h, w) of a normalised image (3, H, W); ``state`` has keys ``encoder.N…`` in float64."""
    x = torch.from_numpy(image)[None]

    def conv(x: Tensor, key: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), stride, padding)

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (state[f"{key}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        scale = weight / torch.sqrt(var + 1e-5)
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    if name == "alexnet":
        x = F.max_pool2d(conv(x, "encoder.0", 4, 2).relu(), 3, 2)
        x = F.max_pool2d(conv(x, "encoder.3", 1, 2).relu(), 3, 2)
        x = conv(conv(x, "encoder.6", 1, 1).relu(), "encoder.8", 1, 1).relu()
        return conv(x, "encoder.10", 1, 1)[0].numpy()
    if name == "vgg16":
        place = 0
        for stage, depth in enumerate(VGG_STAGES):
            for index in range(depth):
                x = conv(x, f"encoder.{place}", 1, 1)
                if (stage, index) == (4, 2):
                    return x[0].numpy()
                x, place = x.relu(), place + 2
            x, place = F.max_pool2d(x, 2, 2), place + 1
    if name == "mobilenet_v2":
        return mobilenet(state, x)[0].numpy()
    x = F.max_pool2d(norm(conv(x, "encoder.0", 2, 3), "encoder.1").relu(), 3, 2, 1)
    bottleneck = not name.startswith("resnet18")
    for stage, depth in enumerate(RESNET_DEPTHS[name], start=4):
        for index in range(depth):
            key, stride = f"encoder.{stage}.{index}", 2 if stage > 4 and index == 0 else 1
            shortcut = x
            if f"{key}.downsample.0.weight" in state:
                shortcut = norm(conv(x, f"{key}.downsample.0", stride), f"{key}.downsample.1")
            if bottleneck:
                y = norm(conv(x, f"{key}.conv1"), f"{key}.bn1").relu()
                y = norm(conv(y, f"{key}.conv2", stride, 1), f"{key}.bn2").relu()
                y = norm(conv(y, f"{key}.conv3"), f"{key}.bn3")
            else:
                y = norm(conv(x, f"{key}.conv1", stride, 1), f"{key}.bn1").relu()
                y = norm(conv(y, f"{key}.conv2", 1, 1), f"{key}.bn2")
            x = (y + shortcut).relu()
    return x[0].numpy()


def mobilenet(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """MobileNetV2 by its paper's table, to the expansion of the first block of stride 32."""

    def step(x: Tensor, key: str, stride: int = 1, *, norm: str, each: bool = False) -> Tensor:
        weight = state[f"{key}.weight"]
        y = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=x.shape[1] if each else 1)
        mean, var, gain, bias = (state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(y, mean, var, gain, bias)

    def limited(x: Tensor, key: str, stride: int = 1, each: bool = False) -> Tensor:
        return step(x, f"{key}.0", stride, norm=f"{key}.1", each=each).clamp(0, 6)

    x = limited(x, "encoder.0", 2)
    x = limited(x, "encoder.1.conv.0", each=True)
    x = step(x, "encoder.1.conv.1", norm="encoder.1.conv.2")
    strides = {2: 2, 4: 2, 7: 2}
    for block in range(2, 14):
        key, stride = f"encoder.{block}.conv", strides.get(block, 1)
        y = limited(limited(x, f"{key}.0"), f"{key}.1", stride, each=True)
        y = step(y, f"{key}.2", norm=f"{key}.3")
        x = x + y if block not in (2, 4, 7, 11) else y  # those change the size or the channels
    return limited(x, "encoder.14.conv.0")


def normalise(image: Image) -> Array:
    """(H, W, 3) uint8 -> (3, H, W) by ImageNet's mean and standard deviation."""
    channels = []
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        channels.append((image[:, :, channel].astype(np.float64) / 255 - mean) / std)
    return np.stack(channels)


def local_features(feature_map: Array) -> Array:
    """(C, h, w) -> (C, 15, 15): the mean of the cells that each bin touches, then unit length."""
    channels, height, width = feature_map.shape
    result = np.empty((channels, GRID, GRID))
    for i in range(GRID):
        for j in range(GRID):
            top, bottom = i * height // GRID, -(-(i + 1) * height // GRID)
            left, right = j * width // GRID, -(-(j + 1) * width // GRID)
            cell = feature_map[:, top:bottom, left:right].reshape(channels, -1).mean(axis=1)
            result[:, i, j] = cell / np.sqrt(np.sum(cell * cell) + 1e-6)
    return result


def gem(feature_map: Array, p: float) -> Array:
    """(C, h, w) -> (C,)."""
    channels, height, width = feature_map.shape
    total = np.zeros(channels)
    for i in range(height):
        for j in range(width):
            cell = feature_map[:, i, j]
            total += np.maximum(cell / np.sqrt(np.sum(cell * cell) + 1e-6), 1e-6) ** p
    return np.asarray((total / (height * width)) ** (1 / p))


def netvlad(feature_map: Array, weight: Array, centroids: Array) -> Array:
    """(C, h, w), (K, C), (K, C) -> (K·C,): residuals cell by cell and cluster by cluster."""
    clusters, channels = centroids.shape
    vlad = np.zeros((clusters, channels))
    for cell in feature_map.reshape(channels, -1).T:
        x = cell / np.linalg.norm(cell)
        logits = weight @ x
        assignment = np.exp(logits - logits.max())
        assignment /= assignment.sum()
        for k in range(clusters):
            vlad[k] += assignment[k] * (x - centroids[k])
    for k in range(clusters):
        vlad[k] /= np.linalg.norm(vlad[k])
    flat = vlad.ravel()
    return np.asarray(flat / np.linalg.norm(flat))


def correlate(f_q: Array, f_p: Array) -> Array:
    """Two (C, 15, 15) -> (225, 15, 15), eq. 6, with k running column by column: k = x·15 + y."""
    correlation = np.zeros((GRID * GRID, GRID, GRID))
    for x in range(GRID):
        for y in range(GRID):
            correlation[x * GRID + y] = np.maximum(np.tensordot(f_q[:, y, x], f_p, 1), 0)
    for i in range(GRID):
        for j in range(GRID):
            correlation[:, i, j] /= np.sqrt(np.sum(correlation[:, i, j] ** 2) + 1e-6)
    return correlation


def regression(state: Mapping[str, Tensor], correlation: Array) -> tuple[Array, Array]:
    """(225, 15, 15) -> two quads (4, 2); ``state`` has keys ``conv.N…`` and ``linear.…`` in float64."""
    x = torch.from_numpy(correlation)[None]
    for block in range(6):
        x = F.conv2d(x, state[f"conv.{3 * block}.weight"], state[f"conv.{3 * block}.bias"], padding=1)
        mean, var, weight, bias = (
            state[f"conv.{3 * block + 1}.{n}"][:, None, None]
            for n in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / torch.sqrt(var + 1e-5) * weight + bias).relu()
    assert x.shape[2:] == (1, 1)
    numbers = state["linear.weight"].numpy() @ x.flatten().numpy() + state["linear.bias"].numpy()
    return numbers[:8].reshape(4, 2), numbers[8:].reshape(4, 2)


def homography(source: Iterable[Any], target: Iterable[Any]) -> Array:
    """3×3 that takes four points to four points, by the direct linear transform and an SVD."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
    h = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    return np.asarray(h / h[2, 2])


def warp(image: Array, quad: Array) -> Array:
    """(C, H, W) resampled so that ``quad`` fills it: pixel by pixel, bilinear, zeros outside."""
    height, width = image.shape[1:]
    h = homography([(-1, -1), (1, -1), (1, 1), (-1, 1)], quad)
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y, w = h @ ((2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1)
            u, v = ((x / w + 1) * width - 1) / 2, ((y / w + 1) * height - 1) / 2
            left, top = int(np.floor(u)), int(np.floor(v))
            for r, weight_r in ((top, top + 1 - v), (top + 1, v - top)):
                for c, weight_c in ((left, left + 1 - u), (left + 1, u - left)):
                    if 0 <= r < height and 0 <= c < width:
                        result[:, row, column] += weight_r * weight_c * image[:, r, c]
    return result


def match(
    encoder: str,
    aggregation: str,
    features_state: Mapping[str, Tensor],
    regression_state: Mapping[str, Tensor],
    image_q: Image,
    image_p: Image,
) -> dict[str, Any]:
    """What ``geowarp match`` prints, for two (H, W, 3) uint8 images and the two published state dicts."""
    fe = {key: tensor.double() for key, tensor in features_state.items()}
    hr = {key: tensor.double() for key, tensor in regression_state.items()}
    images = [normalise(image) for image in (image_q, image_p)]
    maps = [encode(encoder, fe, image) for image in images]
    if aggregation == "gem":
        descriptors = [gem(m, fe["pool.1.p"].item()) for m in maps]
    else:
        weight, centroids = fe["pool.conv.weight"].flatten(1).numpy(), fe["pool.centroids"].numpy()
        descriptors = [netvlad(m, weight, centroids) for m in maps]
    f_q, f_p = (local_features(m) for m in maps)
    first_qp, second_qp = regression(hr, correlate(f_q, f_p))
    first_pq, second_pq = regression(hr, correlate(f_p, f_q))
    quad_q, quad_p = (first_qp + second_pq) / 2, (second_qp + first_pq) / 2
    warped = [
        local_features(encode(encoder, fe, warp(i, q))) for i, q in zip(images, (quad_q, quad_p), strict=True)
    ]
    return {
        "distance": np.sum((descriptors[0] - descriptors[1]) ** 2),
        "descriptor_dim": len(descriptors[0]),
        "descriptor_norm": np.sqrt(np.sum(descriptors[0] ** 2)),
        "score_unwarped": np.sum(f_q * f_p),
        "score": np.sum(warped[0] * warped[1]),
        "quad_q": quad_q,
        "quad_p": quad_p,
    }
