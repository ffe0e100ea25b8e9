"""Published layouts of the methods on vision transformers, and weights for them that NumPy seeds.

Keys and shapes are those of the authors' own modules; ``transformers.json`` holds what their code made of them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def dinov2(prefix: str, channels: int, depth: int, registers: int = 0, mask: bool = True) -> Shapes:
    """DINOv2's hub weights; the mask token is for training alone."""
    shapes: Shapes = {
        "cls_token": (1, 1, channels),
        "pos_embed": (1, 1 + 37 * 37, channels),
        **({"mask_token": (1, channels)} if mask else {}),
        **({"register_tokens": (1, registers, channels)} if registers else {}),
        **layer("patch_embed.proj", channels, 3, 14, 14),
        **norm("norm", channels),
    }
    for block in (f"blocks.{index}" for index in range(depth)):
        shapes |= norm(f"{block}.norm1", channels) | norm(f"{block}.norm2", channels)
        shapes |= {f"{block}.ls1.gamma": (channels,), f"{block}.ls2.gamma": (channels,)}
        for name, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes |= layer(f"{block}.{name}", rows * channels, columns * channels)
    return {prefix + key: shape for key, shape in shapes.items()}


def salad(prefix: str, channels: int, width: int) -> Shapes:
    return {
        f"{prefix}dust_bin": (),
        **layer(f"{prefix}token_features.0", 512, channels),
        **layer(f"{prefix}token_features.2", 256, 512),
        **layer(f"{prefix}cluster_features.0", 512, channels, 1, 1),
        **layer(f"{prefix}cluster_features.3", width, 512, 1, 1),
        **layer(f"{prefix}score.0", 512, channels, 1, 1),
        **layer(f"{prefix}score.3", 64, 512, 1, 1),
    }


def boq(prefix: str, channels: int, width: int, rows: int) -> Shapes:
    """Bag-of-Queries', in the order in which published_layouts.py seeds them."""
    shapes = layer("proj_c", width, channels, 3, 3) | norm("norm_input", width)
    for block in ("boqs.0", "boqs.1"):
        shapes[f"{block}.queries"] = (1, 64, width)
        for name in ("encoder.self_attn", "self_attn", "cross_attn"):
            shapes |= attention(f"{block}.{name}", width)
        for name in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
            shapes |= norm(f"{block}.{name}", width)
        shapes |= layer(f"{block}.encoder.linear1", 4 * width, width)
        shapes |= layer(f"{block}.encoder.linear2", width, 4 * width)
    return {prefix + key: shape for key, shape in (shapes | layer("fc", rows, 128)).items()}


def adapter(name: str, channels: int) -> Shapes:
    """CricaVPR's, of one block."""
    half, wide, few = channels // 2, channels // 8, channels // 32
    shapes = layer(f"{name}.D_fc1", half, channels) | layer(f"{name}.D_fc2", channels, half)
    shapes |= convolution(f"{name}.branch1", half // 2, half, 1)
    for branch, kernel in (("branch2", 3), ("branch3", 5)):
        shapes |= convolution(f"{name}.{branch}.0", few, half, 1)
        shapes |= convolution(f"{name}.{branch}.1", wide, few, kernel)
    return shapes


def convolution(name: str, channels: int, in_channels: int, kernel: int) -> Shapes:
    statistics = {f"{name}.bn.running_{key}": (channels,) for key in ("mean", "var")}
    counter: Shapes = {f"{name}.bn.num_batches_tracked": ()}
    own = layer(f"{name}.conv", channels, in_channels, kernel, kernel) | norm(f"{name}.bn", channels)
    return own | statistics | counter


def encoder_layer(name: str, channels: int, hidden: int) -> Shapes:
    """torch.nn.TransformerEncoderLayer's."""
    return (
        attention(f"{name}.self_attn", channels)
        | layer(f"{name}.linear1", hidden, channels)
        | layer(f"{name}.linear2", channels, hidden)
        | norm(f"{name}.norm1", channels)
        | norm(f"{name}.norm2", channels)
    )


def attention(name: str, channels: int) -> Shapes:
    """torch.nn.MultiheadAttention's."""
    given = {f"{name}.in_proj_weight": (3 * channels, channels), f"{name}.in_proj_bias": (3 * channels,)}
    return given | layer(f"{name}.out_proj", channels, channels)


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


CASES = ("dinov2", "dinov2_reg", "salad", "megaloc", "boq", "cricavpr")


def layout(method: str, depth: int = 1) -> Shapes:
    """A method's state dict; MegaLoc's with a short descriptor, as its linear layer has most of the weights."""
    blocks = range(depth)
    return {
        "dinov2": lambda: dinov2("", 384, depth),
        "dinov2_reg": lambda: dinov2("", 384, depth, registers=4),
        "salad": lambda: dinov2("backbone.model.", 768, depth) | salad("aggregator.", 768, 128),
        "megaloc": lambda: (
            dinov2("backbone.", 768, depth, mask=False)
            | salad("aggregator.agg.", 768, 256)
            | layer("aggregator.linear", 32, 256 + 64 * 256)
        ),
        "boq": lambda: dinov2("backbone.dino.", 768, depth) | boq("aggregator.", 768, 384, 32),
        "cricavpr": lambda: (
            dinov2("backbone.", 768, depth)
            | {k: shape for n in blocks for k, shape in adapter(f"backbone.blocks.{n}.adapter", 768).items()}
            | {"aggregation.1.p": (1,)}
            | encoder_layer("encoder.layers.0", 768, 2048)
            | encoder_layer("encoder.layers.1", 768, 2048)
        ),
    }[method]()


def seeded(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Weights such that activations keep their size and every term counts; a key's do not depend on the others."""
    drawn = {key: torch.from_numpy(_drawn(key, shape, seed)) for key, shape in shapes.items()}
    return {key: torch.tensor(7) if key.endswith("num_batches_tracked") else t for key, t in drawn.items()}


def _drawn(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    drawn: Any = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape, np.float32)
    *_, owner, name = ("", *key.split("."))
    if name == "p":
        drawn = 2.6 + 0.2 * drawn
    elif name == "running_var":
        drawn = 0.02 + 0.05 * np.abs(drawn)  # what is added under the root counts
    elif name in ("gamma", "dust_bin") or (owner.startswith(("norm", "bn")) and name == "weight"):
        drawn = 1 + 0.2 * drawn
    elif name in ("pos_embed", "cls_token", "register_tokens", "queries"):
        drawn = 0.5 * drawn
    elif len(shape) > 1:
        sharp = 8 if key.endswith("score.3.weight") else 1  # three rounds of Sinkhorn differ from two
        drawn = sharp * drawn / math.sqrt(math.prod(shape[1:]))
    else:
        drawn = 0.1 * drawn
    return np.asarray(drawn, np.float32)
