from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from geowarp_ros.geometry import full_frame
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.training.losses import consistency_loss, features_wise_loss
from geowarp_ros.training.objective import WarpLosses, generated_corner_error
from geowarp_ros.training.warping import WarpConfig


class Nothing(nn.Module):
    """An 'encoder' of stride 8 without parameters, quick and exact: colours and their neighbours' differences."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.avg_pool2d(x, 8)
        return torch.cat([x, -x, x - x.roll(1, -1), x - x.roll(1, -2)], dim=1)


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    torch.manual_seed(0)
    return interpolate(torch.randn(16, 3, 12, 12), (120, 120), mode="bicubic", align_corners=True)


@pytest.fixture
def model() -> GeoWarp:
    torch.manual_seed(0)
    made = GeoWarp(ModelConfig())
    made.encoder = nn.Sequential(Nothing())
    return made.eval()


def test_defaults_are_the_papers() -> None:
    config = WarpConfig()
    assert (config.lambda_ss, config.lambda_fw, config.lambda_cons) == (1, 10, 0.1)
    assert (config.k, config.views, config.batch_generated, config.batch_pairs) == (0.6, 2, 16, 16)
    assert (config.iterations, config.optimizer, config.learning_rate) == (50_000, "sgd", 1e-4)
    assert (config.momentum, config.weight_decay, config.t_geo_m, config.t_feat) == (0.9, 1e-3, 25, 1.2)
    assert config.needs_pairs
    assert not WarpConfig(lambda_fw=0, lambda_cons=0).needs_pairs


