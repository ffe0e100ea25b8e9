"""How methods on DINOv2 publish their networks: keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.model.published import renamed
from geowarp_ros.model.vit import SIZES

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A state dict with a vision transformer in it.

    Attributes:
        encoder: What the transformer's keys begin with.
        pool: What the aggregation's begin with.
        entries: Of :class:`~geowarp_ros.model.geowarp.ModelConfig`, as the authors evaluate.
        dimension: Key of the weight with as many rows as a descriptor has values, where these are a choice.
        left_out: Pattern of the transformer's keys that inference does not need.
        added: Weights of the aggregation that the file has not.
    """

    encoder: str
    pool: str
    entries: Mapping[str, Any]
    dimension: str = ""
    left_out: str = "mask_token"
    added: Mapping[str, float] = field(default_factory=dict)

    def fits(self, state: State) -> bool:
        """Whether this is the layout of a state dict."""
        return f"{self.encoder}cls_token" in state

    def configure(self, state: State) -> dict[str, Any]:
        """Read size and depth of the transformer off the shapes."""
        channels = state[f"{self.encoder}cls_token"].shape[-1]
        registers = f"{self.encoder}register_tokens" in state
        names = [n for n, size in SIZES.items() if (size.channels, bool(size.registers)) == (channels, registers)]
        if not names:
            known = ", ".join(str(channels) for channels in sorted({size.channels for size in SIZES.values()}))
            raise ModelError(f"{self.encoder}cls_token has {channels} channels: expected {known}")
        blocks = re.compile(re.escape(self.encoder) + r"blocks\.(\d+)\.")
        depth = 1 + max((int(found[1]) for key in state if (found := blocks.match(key))), default=-1)
        own = {"encoder": names[0], "depth": 0 if depth == SIZES[names[0]].depth else depth}
        chosen = {"dimension": len(state[self.dimension])} if self.dimension else {}
        return own | chosen | dict(self.entries)

    def rename(self, state: State) -> dict[str, Tensor]:
        """Rename to ``encoder.*`` and ``pool.*``."""
        unneeded = re.compile(re.escape(self.encoder) + f"({self.left_out})")
        needed = {key: tensor for key, tensor in state.items() if not unneeded.match(key)}
        added = {f"pool.{key}": torch.full((1,), value) for key, value in self.added.items()}
        return renamed(needed, {self.encoder: "encoder.", self.pool: "pool."}) | added


plain = Layout("", "pool.", {"aggregation": "gem", "resolution": 224}, added={"1.p": 3.0})
salad = Layout("backbone.model.", "aggregator.", {"aggregation": "salad", "resolution": 322, "square": True})
megaloc = Layout(
    "backbone.", "aggregator.", {"aggregation": "megaloc", "resolution": 322}, "aggregator.linear.weight"
)
cricavpr = Layout(
    "backbone.",
    "",
    {"encoder": "cricavpr_vitb14", "aggregation": "cricavpr", "resolution": 224, "square": True},
)
boq = Layout(
    "backbone.dino.",
    "aggregator.",
    {"encoder": "boq_vitb14", "aggregation": "boq", "dimension": 12288, "resolution": 322, "square": True},
    left_out=r"mask_token|norm\.",
)
