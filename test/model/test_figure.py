import numpy as np
import pytest

from geowarp_ros.model.figure import match_figure
from test.model.conftest import picture

BLUE, ORANGE = (64, 196, 255), (255, 171, 64)


def where(figure, colour):
    """Rows and columns of the pixels of exactly this colour."""
    return np.argwhere((figure == colour).all(axis=2))


def test_the_quads_are_drawn_where_they_lie():
    grey = np.full((300, 400, 3), 90, np.uint8)
    quad = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    figure = match_figure(grey, grey, quad, quad, width_px=1000)
    assert figure.dtype == np.uint8
    assert figure.shape[1:] == (1000, 3)
    # the query's panel: within the left half, what the line encloses keeps its grey, what lies outside is dimmed
    undimmed = where(figure[: figure.shape[0] // 2, :500], (90, 90, 90))
    top, left = undimmed.min(axis=0)
    bottom, right = undimmed.max(axis=0)
    line = 6  # three pixels of it cover the quad's inside on each side
    image_width = (1000 - 3 * 16) // 2 - 2 * 28
    assert right - left == pytest.approx(image_width / 2 - line, abs=2)
    assert bottom - top == pytest.approx(image_width * 0.75 / 2 - line, abs=2)
    for colour, half in ((BLUE, figure[:, :500]), (ORANGE, figure[:, 500:])):
        assert len(where(half, colour)) > 500
    assert len(where(figure[:, :500], ORANGE)) == len(where(figure[:, 500:], BLUE)) == 0


def test_the_warped_pair_stands_below():
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 200:] = (200, 30, 30)
    right = np.array([(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)])
    below = match_figure(image, image, right, right)
    below = below[below.shape[0] // 2 + 60 :]
    red = (np.abs(below.astype(int) - (200, 30, 30)) < 6).all(axis=2)
    assert red.mean() > 0.6  # the red half fills both warped panels
    black = (below < 6).all(axis=2)
    assert black.mean() < 0.01


def test_without_quads_there_is_one_row():
    one = match_figure(picture(90, 120), picture(90, 120))
    two = match_figure(picture(90, 120), picture(90, 120), np.zeros((4, 2)) + 0.1, np.zeros((4, 2)) + 0.1)
    assert two.shape[0] > 1.8 * one.shape[0]


def test_any_sizes_and_quads_far_outside_are_drawn():
    far = np.array([(-90.0, -1e6), (80.0, -3.0), (1e9, 40.0), (-5.0, 60.0)])
    for a, b in (((16, 400), (400, 16)), ((1200, 30), (480, 640))):
        figure = match_figure(picture(*a), picture(*b), far, far, title="distance 1.0", names=("a" * 300, "ü"))
        assert figure.shape[1] == 1200
        assert figure.shape[0] < 1400
