"""Pictures of a match, read back pixel by pixel; the scores and lines that stand in them."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow

from geowarp_ros.geometry import warp
from geowarp_ros.pictures import (
    FOUND,
    LOST,
    WIDTH_PX,
    answer_html,
    answer_picture,
    encode_jpeg,
    match_figure,
    score_text,
    warp_to_frame,
)
from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Place
from test.model.conftest import picture

BLUE, ORANGE = (64, 196, 255), (255, 171, 64)
FULL = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@pytest.fixture
def smooth() -> NDArray[np.uint8]:
    y, x = np.mgrid[:60, :80]
    return np.stack([3 * x, 4 * y, x + y], axis=-1).astype(np.uint8)


def test_warp_to_frame_is_the_networks_warp(smooth: NDArray[np.uint8]) -> None:
    quad = np.array([[-0.8, -0.7], [0.9, -0.9], [0.7, 0.8], [-0.9, 0.6]])
    tensor = torch.from_numpy(smooth.astype(np.float32)).permute(2, 0, 1)[None]
    expected = warp(tensor, torch.from_numpy(quad.astype(np.float32))[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(warp_to_frame(smooth, quad) - expected).max() < 3  # OpenCV interpolates in 1/32 px
    assert np.array_equal(warp_to_frame(smooth, FULL), smooth)


def test_an_answer_has_one_row_more_with_a_warp_and_one_panel_without_candidates(
    smooth: NDArray[np.uint8],
) -> None:
    place = Place("é.jpg", 50.0, 8.0)
    plain = Candidate(0, place, 0.5)
    warped = Candidate(0, place, 0.5, 0.7, "mean cosine", 0.6, FULL, FULL)
    one, two = (
        answer_picture(smooth, smooth, Answer(Header(), NoFix("disagreement"), (best,)))
        for best in (plain, warped)
    )
    alone = answer_picture(smooth, None, Answer(Header(), NoFix("empty_gallery")))
    assert one.shape[1] == two.shape[1] == alone.shape[1] == WIDTH_PX
    assert two.shape[0] > 1.7 * one.shape[0]
    assert one[:, WIDTH_PX // 2 :].std() > 10 > alone[:, WIDTH_PX // 2 :].std()  # nothing stands at the right


def test_the_line_above_is_green_for_a_fix_and_red_for_none(smooth: NDArray[np.uint8]) -> None:
    candidates = (Candidate(0, Place("a.jpg", 50.0, 8.0), 0.5, 0.7, "mean cosine"),)
    fix = Fix(50.0, 8.0, 0.0, np.eye(3), 0.9)
    for result, ink, other in ((fix, FOUND, LOST), (NoFix("jump"), LOST, FOUND)):
        line = answer_picture(smooth, smooth, Answer(Header(), result, candidates))[:52]
        assert (line == ink).all(axis=2).sum() > 20 > (line == other).all(axis=2).sum() == 0


def test_a_score_says_its_unit() -> None:
    assert score_text(0.56789, "mean cosine") == "0.568"
    assert score_text(42.0, "inliers") == "42 inliers"
    assert score_text(None, "inliers") == score_text(None, None) == ""


def test_an_answer_as_html_shows_its_pair_and_escapes_what_it_says(smooth: NDArray[np.uint8]) -> None:
    candidates = (Candidate(0, Place("<b>&.jpg", 50.0, 8.0), 0.5, 0.7),)
    answer = Answer(Header(), NoFix("jump"), candidates, pair=lambda: (smooth, smooth))
    shown = answer_html(answer)
    assert "&lt;b&gt;&amp;.jpg" in shown and "<b>" not in shown
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', shown)
    with Pillow.open(io.BytesIO(base64.b64decode(data))) as pair:
        assert pair.size[0] == WIDTH_PX
    assert "<img" not in answer_html(Answer(Header(), NoFix("empty_gallery")))


def test_jpeg_keeps_the_colours() -> None:
    red = np.full((16, 16, 3), (220, 30, 10), np.uint8)
    decoded = np.asarray(Pillow.open(io.BytesIO(encode_jpeg(red))))
    assert np.abs(decoded.astype(int) - red).max() < 6


def test_jpeg_is_shrunk_to_a_width_and_never_enlarged() -> None:
    image = picture(60, 80)
    for width_px, size in ((0, (80, 60)), (40, (40, 30)), (300, (80, 60))):
        assert Pillow.open(io.BytesIO(encode_jpeg(image, width_px=width_px))).size == size


# ---- the large figure


def where(figure: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Rows and columns of the pixels of exactly this colour."""
    return np.argwhere((figure == colour).all(axis=2))


def test_the_quads_are_drawn_where_they_lie() -> None:
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


def test_the_warped_pair_stands_below() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 200:] = (200, 30, 30)
    right = np.array([(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)])
    below = match_figure(image, image, right, right)
    below = below[below.shape[0] // 2 + 60 :]
    red = (np.abs(below.astype(int) - (200, 30, 30)) < 6).all(axis=2)
    assert red.mean() > 0.6  # the red half fills both warped panels
    black = (below < 6).all(axis=2)
    assert black.mean() < 0.01


def test_without_quads_there_is_one_row() -> None:
    one = match_figure(picture(90, 120), picture(90, 120))
    two = match_figure(picture(90, 120), picture(90, 120), np.zeros((4, 2)) + 0.1, np.zeros((4, 2)) + 0.1)
    assert two.shape[0] > 1.8 * one.shape[0]


def test_any_sizes_and_quads_far_outside_are_drawn() -> None:
    far = np.array([(-90.0, -1e6), (80.0, -3.0), (1e9, 40.0), (-5.0, 60.0)])
    for a, b in (((16, 400), (400, 16)), ((1200, 30), (480, 640))):
        figure = match_figure(picture(*a), picture(*b), far, far, title="distance 1.0", names=("a" * 300, "ü"))
        assert figure.shape[1] == 1200
        assert figure.shape[0] < 1400
