"""Pictures of a match, in one style: of ``geowarp match`` and ``localize``, of the node, of the report.

The query stands at the left (blue), the photograph at the right (orange); a line in the verdict's colour joins
two keypoints that agree. Drawn with OpenCV and Pillow in milliseconds, so that the node can publish them.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from geowarp_ros.errors import ImageError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Answer, Fix, FloatArray, Image, NoFix, ScoreUnit, confidence_text

WIDTH_PX = 800
"""Width of the node's picture of an answer."""
FIGURE_PX = 1600
"""Width of a figure that is written as a file."""

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
FOUND, DOUBT, LOST = (60, 220, 90), (240, 190, 60), (245, 80, 60)
"""Of a fix and the same place; of no fix; of what is wrong."""
PAPER = (20, 23, 28)
INK = (236, 239, 244)
FAINT = (140, 148, 160)
QUERY, CANDIDATE = (64, 196, 255), (255, 171, 64)

WITHIN_95 = math.sqrt(-2.0 * math.log(0.05))
"""Half axes of the ellipse that holds 95 % of a normal distribution in the plane, in standard deviations."""

_GROUND = (33, 37, 44)
_ASPECTS = 0.4, 2.5
_LINES = 40
_FULL = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a match.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        name: What it is called.
        quad: (4, 2) what the other shows, too, clockwise from top-left, -1..1; None where unknown.
        points: (N, 2) keypoints that agree with the other image's, -1..1; None where unknown.
    """

    image: Image
    name: str
    quad: FloatArray | None = None
    points: FloatArray | None = None


def answer_picture(
    answer: Answer, query: Image | None = None, *, width_px: int = WIDTH_PX, plan: bool = False
) -> Image:
    """Return :func:`match_picture` of an answer and its best candidate.

    Args:
        answer: What the localizer said.
        query: The camera image; None: as the answer keeps it, at working resolution.
        width_px: Width of the picture.
        plan: Draw where it is, too: position, ellipse and heading, or the best guess as such.
    """
    pair = answer.pair and answer.pair()
    if query is None:
        query = pair.query if pair else np.full((48, 64, 3), _GROUND, np.uint8)
    ink = FOUND if answer.fix else DOUBT
    if pair is None or not answer.candidates:
        side, detail = Side(query, "query"), _doubts(answer)
        return match_picture(side, title=_title(answer), detail=detail, ink=ink, width_px=width_px)
    best = answer.candidates[0]
    score = score_text(best.score, best.score_unit)
    agree = agreement_text(len(pair.points_q), pair.matches) if pair.matches else ""
    return match_picture(
        Side(query, "query", best.quad_q, pair.points_q),
        Side(pair.candidate, best.place.name, best.quad_p, pair.points_p),
        title=_title(answer),
        detail="   ·   ".join(filter(None, [agree, _doubts(answer), score and f"score {score}"])),
        ink=ink,
        width_px=width_px,
        plan=_plan(answer) if plan else None,
    )


def answer_html(answer: Answer) -> str:
    """Return an answer as HTML: its line and, where images are at hand, the matched pair."""
    line = f"<p>{escape(repr(answer))}</p>"
    if answer.pair is None:
        return line
    data = base64.b64encode(encode_jpeg(answer_picture(answer))).decode()
    return f'{line}<img src="data:image/jpeg;base64,{data}" alt="query and best candidate">'


def score_text(score: float | None, unit: ScoreUnit | None) -> str:
    """Return a score as people read it: a mean cosine with three digits, inliers as a whole number."""
    if score is None:
        return ""
    return f"{score:.0f} inliers" if unit == "inliers" else f"{score:.3f}"


def agreement_text(inliers: int, matches: int) -> str:
    """Return how many matched keypoints agree on one view of a plane (a homography)."""
    return f"{inliers} of {matches} matched keypoints agree on one view"


def warp_to_frame(image: Image, quad: FloatArray) -> Image:
    """Pull ``quad`` (4, 2) of an image to the whole frame, as the network does (zeros outside)."""
    height, width = image.shape[:2]
    frame_from_image = cv2.getPerspectiveTransform(_pixels(quad, width, height), _pixels(_FULL, width, height))
    return np.asarray(cv2.warpPerspective(image, frame_from_image, (width, height), flags=cv2.INTER_LINEAR))


def encode_jpeg(image: Image, quality: int = 80, width_px: int = 0) -> bytes:
    """Return an RGB image as JPEG, shrunk to at most ``width_px``; 0 keeps its size."""
    height, width = image.shape[:2]
    if 0 < width_px < width:
        size = (width_px, max(1, round(height * width_px / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def save_picture(path: Path, picture: Image) -> None:
    """Write a picture in the format that the file's ending names.

    Raises:
        ImageError: It cannot be written.
    """
    try:
        Pillow.fromarray(picture).save(path, quality=90)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: the picture cannot be written: {error}") from None


def round_length(most_m: float) -> float:
    """Return the greatest of 1, 2, 5, 10, 20 … m that is not above ``most_m``."""
    power = 10.0 ** math.floor(math.log10(most_m))
    return max(step * power for step in (1, 2, 5) if step * power <= most_m)


def _pixels(quad: FloatArray, width: int, height: int) -> FloatArray:
    """-1..1 at the outer edges -> OpenCV's pixels, whose centres are whole numbers."""
    scaled: FloatArray = ((np.asarray(quad) + 1.0) * (width, height) / 2.0 - 0.5).astype(np.float32)
    return scaled


def _title(answer: Answer) -> str:
    result = answer.result
    if isinstance(result, NoFix):
        return f"no fix: {result.reason.replace('_', ' ')}"
    where = f"fix  {result.latitude_deg:.5f}, {result.longitude_deg:.5f}  ± {_metres(result.std_m)}"
    if result.orientation is None:
        return where
    return f"{where},  heading {result.heading_deg:.1f} ± {result.heading_std_deg:.1f}°"


def _doubts(answer: Answer) -> str:
    result = answer.result
    said = result.detail if isinstance(result, NoFix) else ""
    return said or f"confidence {confidence_text(result.confidence)}"


def _metres(value: float) -> str:
    return f"{value:.{0 if value >= 1 else 1}f} m"


# ---- query and photograph


@dataclass(frozen=True, slots=True)
class _Box:
    """Where an image stands on the sheet, px."""

    left: int
    top: int
    width: int
    height: int

    def at(self, points: FloatArray) -> FloatArray:
        """-1..1 -> pixels of the sheet, whose centres are whole numbers; what lies far outside comes nearer."""
        near = np.clip(np.asarray(points, float).reshape(-1, 2), -9.0, 9.0)
        return np.asarray((near + 1) * (self.width / 2, self.height / 2) + (self.left - 0.5, self.top - 0.5))

    def around(self, margin: int) -> tuple[slice, slice]:
        """Rows and columns of the box with a margin: nothing of one image reaches into another."""
        rows = slice(max(self.top - margin, 0), self.top + self.height + margin)
        return rows, slice(max(self.left - margin, 0), self.left + self.width + margin)


def match_picture(
    query: Side,
    candidate: Side | None = None,
    *,
    title: str = "",
    detail: str = "",
    ink: Colour = INK,
    width_px: int = 1200,
    plan: Image | None = None,
) -> Image:
    """Draw two images side by side with what agrees in them and, where they have quads, the warped pair below.

    What lies outside a quad is dimmed; a dot marks each corner, the ring the top-left one.

    Args:
        query: The query.
        candidate: The candidate, whose size may differ; None draws the query alone.
        title: What was found, in one line; without title and detail there are only images.
        detail: What it rests on, in one line.
        ink: Colour of the title and of the lines between keypoints.
        width_px: Width of the picture, px.
        plan: A square picture to stand beside them.

    Returns:
        (H, width_px, 3) uint8 RGB.
    """
    scale = min(max(width_px / 1200, 0.75), 1.5)
    gap, head = round(12 * scale), round((84 if detail else 56) * scale) if title or detail else round(12 * scale)
    sides = [query] if candidate is None else [query, candidate]
    warped = [
        Side(warp_to_frame(side.image, side.quad), f"{side.name}, warped")
        for side in sides
        if side.quad is not None
    ]
    rows = [[side.image for side in sides] + ([] if plan is None else [plan])]
    rows += [[side.image for side in warped]] if len(warped) == 2 else []
    boxes, bottom = [], head
    for images in rows:
        boxes.append(_row(images, bottom, width_px, gap))
        bottom += boxes[-1][0].height + gap
    sheet = Pillow.new("RGB", (width_px, bottom), PAPER)
    for images, row in zip(rows, boxes, strict=True):
        for image, box in zip(images, row, strict=True):
            _paste(sheet, image, box, round(6 * scale))
    drawn = np.array(sheet)
    for side, box, colour in zip(sides, boxes[0], (QUERY, CANDIDATE), strict=False):
        if side.quad is not None:
            _mark(drawn, box, side.quad, colour, scale, gap // 2)
    if candidate is not None and query.points is not None and candidate.points is not None:
        _join(drawn, boxes[0], (query.points, candidate.points), ink, scale)
    sheet = Pillow.fromarray(drawn)
    draw = ImageDraw.Draw(sheet, "RGBA")
    for y, text, colour, size in ((28, title, ink, 25), (62, detail, FAINT, 16)):
        font = _font(size * scale)
        draw.text((gap, y * scale), _shortened(draw, text, font, width_px - 2 * gap), colour, font, anchor="lm")
    for each, row in zip((sides, warped), boxes, strict=False):
        for side, box, colour in zip(each, row, (QUERY, CANDIDATE), strict=False):
            _label(draw, box, side.name, colour, scale)
    return np.array(sheet)


def _row(images: Sequence[Image], top: int, width_px: int, gap: int) -> list[_Box]:
    """Stand images side by side, equally high, over the whole width or, if that is too high, in its middle."""
    low, high = _ASPECTS
    aspects = [min(max(image.shape[1] / image.shape[0], low), high) for image in images]
    room = width_px - gap * (len(images) + 1)
    height = min(room / sum(aspects), 0.5 * width_px)
    widths = [round(aspect * height) for aspect in aspects]
    left, boxes = (width_px - sum(widths) - gap * (len(images) - 1)) // 2, []
    for width in widths:
        boxes.append(_Box(left, top, width, round(height)))
        left += width + gap
    return boxes


def _paste(sheet: Pillow.Image, image: Image, box: _Box, radius: int) -> None:
    shrinks = image.shape[1] > box.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, (box.width, box.height), interpolation=method), np.uint8)
    mask = _rounded(box.width, box.height, radius)
    sheet.paste(Pillow.fromarray(scaled), (box.left, box.top), mask)


@lru_cache(16)
def _rounded(width: int, height: int, radius: int) -> Pillow.Image:
    """Return the mask of a rectangle with round corners, drawn twice as large for smooth ones."""
    mask = Pillow.new("L", (2 * width, 2 * height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 2 * width - 1, 2 * height - 1), 2 * radius, 255)
    return mask.resize((width, height), Pillow.Resampling.BOX)


_font = lru_cache(16)(ImageFont.load_default)


def _mark(sheet: Image, box: _Box, quad: FloatArray, colour: Colour, scale: float, margin: int) -> None:
    """Draw a quad where it lies on an image and dim what lies outside."""
    rows, columns = box.around(margin)
    part = sheet[rows, columns]
    corners = _fixed(box.at(quad) - (columns.start, rows.start))
    inside = cv2.fillPoly(np.zeros(part.shape[:2], np.uint8), [corners], 255, cv2.LINE_AA, shift=4)
    opacity = 0.45 + 0.55 * inside[:, :, None] / 255
    marked = np.round(part * opacity + np.array(PAPER) * (1 - opacity)).astype(np.uint8)
    line, dot = max(1, round(2 * scale)), round(5 * 16 * scale)
    cv2.polylines(marked, [corners], True, colour, line, cv2.LINE_AA, shift=4)
    for index, corner in enumerate(corners.tolist()):
        cv2.circle(marked, corner, dot, PAPER if index == 0 else colour, -1, cv2.LINE_AA, shift=4)
        cv2.circle(marked, corner, dot, colour, line, cv2.LINE_AA, shift=4)
    sheet[rows, columns] = marked


def _join(
    sheet: Image, boxes: Sequence[_Box], points: tuple[FloatArray, FloatArray], ink: Colour, scale: float
) -> None:
    """Draw the keypoints that agree, and lines between some of them, spread over the image."""
    starts, ends = (box.at(side) for box, side in zip(boxes, points, strict=False))
    order = np.lexsort((starts[:, 0], starts[:, 1]))
    some = order[np.unique(np.linspace(0, len(order) - 1, min(_LINES, len(order))).astype(int))]
    over = sheet.copy()
    for start, end in zip(_fixed(starts[some]).tolist(), _fixed(ends[some]).tolist(), strict=True):
        cv2.line(over, start, end, ink, max(1, round(scale)), cv2.LINE_AA, shift=4)
    sheet[:] = cv2.addWeighted(over, 0.6, sheet, 0.4, 0)
    radius = round(16 * max(3.2, 3 * scale))
    for where, colour in ((starts, QUERY), (ends, CANDIDATE)):
        for point in _fixed(where).tolist():
            cv2.circle(sheet, point, radius + round(16 * scale), PAPER, -1, cv2.LINE_AA, shift=4)
            cv2.circle(sheet, point, radius, colour, -1, cv2.LINE_AA, shift=4)


def _label(draw: ImageDraw.ImageDraw, box: _Box, name: str, colour: Colour, scale: float) -> None:
    """Write a name at the foot of an image, in the middle: quads have their corners elsewhere."""
    font, pad = _font(15 * scale), round(7 * scale)
    text = _shortened(draw, name, font, box.width - 6 * pad)
    width = draw.textlength(text, font) + 4.2 * pad
    left, low = box.left + (box.width - width) / 2, box.top + box.height - pad
    right, high = left + width, low - 25 * scale
    draw.rounded_rectangle((left, high, right, low), 5 * scale, (*PAPER, 200))
    middle = (high + low) / 2
    draw.rectangle((left + pad, middle - 5 * scale, left + pad + 10 * scale, middle + 5 * scale), colour)
    draw.text((left + 3.2 * pad, middle), text, INK, font, anchor="lm")


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, width_px: float) -> str:
    """Return what fits of a text: of a path its end says more than its beginning."""
    ends = "/" in text and " " not in text
    if draw.textlength(text[:1000], font) <= width_px:
        return text[:1000]

    def part(count: int) -> str:
        return f"…{text[-count:]}" if ends else f"{text[:count]}…"

    most = bisect_right(
        range(1, min(len(text), 1000)), width_px, key=lambda count: draw.textlength(part(count), font)
    )
    return part(max(most, 1))


def _fixed(points: FloatArray) -> NDArray[np.int32]:
    """Return points in sixteenths of a pixel, as OpenCV's drawing takes them."""
    return np.round(np.asarray(points) * 16).astype(np.int32)


# ---- where it is


def _plan(answer: Answer, side_px: int = 480) -> Image:
    """Draw the candidates' places, north up, with the fix, its 95 % ellipse and heading, or the best guess."""
    fix, places = answer.fix, [candidate.place for candidate in answer.candidates]
    about = fix or places[0]
    frame = LocalFrame(about.latitude_deg, about.longitude_deg)
    where = frame.to_enu([p.latitude_deg for p in places], [p.longitude_deg for p in places])[:, :2]
    ellipse = np.zeros((1, 2)) if fix is None else ellipse_m(fix)
    shown = np.abs(where[0]).max() if fix else np.median(np.abs(where[:10]).max(axis=1))
    reach = 1.3 * max(np.abs(ellipse).max(), float(shown), 8.0)
    scale = side_px / 2 / reach
    sheet = np.full((side_px, side_px, 3), _GROUND, np.uint8)

    def at(east_north_m: FloatArray) -> NDArray[np.int32]:
        near = np.clip(east_north_m, -9 * reach, 9 * reach)
        return _fixed(near * (scale, -scale) + (side_px / 2 - 0.5))

    def dot(point: FloatArray, radius: float, colour: Colour, filled: bool = True) -> None:
        (middle,) = at(point[None]).tolist()
        cv2.circle(sheet, middle, round(16 * radius + 24), PAPER, -1, cv2.LINE_AA, shift=4)
        cv2.circle(sheet, middle, round(16 * radius), colour, -1 if filled else 2, cv2.LINE_AA, shift=4)

    over = sheet.copy()
    if fix is not None:
        cv2.fillPoly(over, [at(ellipse)], FOUND, cv2.LINE_AA, shift=4)
        if math.isfinite(fix.heading_deg):
            turn = np.radians(fix.heading_deg + np.linspace(-26, 26, 14))
            fan = 0.34 * reach * np.stack([np.sin(turn), np.cos(turn)], axis=1)
            cv2.fillPoly(over, [at(np.concatenate([np.zeros((1, 2)), fan]))], INK, cv2.LINE_AA, shift=4)
    sheet[:] = cv2.addWeighted(over, 0.25, sheet, 0.75, 0)
    if fix is not None:
        cv2.polylines(sheet, [at(ellipse)], True, FOUND, 2, cv2.LINE_AA, shift=4)
    for place in where[1:]:
        dot(place, 3.5, FAINT)
    dot(where[0], 6, CANDIDATE, filled=fix is not None)
    if fix is not None:
        dot(np.zeros(2), 6, FOUND)
    return _written(sheet, reach, scale, fix is not None)


def _written(sheet: Image, reach: float, scale: float, fixed: bool) -> Image:
    """Return the plan with its scale, north and what its marks are."""
    picture, side = Pillow.fromarray(sheet), len(sheet)
    draw, font = ImageDraw.Draw(picture, "RGBA"), _font(19)
    draw.polygon([(side - 24, 14), (side - 31, 34), (side - 17, 34)], fill=FAINT)
    draw.text((side - 24, 46), "N", FAINT, font, anchor="mm")
    length = round_length(0.6 * reach)
    right, low = 16 + length * scale, side - 16
    draw.line([(16, low - 7), (16, low), (right, low), (right, low - 7)], INK, 2)
    draw.text((right + 10, low - 4), f"{length:g} m", INK, font, anchor="lm")
    marks = (
        [("fix, 95 % ellipse", FOUND), ("best photograph", CANDIDATE)]
        if fixed
        else [("best guess, no fix", CANDIDATE)]
    )
    marks.append(("other candidates", FAINT))
    draw.rounded_rectangle((6, 6, 200, 14 + 28 * len(marks)), 6, (*_GROUND, 190))
    for row, (text, colour) in enumerate(marks):
        y = 24 + 28 * row
        draw.ellipse((16, y - 5, 26, y + 5), None if colour == CANDIDATE and not fixed else colour, colour, 2)
        draw.text((36, y), text, INK, font, anchor="lm")
    return np.array(picture)


def ellipse_m(fix: Fix, corners: int = 64) -> FloatArray:
    """Return the ellipse that holds 95 % as a polygon (corners, 2), m east and north of the fix, anticlockwise."""
    variances, axes = np.linalg.eigh(np.asarray(fix.covariance, float)[:2, :2])
    turn = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    root = axes * np.sqrt(np.maximum(variances, 0)) @ axes.T  # symmetric: it does not turn the circle round
    return np.asarray(WITHIN_95 * circle @ root)
