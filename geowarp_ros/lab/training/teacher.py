"""SqueezeNet 1.0 (Iandola et al., 2016) as a frozen teacher, with torchvision's state-dict keys."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.errors import ModelError
from geowarp_ros.model.checkpoints import check_tensors
from geowarp_ros.model.torch_files import load_torch


class Fire(nn.Module):
    """Fire module: 1×1 squeeze, then parallel 1×1 and 3×3 expansion."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, 2·expand, h, w)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(nn.Module):
    """Feature layers up to the last Fire module.

    Attributes:
        channels: Channels of the output maps after fire8 (stride 8) and fire9 (stride 16).
    """

    channels = (512, 512)

    def __init__(self) -> None:
        super().__init__()

        def pool() -> nn.MaxPool2d:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, 2),
            nn.ReLU(inplace=True),
            pool(),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            pool(),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            pool(),
            Fire(512, 64, 256),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> maps after fire8 and fire9."""
        middle = self.features[:11](images)
        return middle, self.features[11:](middle)


def load_teacher(path: Path) -> SqueezeNet:
    """Load torchvision's SqueezeNet 1.0 state dict, frozen and in eval mode.

    Raises:
        ModelError: The file is absent or not such a state dict.
    """
    if not path.is_file():
        raise ModelError(f"{path}: does not exist, expected torchvision's SqueezeNet 1.0 state dict")
    try:
        state = load_torch(path)
        features = {key: value for key, value in state.items() if key.startswith("features.")}
    except Exception as error:  # torch.load raises many types for damaged files
        raise ModelError(f"{path}: is no state dict: {error}") from None
    teacher = SqueezeNet()
    check_tensors(features, teacher.state_dict(), str(path))
    teacher.load_state_dict(features)
    return teacher.eval().requires_grad_(False)
