from __future__ import annotations

from typing import TypeAlias

import cv2
import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from geowarp_ros.geometry import (
    FULL_FRAME,
    flip_quad,
    full_frame,
    homography_from_quads,
    quad_from_frame,
    transform_points,
    warp,
)
from test.model import naive
from test.model.conftest import picture

Corners: TypeAlias = list[tuple[float, float]]

TRAPEZOID = [(-0.8, -0.9), (0.7, -0.6), (0.7, 0.5), (-0.8, 1.1)]
TURNED = [(-0.2, -0.9), (0.9, 0.1), (0.3, 0.8), (-0.7, 0.2)]


@st.composite
def quads(draw: st.DrawFn) -> Tensor:
    """Convex, clockwise from top-left: the frame's corners, each moved by less than would dent the quad."""
    moves = [draw(st.floats(-0.45, 0.45)) for _ in range(8)]
    return torch.tensor(FULL_FRAME, dtype=torch.float64) + torch.tensor(moves, dtype=torch.float64).reshape(4, 2)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(quads(), quads())
@settings(max_examples=50, deadline=None)
def test_homography_takes_the_corners_and_agrees_with_opencv_and_dlt(source: Tensor, target: Tensor) -> None:
    h = homography_from_quads(source[None], target[None])
    torch.testing.assert_close(transform_points(h, source[None])[0], target, atol=1e-9, rtol=0)
    theirs = cv2.getPerspectiveTransform(source.numpy().astype(np.float32), target.numpy().astype(np.float32))
    np.testing.assert_allclose(h[0], theirs / theirs[2, 2], atol=2e-3 * np.abs(theirs).max())
    np.testing.assert_allclose(h[0], naive.homography(source, target), rtol=1e-6, atol=1e-8)


def test_homography_by_hand() -> None:
    shifted = full_frame(1, torch.zeros(1)) * 0.5 + torch.tensor([0.25, -0.5])
    expected = np.array([[0.5, 0, 0.25], [0, 0.5, -0.5], [0, 0, 1]])
    np.testing.assert_allclose(quad_from_frame(shifted)[0], expected, atol=1e-7)


def test_homography_and_warp_have_true_gradients() -> None:
    quad = torch.tensor([TRAPEZOID, TURNED], dtype=torch.float64, requires_grad=True)
    assert gradcheck(homography_from_quads, (full_frame(2, quad).clone().requires_grad_(), quad))
    assert gradcheck(warp, (images(2, 1, 5, 6).requires_grad_(), quad))


@pytest.mark.parametrize("size", [(7, 11), (32, 20)])
@pytest.mark.parametrize("corners", [TRAPEZOID, TURNED, [(-1.4, -1.2), (1.1, -1.3), (1.2, 1.5), (-1.1, 1.2)]])
def test_warp_equals_pixel_by_pixel_and_kornia(corners: Corners, size: tuple[int, int]) -> None:
    image, quad = images(1, 2, *size), torch.tensor([corners], dtype=torch.float64)
    ours = warp(image, quad)
    np.testing.assert_allclose(ours[0], naive.warp(image[0].numpy(), quad[0].numpy()), atol=1e-10)
    # quads too: the DLT that the published weights were trained with, and kornia's warp at its defaults
    homography = kornia.geometry.find_homography_dlt(full_frame(1, quad), quad)
    torch.testing.assert_close(ours, kornia.geometry.homography_warp(image, homography, size), atol=1e-6, rtol=0)


def test_warp_of_the_full_frame_is_the_image() -> None:
    image = images(2, 3, 37, 53).float()
    torch.testing.assert_close(warp(image, full_frame(2, image)), image, atol=1e-5, rtol=0)


def test_warp_of_one_half_is_that_half_enlarged() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    right = torch.tensor([[(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)]])
    # four columns drawn from columns 2 and 3: at 1.75, 2.25, 2.75 and 3.25, the last a quarter beyond the edge
    expected = [1.75, 2.25, 2.75, 0.75 * 3]
    np.testing.assert_allclose(warp(image, right)[0, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("corners", [TRAPEZOID, TURNED])
def test_warp_then_inverse_gives_the_image_back(corners: Corners) -> None:
    image = torch.from_numpy(picture(96, 128).astype(np.float64) / 255).permute(2, 0, 1)[None]
    quad = torch.tensor([corners], dtype=torch.float64)
    back = torch.linalg.inv(quad_from_frame(quad))
    there_and_back = warp(warp(image, quad), transform_points(back, full_frame(1, quad)))
    inside = cv2.fillConvexPoly(
        np.zeros((96, 128)), np.round((quad[0].numpy() * 0.9 + 1) * (64, 48)).astype(int), 1.0
    ).astype(bool)
    inside[:3], inside[-3:], inside[:, :3], inside[:, -3:] = False, False, False, False
    assert inside.sum() > 2000
    assert (there_and_back - image)[0, :, inside].abs().mean() < 0.01


def test_half_precision_images_are_sampled_where_float32_samples() -> None:
    image = images(1, 1, 40, 60).bfloat16()
    quad = torch.tensor([TRAPEZOID])
    torch.testing.assert_close(warp(image, quad).double(), warp(image.double(), quad), atol=2**-8, rtol=0)


@given(quads())
@settings(max_examples=25, deadline=None)
def test_warping_the_mirrored_image_by_the_flipped_quad_mirrors_the_warp(quad: Tensor) -> None:
    image = images(1, 1, 9, 14)
    mirrored = warp(image.flip(-1), flip_quad(quad)[None])
    torch.testing.assert_close(mirrored, warp(image, quad[None]).flip(-1), atol=1e-9, rtol=0)


def test_flip_quad_by_hand() -> None:
    quad = torch.tensor([(-0.9, -0.8), (0.7, -0.6), (0.5, 0.4), (-0.3, 0.2)])
    expected = torch.tensor([(-0.7, -0.6), (0.9, -0.8), (0.3, 0.2), (-0.5, 0.4)])
    torch.testing.assert_close(flip_quad(quad), expected)
    torch.testing.assert_close(flip_quad(flip_quad(quad)), quad)
    torch.testing.assert_close(flip_quad(torch.tensor(FULL_FRAME)), torch.tensor(FULL_FRAME))
