"""State dicts of the methods that stand on DINOv2, read for :mod:`geowarp_ros.model.methods`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.model.vit import SIZES

State = Mapping[str, Tensor]


def configuring(prefix: str, **entries: Any) -> Callable[[State], dict[str, Any]]:
    """Return what reads a configuration from a state dict: encoder and depth from shapes, ``entries`` as given.

    Args:
        prefix: Of the transformer's keys.
        **entries: Of :class:`~geowarp_ros.model.geowarp.ModelConfig`; a key of the state dict stands for the
            number of its rows.
    """

    def configure(state: State) -> dict[str, Any]:
        channels = len(state[f"{prefix}cls_token"].flatten())
        registers = f"{prefix}register_tokens" in state
        names = [n for n, size in SIZES.items() if (size.channels, bool(size.registers)) == (channels, registers)]
        if not names:
            known = sorted({size.channels for size in SIZES.values()})
            raise ModelError(f"{prefix}cls_token has {channels} channels: expected one of {known}")
        blocks = re.compile(re.escape(prefix) + r"blocks\.(\d+)\.")
        depth = 1 + max((int(found[1]) for key in state if (found := blocks.match(key))), default=-1)
        read = {name: len(state[value]) if value in state else value for name, value in entries.items()}
        return {"encoder": names[0], "depth": 0 if depth == SIZES[names[0]].depth else depth, **read}

    return configure


def renaming(encoder: str, pool: str, left_out: str = r"mask_token") -> Callable[[State], dict[str, Tensor]]:
    """Return what renames a state dict's keys to ours.

    Args:
        encoder: Prefix of the transformer's keys.
        pool: Prefix of the aggregation's.
        left_out: Pattern of the transformer's keys that inference does not need. All others are held against
            the network's.
    """
    not_needed = re.compile(re.escape(encoder) + f"({left_out})")

    def named(key: str) -> str:
        ours, theirs = ("encoder", encoder) if key.startswith(encoder) else ("pool", pool)
        return f"{ours}.{key.removeprefix(theirs)}"

    return lambda state: {named(key): tensor for key, tensor in state.items() if not not_needed.match(key)}
