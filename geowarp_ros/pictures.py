"""Pictures of a match: query and candidate with their quads, and both as warped to a common viewpoint.

Drawn with OpenCV and Pillow in milliseconds, so that the node can publish them.
"""

from __future__ import annotations

import base64
from html import escape

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from geowarp_ros.types import Answer, FloatArray, Image, NoFix, ScoreUnit

WIDTH_PX = 800
"""Width of the picture of an answer."""
FOUND, LOST = (60, 220, 90), (245, 80, 60)
PAPER = (20, 23, 28)
INK = (236, 239, 244)
FAINT = (140, 148, 160)
_COLOURS = ((64, 196, 255), (255, 171, 64))  # query, candidate

_GAP_PX = 16
_ROOM_PX = 28  # around an image, for quads that reach outside it
_TITLE_PX = 52
_CAPTION_PX = 24
_FULL = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def answer_picture(query: Image, candidate: Image | None, answer: Answer) -> Image:
    """Return :func:`match_figure` of an answer's best candidate under a line that says what was answered.

    Args:
        query: The camera image.
        candidate: The best candidate's image; None without candidates.
        answer: What the localizer said.
    """
    result = answer.result
    verdict = (
        f"no fix: {result.reason}" if isinstance(result, NoFix) else f"fix, confidence {result.confidence:.2f}"
    )
    ink = FOUND if answer.fix else LOST
    if candidate is None or not answer.candidates:
        return match_figure(query, title=verdict, ink=ink, width_px=WIDTH_PX)
    best = answer.candidates[0]
    names = ("query", f"{best.place.name}   {score_text(best.score, best.score_unit)}")
    return match_figure(
        query, candidate, best.quad_q, best.quad_p, title=verdict, names=names, ink=ink, width_px=WIDTH_PX
    )


def answer_html(answer: Answer) -> str:
    """Return an answer as HTML: its line and, where images are at hand, the matched pair."""
    line = f"<p>{escape(repr(answer))}</p>"
    if answer.pair is None:
        return line
    query, candidate = answer.pair()
    data = base64.b64encode(encode_jpeg(answer_picture(query, candidate, answer))).decode()
    return f'{line}<img src="data:image/jpeg;base64,{data}" alt="query and best candidate">'


def score_text(score: float | None, unit: ScoreUnit | None) -> str:
    """Return a score as people read it: a mean cosine with three digits, inliers as a whole number."""
    if score is None:
        return ""
    return f"{score:.0f} inliers" if unit == "inliers" else f"{score:.3f}"


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


def _pixels(quad: FloatArray, width: int, height: int) -> FloatArray:
    """-1..1 at the outer edges -> OpenCV's pixels, whose centres are whole numbers."""
    scaled: FloatArray = ((np.asarray(quad) + 1.0) * (width, height) / 2.0 - 0.5).astype(np.float32)
    return scaled


def match_figure(
    image_q: Image,
    image_p: Image | None = None,
    quad_q: FloatArray | None = None,
    quad_p: FloatArray | None = None,
    *,
    title: str = "",
    names: tuple[str, str] = ("query", "candidate"),
    ink: tuple[int, int, int] = INK,
    width_px: int = 1200,
) -> Image:
    """Draw two images side by side, each with its quad, and the warped pair below.

    What lies outside a quad is dimmed; a dot marks each corner, the ring the top-left one.

    Args:
        image_q: The query, (H, W, 3) uint8 RGB.
        image_p: The candidate, likewise; its size may differ. None draws the query alone.
        quad_q: (4, 2) on the query, -1..1; None draws the images alone.
        quad_p: (4, 2) on the candidate; None with ``quad_q``.
        title: One line above, such as distance and score.
        names: What the two images are called.
        ink: Colour of the title.
        width_px: Width of the figure, px.

    Returns:
        (H, width_px, 3) uint8 RGB.
    """
    panel_px = (width_px - 3 * _GAP_PX) // 2
    images = [_fit(image, panel_px - 2 * _ROOM_PX) for image in (image_q, image_p) if image is not None]
    if quad_q is None or quad_p is None:
        rows = [(images, list(names))]
    else:
        quads = (np.asarray(quad_q, np.float32), np.asarray(quad_p, np.float32))
        marked = [_mark(*parts) for parts in zip(images, quads, _COLOURS, strict=True)]
        warped = [_warped(*parts) for parts in zip(images, quads, _COLOURS, strict=True)]
        rows = [(marked, list(names)), (warped, [f"{name}, warped" for name in names])]
    return _compose(rows, title, ink, panel_px, width_px)


def _compose(
    rows: list[tuple[list[Image], list[str]]], title: str, ink: tuple[int, int, int], panel_px: int, width_px: int
) -> Image:
    heights = [max(panel.shape[0] for panel in panels) for panels, _ in rows]
    height_px = _TITLE_PX + sum(heights) + len(rows) * (_CAPTION_PX + _GAP_PX)
    sheet = Pillow.new("RGB", (width_px, height_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX + _ROOM_PX, _TITLE_PX / 2), title, fill=ink, font=ImageFont.load_default(21), anchor="lm")
    y = _TITLE_PX
    for (panels, captions), height in zip(rows, heights, strict=True):
        for column, (panel, caption) in enumerate(zip(panels, captions, strict=False)):
            x = _GAP_PX + column * (panel_px + _GAP_PX) + (panel_px - panel.shape[1]) // 2
            left = _GAP_PX + column * (panel_px + _GAP_PX) + _ROOM_PX
            draw.rectangle((left, y + 6, left + 11, y + 17), fill=_COLOURS[column])
            draw.text((left + 19, y + 12), caption, fill=FAINT, font=ImageFont.load_default(15), anchor="lm")
            sheet.paste(Pillow.fromarray(panel), (x, y + _CAPTION_PX + (height - panel.shape[0]) // 2))
        y += height + _CAPTION_PX + _GAP_PX
    return np.array(sheet)


def _fit(image: Image, side_px: int) -> Image:
    """Scale to ``side_px`` wide, or three quarters of it high where the image is tall."""
    height, width = image.shape[:2]
    scale = min(side_px / width, 0.75 * side_px / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method))


def _mark(image: Image, quad: FloatArray, colour: tuple[int, int, int]) -> Image:
    """Draw ``quad`` on the image, with room around it, and dim what lies outside."""
    height, width = image.shape[:2]
    panel: Image = _surround(image, _ROOM_PX, PAPER)
    corners = (quad + 1) * (width / 2, height / 2) + _ROOM_PX - 0.5  # pixel centres at whole numbers
    fixed_point = np.round(np.clip(corners, -4 * width, 4 * width) * 16).astype(np.int32)
    inside = cv2.fillPoly(np.zeros(panel.shape[:2], np.uint8), [fixed_point], 255, cv2.LINE_AA, shift=4)
    opacity = 0.45 + 0.55 * inside[:, :, None] / 255
    panel = np.round(panel * opacity + np.array(PAPER) * (1 - opacity)).astype(np.uint8)
    cv2.polylines(panel, [fixed_point], True, colour, 2, cv2.LINE_AA, shift=4)
    for index, corner in enumerate(fixed_point.tolist()):
        cv2.circle(panel, corner, 6 * 16, PAPER if index == 0 else colour, -1, cv2.LINE_AA, shift=4)
        cv2.circle(panel, corner, 6 * 16, colour, 2, cv2.LINE_AA, shift=4)
    return panel


def _warped(image: Image, quad: FloatArray, colour: tuple[int, int, int]) -> Image:
    """Warp the image so that ``quad`` fills it, in a thin frame and the same room as :func:`_mark` leaves."""
    return _surround(_surround(warp_to_frame(image, quad), 2, colour), _ROOM_PX - 2, PAPER)


def _surround(image: Image, width_px: int, colour: tuple[int, int, int]) -> Image:
    borders = (width_px,) * 4
    return np.asarray(cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=colour), np.uint8)
