"""The picture of a match: both images with their quads, and below them the pair as warped.

Drawn with OpenCV and Pillow alone, in milliseconds, so that a node can publish it too.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from geowarp_ros.geometry import warp
from geowarp_ros.types import FloatArray, Image

_PAPER = (20, 23, 28)
_INK = (236, 239, 244)
_FAINT = (140, 148, 160)
_COLOURS = ((64, 196, 255), (255, 171, 64))  # query, candidate

_GAP_PX = 16
_ROOM_PX = 28  # around an image, for quads that reach outside it
_TITLE_PX = 52
_CAPTION_PX = 24


def match_figure(
    image_q: Image,
    image_p: Image,
    quad_q: FloatArray | None = None,
    quad_p: FloatArray | None = None,
    *,
    title: str = "",
    names: tuple[str, str] = ("query", "candidate"),
    width_px: int = 1200,
) -> Image:
    """Draw two images side by side, each with its quad, and the warped pair below.

    What lies outside a quad is dimmed; a dot marks each corner, the ring the top-left one.

    Args:
        image_q: The query, (H, W, 3) uint8 RGB.
        image_p: The candidate, likewise; its size may differ.
        quad_q: (4, 2) on the query, -1..1; None draws the images alone.
        quad_p: (4, 2) on the candidate; None with ``quad_q``.
        title: One line above, such as distance and score.
        names: What the two images are called.
        width_px: Of the figure.

    Returns:
        (H, width_px, 3) uint8 RGB.
    """
    panel_px = (width_px - 3 * _GAP_PX) // 2
    images = [_fit(image, panel_px - 2 * _ROOM_PX) for image in (image_q, image_p)]
    if quad_q is None or quad_p is None:
        rows = [(images, list(names))]
    else:
        quads = (np.asarray(quad_q, np.float32), np.asarray(quad_p, np.float32))
        marked = [_mark(*parts) for parts in zip(images, quads, _COLOURS, strict=True)]
        warped = [_warped(*parts) for parts in zip(images, quads, _COLOURS, strict=True)]
        rows = [(marked, list(names)), (warped, [f"{name}, warped" for name in names])]
    return _compose(rows, title, panel_px, width_px)


def _compose(rows: list[tuple[list[Image], list[str]]], title: str, panel_px: int, width_px: int) -> Image:
    heights = [max(panel.shape[0] for panel in panels) for panels, _ in rows]
    height_px = _TITLE_PX + sum(heights) + len(rows) * (_CAPTION_PX + _GAP_PX)
    sheet = Pillow.new("RGB", (width_px, height_px), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX + _ROOM_PX, _TITLE_PX / 2), title, fill=_INK, font=ImageFont.load_default(21), anchor="lm")
    y = _TITLE_PX
    for (panels, captions), height in zip(rows, heights, strict=True):
        for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
            x = _GAP_PX + column * (panel_px + _GAP_PX) + (panel_px - panel.shape[1]) // 2
            left = _GAP_PX + column * (panel_px + _GAP_PX) + _ROOM_PX
            draw.rectangle((left, y + 6, left + 11, y + 17), fill=_COLOURS[column])
            draw.text((left + 19, y + 12), caption, fill=_FAINT, font=ImageFont.load_default(15), anchor="lm")
            sheet.paste(Pillow.fromarray(panel), (x, y + _CAPTION_PX + (height - panel.shape[0]) // 2))
        y += height + _CAPTION_PX + _GAP_PX
    return np.array(sheet)


def _fit(image: Image, side_px: int) -> Image:
    """Scale to ``side_px`` wide, or three quarters of it high where the image is tall."""
    height, width = image.shape[:2]
    scale = min(side_px / width, 0.75 * side_px / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method)  # type: ignore[no-any-return]


def _mark(image: Image, quad: FloatArray, colour: tuple[int, int, int]) -> Image:
    """Draw ``quad`` on the image, with room around it, and dim what lies outside."""
    height, width = image.shape[:2]
    panel: Image = _surround(image, _ROOM_PX, _PAPER)
    corners = (quad + 1) * (width / 2, height / 2) + _ROOM_PX - 0.5  # pixel centres at whole numbers
    fixed_point = np.round(np.clip(corners, -4 * width, 4 * width) * 16).astype(np.int32)
    inside = cv2.fillPoly(np.zeros(panel.shape[:2], np.uint8), [fixed_point], 255, cv2.LINE_AA, shift=4)
    opacity = 0.45 + 0.55 * inside[:, :, None] / 255
    panel = np.round(panel * opacity + np.array(_PAPER) * (1 - opacity)).astype(np.uint8)
    cv2.polylines(panel, [fixed_point], True, colour, 2, cv2.LINE_AA, shift=4)
    for index, corner in enumerate(fixed_point.tolist()):
        cv2.circle(panel, corner, 6 * 16, _PAPER if index == 0 else colour, -1, cv2.LINE_AA, shift=4)
        cv2.circle(panel, corner, 6 * 16, colour, 2, cv2.LINE_AA, shift=4)
    return panel


def _warped(image: Image, quad: FloatArray, colour: tuple[int, int, int]) -> Image:
    """Warp the image so that ``quad`` fills it, in a thin frame and the same room as :func:`_mark` leaves."""
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    warped = warp(pixels, torch.from_numpy(quad)[None])[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    return _surround(_surround(warped, 2, colour), _ROOM_PX - 2, _PAPER)


def _surround(image: Image, width_px: int, colour: tuple[int, int, int]) -> Image:
    borders = (width_px,) * 4
    surrounded: Image = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=colour)
    return surrounded
