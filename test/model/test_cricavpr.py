"""CricaVPR's layers; that they are the published ones test_dinov2.py shows."""

from __future__ import annotations

import pytest
import torch

from geowarp_ros.errors import ImageError
from geowarp_ros.model.aggregation import build_aggregation
from geowarp_ros.model.cricavpr import Adapter, _cuts


def test_a_descriptor_does_not_depend_on_the_other_images() -> None:
    torch.manual_seed(0)
    layer = build_aggregation("cricavpr", 32).eval()
    feature_map, token = torch.randn(4, 32, 16, 16), torch.randn(4, 32)
    with torch.inference_mode():
        together = layer(feature_map, token)
        apart = torch.cat([layer(feature_map[row : row + 1], token[row : row + 1]) for row in range(4)])
    assert together.shape == (4, 14 * 32)
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("row", "column", "regions"), [(0, 0, {1, 5}), (7, 10, {2, 9}), (8, 11, {4, 10}), (15, 15, {4, 13})]
)
def test_a_cell_is_in_one_region_of_each_level(row: int, column: int, regions: set[int]) -> None:
    """Regions row by row: 1 to 4 the quarters at 8, 5 to 13 the ninths at 5 and 11; 0 is the class token."""
    layer = build_aggregation("cricavpr", 32).eval()
    plain = torch.ones(1, 32, 16, 16)
    changed = plain.clone()
    changed[0, :16, row, column] = 3.0
    with torch.inference_mode():
        before, after = (layer(x, torch.ones(1, 32)).unflatten(1, (14, 32))[0] for x in (plain, changed))
    moved = (before / before.norm() - after / after.norm()).norm(dim=1)
    assert set((moved > 10 * moved.median()).nonzero().flatten().tolist()) == regions


def test_cuts_are_the_authors_at_16_cells() -> None:
    assert (_cuts(16, 2), _cuts(16, 3)) == ((0, 8, 16), (0, 5, 11, 16))


def test_an_image_without_three_patches_a_side_is_refused() -> None:
    with pytest.raises(ImageError, match=r"^5×2 patches: CricaVPR cuts"):
        build_aggregation("cricavpr", 32)(torch.ones(1, 32, 2, 5), torch.ones(1, 32))


def test_an_adapter_sees_neighbours_within_two_cells_and_no_others() -> None:
    torch.manual_seed(0)
    adapter = Adapter(64).eval()
    x = torch.randn(1, 1 + 7 * 9, 64)
    changed = x.clone()
    changed[0, 1 + 3 * 9 + 4] += 1.0  # row 3, column 4
    with torch.inference_mode():
        moved = (adapter(changed, (7, 9)) - adapter(x, (7, 9)))[0].abs().sum(dim=1) > 1e-6
    assert not moved[0]
    rows, columns = moved[1:].unflatten(0, (7, 9)).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 5, 2, 6)
