"""Optimal transport; that SALAD and MegaLoc are the published ones test_dinov2.py shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from geowarp_ros.errors import ImageError
from geowarp_ros.model.salad import MegaLoc, Salad, transport


def scores(clusters: int, cells: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(1, clusters, cells, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return drawn, torch.tensor(0.7, dtype=torch.float64)


def test_in_the_end_masses_are_what_each_cell_has_and_each_cluster_takes() -> None:
    given, dustbin = scores(5, 12)
    mass = transport(given, dustbin, rounds=300)[0].numpy()
    np.testing.assert_allclose(mass.sum(axis=1), 1, atol=1e-9)
    left = 1 - mass.sum(axis=0)
    assert (left > 0).all() and left.sum() == pytest.approx(12 - 5)
    # of all such masses the one of the form u·exp(score)·v: that is the regularised problem's solution
    whole = np.vstack([mass, left])
    ratio = np.log(whole) - np.vstack([given[0].numpy(), np.full(12, 0.7)])
    np.testing.assert_allclose(ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0], 0, atol=1e-8)


def test_three_rounds_scale_rows_and_columns_in_turn() -> None:
    given, dustbin = scores(4, 9)
    whole = np.exp(np.vstack([given[0].numpy(), np.full(9, 0.7)]))
    for _ in range(3):
        for row, taken in enumerate((1, 1, 1, 1, 5)):
            whole[row] *= taken / whole[row].sum()
        for column in range(9):
            whole[:, column] /= whole[:, column].sum()
    np.testing.assert_allclose(transport(given, dustbin)[0], whole[:-1], atol=1e-12)


@pytest.mark.parametrize("kind", ["salad", "megaloc"])
def test_descriptors_have_unit_length_and_do_not_depend_on_the_batch(kind: str) -> None:
    torch.manual_seed(0)
    layer = (Salad(48) if kind == "salad" else MegaLoc(48, 40)).eval()
    feature_map, token = torch.randn(3, 48, 9, 10), torch.randn(3, 48)
    with torch.inference_mode():
        together = layer(feature_map, token)
        apart = torch.cat([layer(feature_map[row : row + 1], token[row : row + 1]) for row in range(3)])
        other = layer(feature_map, token.roll(1, 0))
    assert together.shape == (3, 8448 if kind == "salad" else 40)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    assert (together - other).abs().max() > 1e-3  # the class token counts


def test_where_the_cells_sit_does_not_count() -> None:
    torch.manual_seed(0)
    layer, feature_map, token = Salad(48).eval(), torch.randn(1, 48, 9, 10), torch.randn(1, 48)
    with torch.inference_mode():
        turned = layer(feature_map.flip(3).transpose(2, 3), token)
        torch.testing.assert_close(layer(feature_map, token), turned, atol=1e-6, rtol=0)


def test_an_image_of_no_more_patches_than_clusters_is_refused() -> None:
    layer = Salad(48).eval()
    with pytest.raises(ImageError, match=r"^8×8 patches: SALAD's 64 clusters need more"):
        layer(torch.randn(1, 48, 8, 8), torch.randn(1, 48))
    assert layer(torch.randn(1, 48, 5, 13), torch.randn(1, 48)).isfinite().all()
