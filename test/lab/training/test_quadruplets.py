from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from geowarp_ros.errors import TrainingError
from geowarp_ros.geometry import full_frame, quad_from_frame, transform_points, warp
from geowarp_ros.lab.training.quadruplets import (
    generate_quadruplets,
    overlap_trapezoid,
    project_on_crop,
    random_trapezoids,
)


def smooth_photographs(count: int, size: int = 64) -> torch.Tensor:
    return interpolate(torch.rand(count, 3, 5, 5), (size, size), mode="bicubic", align_corners=True)


def test_trapezoids_have_vertical_sides_and_stay_in_the_bounds_of_eq_11() -> None:
    torch.manual_seed(0)
    k = 0.6
    quads = random_trapezoids(2000, k, torch.zeros(1, dtype=torch.float64))
    assert torch.equal(quads[:, 0, 0], quads[:, 3, 0])
    assert torch.equal(quads[:, 1, 0], quads[:, 2, 0])
    inset = 1 - quads.abs()
    assert inset.min() >= 0
    assert inset.max() <= k
    assert torch.equal(quads.sign(), full_frame(2000, quads).sign())
    free = torch.cat([inset[:, :2, 0], inset[..., 1]], dim=1)  # the six that are drawn
    assert torch.allclose(free.mean(dim=0), torch.full((6,), k / 2, dtype=torch.float64), atol=0.02)
    assert np.abs(np.corrcoef(free.T.numpy()) - np.eye(6)).max() < 0.1, "independent of one another"


def test_k_0_is_the_full_frame() -> None:
    photographs = smooth_photographs(2)
    made = generate_quadruplets(photographs, k=0.0)
    assert torch.allclose(made.quad_a, full_frame(2, photographs), atol=1e-6)
    assert torch.allclose(made.views[made.first], photographs, atol=1e-5)


def test_overlap_by_hand() -> None:
    # t_x has a slanted top, from -0.5 at its left to -0.9 at its right edge; t_y a slanted bottom
    x = torch.tensor([[[-0.8, -0.5], [0.6, -0.9], [0.6, 0.7], [-0.8, 0.7]]])
    y = torch.tensor([[[-0.4, -0.62], [1.0, -0.62], [1.0, 1.0], [-0.4, 0.3]]])
    # edges: larger left -0.4, smaller right 0.6. Tops at -0.4: -0.5 - 0.4·0.4/1.4 = -0.6143 and -0.62; y is down,
    # the lower one is -0.6143. Tops at 0.6: -0.9 and -0.62, the lower is -0.62. Bottoms: at -0.4 0.7 and 0.3;
    # at 0.6 0.7 and 0.3 + 0.7·1.0/1.4 = 0.8.
    expected = torch.tensor([[[-0.4, -0.61428571], [0.6, -0.62], [0.6, 0.7], [-0.4, 0.3]]])
    assert torch.allclose(overlap_trapezoid(x, y), expected)


def inside(points: NDArray[Any], quad: NDArray[Any]) -> NDArray[np.bool_]:
    """Brute force: within all four sides of a clockwise (y down) convex quad."""
    sides = np.roll(quad, -1, axis=0) - quad
    to = points[:, None] - quad[None]
    across = sides[None, :, 0] * to[..., 1] - sides[None, :, 1] * to[..., 0]
    return np.asarray(np.all(across >= -1e-9, axis=1))


@pytest.mark.parametrize("k", [0.3, 0.6, 1.0])
def test_overlap_lies_within_both_and_is_as_wide_as_their_intersection(k: float) -> None:
    torch.manual_seed(1)
    x, y = random_trapezoids(40, k, torch.zeros(1, dtype=torch.float64)).reshape(2, 20, 4, 2)
    z = overlap_trapezoid(x, y).numpy()
    steps = np.linspace(-1, 1, 401)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    for tx, ty, tz in zip(x.numpy(), y.numpy(), z, strict=True):
        assert inside(tz, tx).all()
        assert inside(tz, ty).all()
        common = inside(grid, tx) & inside(grid, ty)
        assert not (inside(grid, tz) & ~common).any()
        if common.any():
            assert tz[0, 0] == pytest.approx(grid[common, 0].min(), abs=0.006)
            assert tz[1, 0] == pytest.approx(grid[common, 0].max(), abs=0.006)
            # the vertical edges cannot be longer: just beyond their ends is no common ground
            for corner, out in zip(tz, ([0, -1], [0, -1], [0, 1], [0, 1]), strict=True):
                beyond = (corner + 0.001 * np.array(out))[None]
                assert not (inside(beyond, tx) & inside(beyond, ty)).any()


def test_projection_brings_the_overlap_back() -> None:
    torch.manual_seed(2)
    x, y = random_trapezoids(12, 0.6, torch.zeros(1, dtype=torch.float64)).reshape(2, 6, 4, 2)
    z = overlap_trapezoid(x, y)
    on_crop = project_on_crop(z, x)
    assert on_crop.abs().max() <= 1 + 1e-9, "the overlap is seen in the crop"
    assert torch.allclose(transform_points(quad_from_frame(x), on_crop), z)
    assert torch.allclose(on_crop[:, 0, 0], on_crop[:, 3, 0]), "vertical sides stay vertical"


def test_warped_pair_shows_the_same() -> None:
    """The whole chain: crop both, warp each by its true quad; both are then the photograph's t_z."""
    torch.manual_seed(3)
    photographs = smooth_photographs(3, 128)
    made = generate_quadruplets(photographs, k=0.6)
    warped_a = warp(made.views[made.first], made.quad_a)
    warped_b = warp(made.views[made.second], made.quad_b)
    direct = warp(photographs, made.trapezoid_z)
    core = (..., slice(8, -8), slice(8, -8))
    unwarped = (made.views[made.first] - made.views[made.second])[core].abs().mean()
    assert (warped_a - warped_b)[core].abs().mean() < 0.02 < unwarped / 3
    assert (warped_a - direct)[core].abs().mean() < 0.02


def test_more_views_give_all_pairs_of_one_photograph() -> None:
    made = generate_quadruplets(smooth_photographs(2, 32), k=0.5, views=4)
    assert made.views.shape[0] == 8
    pairs = list(zip(made.first.tolist(), made.second.tolist(), strict=True))
    assert pairs == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (4, 5), (4, 6), (4, 7), (5, 6), (5, 7), (6, 7),
    ]  # fmt: skip
    assert torch.equal(made.trapezoid_x[0], made.trapezoid_x[2])
    assert torch.equal(made.trapezoid_y[0], made.trapezoid_x[3])


def test_bad_values_are_refused_by_name() -> None:
    with pytest.raises(TrainingError, match=r"k = 1\.5"):
        generate_quadruplets(smooth_photographs(1), k=1.5)
    with pytest.raises(TrainingError, match="views = 1"):
        generate_quadruplets(smooth_photographs(1), k=0.5, views=1)
