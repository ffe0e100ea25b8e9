"""Pictures of a match, read back pixel by pixel; the scores and lines that stand in them."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from geowarp_ros import pictures
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.scene import ASSETS
from geowarp_ros.geometry import warp
from geowarp_ros.pictures import (
    CANDIDATE,
    DOUBT,
    FOUND,
    QUERY,
    WIDTH_PX,
    Side,
    answer_html,
    answer_picture,
    ellipse_m,
    encode_jpeg,
    match_picture,
    score_text,
    warp_to_frame,
)
from geowarp_ros.types import Answer, Candidate, Fix, FloatArray, Header, NoFix, Pair, Place
from test.model.conftest import picture

NO_POINTS: FloatArray = np.empty((0, 2))
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


def answered(
    image: NDArray[np.uint8], result: Fix | NoFix, *candidates: Candidate, points: FloatArray = NO_POINTS
) -> Answer:
    """An answer whose best candidate's image is the query itself."""
    return Answer(Header(), result, candidates, pair=lambda: Pair(image, image, points, points, 2 * len(points)))


PLACE = Place("gallery/a.jpg", 50.0, 8.0)
BEST = Candidate(0, PLACE, 0.5, 0.7, "mean cosine")
FIX = Fix(50.0, 8.0, 0.0, np.diag([4.0, 1.0, 9.0]), 0.9)


def test_an_answer_has_one_row_more_with_a_warp_and_one_panel_without_candidates(
    smooth: NDArray[np.uint8],
) -> None:
    warped = Candidate(0, PLACE, 0.5, 0.7, "mean cosine", 0.6, FULL, FULL)
    one, two = (answer_picture(answered(smooth, NoFix("disagreement"), best), smooth) for best in (BEST, warped))
    alone = answer_picture(Answer(Header(), NoFix("empty_gallery")), smooth)
    assert one.shape[1] == two.shape[1] == alone.shape[1] == WIDTH_PX
    assert two.shape[0] > 1.7 * one.shape[0]
    right = slice(-100, -40), slice(7 * WIDTH_PX // 8, None)
    assert one[right].std() > 10 > alone[right].std()  # nothing stands there


def test_title_and_lines_are_green_for_a_fix_and_amber_for_none(smooth: NDArray[np.uint8]) -> None:
    points = np.array([[-0.5, -0.5], [0.5, 0.2]])
    for result, ink, other in ((FIX, FOUND, DOUBT), (NoFix("jump"), DOUBT, FOUND)):
        shown = answer_picture(answered(smooth, result, BEST, points=points), smooth)
        title = shown[:40]
        assert (title == ink).all(axis=2).sum() > 20 > (title == other).all(axis=2).sum() == 0
    # a line crosses the gap between the images: between paper and ink, by six tenths
    gap = shown[60:, WIDTH_PX // 2 - 2 : WIDTH_PX // 2 + 2].reshape(-1, 3).astype(float)
    assert (np.abs(gap - (0.6 * np.array(DOUBT) + 0.4 * np.array(pictures.PAPER))).max(axis=1) < 25).any()


def test_the_title_says_where_and_the_line_below_what_it_rests_on(
    smooth: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict[str, Any]()
    monkeypatch.setattr(
        pictures, "match_picture", lambda *sides, **words: given.update(words, sides=sides) or smooth
    )
    points = np.zeros((3, 2))
    posed = replace(FIX, orientation=(0.0, 0.0, 0.0, 1.0), heading_deg=274.94, heading_std_deg=0.41)
    answer_picture(answered(smooth, posed, BEST, points=points))
    assert given["title"] == "fix  50.00000, 8.00000  ± 2 m,  heading 274.9 ± 0.4°"
    assert given["detail"].split("   ·   ") == [
        "3 of 6 matched keypoints agree on one view", "confidence 0.900", "score 0.700",
    ]  # fmt: skip
    assert [side.name for side in given["sides"]] == ["query", "gallery/a.jpg"]
    answer_picture(answered(smooth, NoFix("low_confidence", "confidence 0.1, at least 0.5 wanted"), BEST))
    assert given["title"] == "no fix: low confidence"
    assert given["detail"].startswith("confidence 0.1, at least 0.5 wanted")


def test_the_plan_has_the_ellipse_and_the_heading_of_a_fix_and_only_a_ring_for_a_guess() -> None:
    """North is up: a fix that looks east has its fan at the right of it; what is green lies within the ellipse."""
    image, side = np.full((30, 40, 3), 90, np.uint8), 480
    looking = replace(FIX, covariance=np.diag([25.0, 4.0, 9.0]), heading_deg=90.0)
    far = Candidate(1, Place("b", 50.0, 8.0001), 0.6)
    plan = pictures._plan(answered(image, looking, BEST, far), side)
    middle, green = side / 2, np.argwhere((plan == FOUND).all(axis=2))[:, ::-1]
    line = green[np.hypot(*(green - middle).T) > 12]
    line = line[line[:, 1] > 60]  # but for the legend
    # half axes of 2.45 σ: 12.2 m east and 4.9 m north, of a reach of 1.3 times the larger
    scale = middle / (1.3 * 12.24)
    assert np.abs(line[:, 0] - middle).max() == pytest.approx(12.24 * scale, abs=2.5)
    assert np.abs(line[:, 1] - middle).max() == pytest.approx(4.9 * scale, abs=2.5)
    bright = plan.astype(int).sum(axis=2)
    assert bright[240, 300] > bright[240, 180] + 50
    guess = pictures._plan(answered(image, NoFix("low_confidence"), BEST, far), side)
    assert not (guess == FOUND).all(axis=2).any()
    ring = np.argwhere((guess == CANDIDATE).all(axis=2))
    assert (guess[240, 240] != CANDIDATE).any() and (np.hypot(*(ring - 239.5).T) < 9).sum() > 10


def test_the_ellipse_holds_what_it_says() -> None:
    """95 of 100 draws lie inside, whatever its axes; the corners run anticlockwise."""
    covariance = np.array([[9.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    ring = ellipse_m(replace(FIX, covariance=covariance))
    draws = np.random.default_rng(0).multivariate_normal([0, 0], covariance[:2, :2], 20_000)
    inside = [cv2.pointPolygonTest(ring.astype(np.float32), draw, False) >= 0 for draw in draws]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.008)
    x, y = ring.T
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2 == pytest.approx(
        np.pi * 5.991 * np.sqrt(np.linalg.det(covariance[:2, :2])), rel=0.01
    )


def test_the_map_beside_pictures_has_their_colours() -> None:
    css = (ASSETS / "viewer.css").read_text()
    for colour in (QUERY, CANDIDATE):
        assert "stroke: #{:02x}{:02x}{:02x};".format(*colour) in css


def test_a_score_says_its_unit() -> None:
    assert score_text(0.56789, "mean cosine") == "0.568"
    assert score_text(42.0, "inliers") == "42 inliers"
    assert score_text(None, "inliers") == score_text(None, None) == ""


def test_an_answer_as_html_shows_its_pair_and_escapes_what_it_says(smooth: NDArray[np.uint8]) -> None:
    answer = answered(smooth, NoFix("jump"), Candidate(0, Place("<b>&.jpg", 50.0, 8.0), 0.5, 0.7))
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


# ---- query and photograph


def where(figure: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.int64]:
    """Rows and columns of the pixels of exactly this colour."""
    return np.argwhere((figure == colour).all(axis=2))


GREY = np.full((300, 400, 3), 90, np.uint8)
HALF = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


def test_the_quads_are_drawn_where_they_lie() -> None:
    figure = match_picture(Side(GREY, "", HALF), Side(GREY, "", HALF), width_px=1000)
    assert figure.dtype == np.uint8
    assert figure.shape[1:] == (1000, 3)
    # the query's panel: within the left half, what the line encloses keeps its grey, what lies outside is dimmed
    undimmed = where(figure[: figure.shape[0] // 2, :500], (90, 90, 90))
    top, left = undimmed.min(axis=0)
    bottom, right = undimmed.max(axis=0)
    line = 6  # three pixels of it cover the quad's inside on each side
    image_width = (1000 - 3 * 10) / 2
    assert right - left == pytest.approx(image_width / 2 - line, abs=2)
    assert bottom - top == pytest.approx(image_width * 0.75 / 2 - line, abs=2)
    for colour, half in ((QUERY, figure[:, :500]), (CANDIDATE, figure[:, 500:])):
        assert len(where(half, colour)) > 500
    assert len(where(figure[:, :500], CANDIDATE)) == len(where(figure[:, 500:], QUERY)) == 0


def test_the_keypoints_are_drawn_where_they_lie_and_joined() -> None:
    """A point at the query's lower left and its partner at the candidate's upper right."""
    points = np.array([[-0.8, 0.4]]), np.array([[0.8, -0.6]])
    sides = Side(GREY, "", points=points[0]), Side(GREY, "", points=points[1])
    figure = match_picture(*sides, ink=DOUBT, width_px=1000)
    gap, (width, height) = 10, (485, 364)
    for colour, left, (x, y) in ((QUERY, gap, points[0][0]), (CANDIDATE, 2 * gap + width, points[1][0])):
        dot = where(figure[: figure.shape[0] - 60], colour)
        expected = gap + (y + 1) / 2 * height - 0.5, left + (x + 1) / 2 * width - 0.5
        assert dot.mean(axis=0) == pytest.approx(expected, abs=0.7)
    joined = np.abs(figure.astype(float) - (0.6 * np.array(DOUBT) + 0.4 * 90)).max(axis=2) < 12
    rows, columns = np.nonzero(joined)
    assert columns.min() < 100 and columns.max() > 900
    slope, _ = np.polyfit(columns, rows, 1)
    assert slope == pytest.approx((0.2 - 0.7) * height / (gap + width + 0.8 * width), abs=0.01)


def test_many_keypoints_are_all_drawn_but_few_lines() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (400, 2))
    figure = match_picture(Side(GREY, "", points=points), Side(GREY, "", points=points), ink=FOUND)
    gap = figure[:, 594:606].astype(float)
    crossing = (np.abs(gap - (0.6 * np.array(FOUND) + 0.4 * np.array(pictures.PAPER))).max(axis=2) < 40).any(
        axis=1
    )
    assert 15 < (np.diff(crossing.astype(int)) == 1).sum() <= 40
    assert len(where(figure, CANDIDATE)) > 400 * 10


def test_the_warped_pair_stands_below() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[:, 200:] = (200, 30, 30)
    right = np.array([(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)])
    below = match_picture(Side(image, "", right), Side(image, "", right))
    below = below[below.shape[0] // 2 + 10 :]
    red = (np.abs(below.astype(int) - (200, 30, 30)) < 6).all(axis=2)
    assert red.mean() > 0.9  # the red half fills both warped images
    assert (below < 6).all(axis=2).mean() < 0.01


def test_without_quads_there_is_one_row_and_without_words_nothing_above() -> None:
    plain, quad = Side(picture(90, 120), "a"), Side(picture(90, 120), "a", np.zeros((4, 2)) + HALF)
    one, two = match_picture(plain, plain), match_picture(quad, quad)
    assert two.shape[0] > 1.8 * one.shape[0]
    assert match_picture(plain, plain, title="t").shape[0] - one.shape[0] == 56 - 12
    assert match_picture(plain, quad).shape == one.shape  # half a warp is none


def test_any_sizes_and_quads_far_outside_are_drawn() -> None:
    far = np.array([(-90.0, -1e6), (80.0, -3.0), (1e9, 40.0), (-5.0, 60.0)])
    for a, b in (((16, 400), (400, 16)), ((1200, 30), (480, 640))):
        sides = Side(picture(*a), "a" * 300, far, far), Side(picture(*b), "ü/" * 300, far, far)
        figure = match_picture(*sides, title="same place " * 90, detail="x" * 999)
        assert figure.shape[1] == 1200
        assert figure.shape[0] < 1400


def test_portraits_stand_in_the_middle_and_are_no_higher_than_half_the_width() -> None:
    tall = np.full((400, 300, 3), 255, np.uint8)
    figure = match_picture(Side(tall, "q"), Side(tall, "p"))
    assert figure.shape[0] == 600 + 2 * 12
    columns = np.flatnonzero((figure[100] == 255).all(axis=1))
    assert columns[0] == 1199 - columns[-1] and len(columns) == 2 * 450


def test_what_does_not_fit_is_shortened_at_its_less_telling_end() -> None:
    draw, font = ImageDraw.Draw(Pillow.new("RGB", (10, 10))), ImageFont.load_default(15)
    assert pictures._shortened(draw, "short", font, 100) == "short"
    path = pictures._shortened(draw, "images/gallery/" + "x" * 50 + "/the_name.jpg", font, 120)
    assert path.startswith("…") and path.endswith("the_name.jpg") and draw.textlength(path, font) <= 120
    words = pictures._shortened(draw, "no fix because " + "of this " * 50, font, 120)
    assert words.startswith("no fix") and words.endswith("…") and draw.textlength(words, font) <= 120


def test_a_picture_is_written_as_its_ending_says_and_a_full_folder_is_one_error(tmp_path: Path) -> None:
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP")):
        pictures.save_picture(tmp_path / name, GREY)
        with Pillow.open(tmp_path / name) as read:
            assert (read.format, read.size) == (form, (400, 300))
    with pytest.raises(ImageError, match=r"absent/a\.png: the picture cannot be written: .*No such file"):
        pictures.save_picture(tmp_path / "absent" / "a.png", GREY)
