"""An alignment as a map: where the tags say that photographs were taken, and where they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from geowarp_ros.pictures import FAINT, INK, LOST, PAPER, QUERY, round_length
from geowarp_ros.types import FloatArray, Image

WIDTH_PX = 1200
OWN = QUERY
"""Colour of a photograph's own position."""
TAG = FAINT
POINT = (66, 75, 87)
NAMED = 5
"""Number of suspicious tags whose names are written."""

_TITLE_PX, _FOOT_PX, _MARGIN_PX = 52, 44, 40
_HEIGHTS_PX = (400, 1200)
_TICK_PX = 11
_MIN_EXTENT_M = 10.0


@dataclass(frozen=True, slots=True)
class AlignedMap:
    """What the map shows, in metres east and north of one origin; N photographs.

    Attributes:
        tags_m: (N, 2) tags.
        positions_m: (N, 2) the photographs' own positions; NaN where not tied.
        headings_deg: (N,) compass heading of each; NaN where not tied.
        points_m: (P, 2) triangulated points.
        suspicious: Photographs whose tags are wrong -> what to write beside the first of them.
        title: One line.
    """

    tags_m: FloatArray
    positions_m: FloatArray
    headings_deg: FloatArray
    points_m: FloatArray
    suspicious: Mapping[int, str]
    title: str


def alignment_picture(shown: AlignedMap) -> Image:
    """Draw tags and positions, north up, with a scale.

    Grey dots are tags, a line leads from each to the photograph's own position, a tick shows where it looks. Rings
    are photographs that nothing ties. Points beyond the photographs' surroundings are left out.

    Returns:
        (H, WIDTH_PX, 3) uint8 RGB.
    """
    view = _View.of(np.concatenate([shown.tags_m, shown.positions_m]))
    sheet = np.full((_TITLE_PX + view.height_px + _FOOT_PX, WIDTH_PX, 3), PAPER, np.uint8)
    x, y = np.round(view(shown.points_m)).astype(int).T
    inside = (x >= 0) & (x < WIDTH_PX) & (y >= _TITLE_PX) & (y < _TITLE_PX + view.height_px)
    sheet[y[inside], x[inside]] = POINT
    tags, own = view(shown.tags_m), view(shown.positions_m)
    tied = np.asarray(np.isfinite(own).all(axis=1))
    for row in np.flatnonzero(tied).tolist():
        _line(sheet, tags[row], own[row], LOST if row in shown.suspicious else TAG)
    for row, tag in enumerate(tags):
        if not tied[row]:
            cv2.circle(sheet, _fixed(tag), 4 * 16, TAG, 1, cv2.LINE_AA, shift=4)
        elif row not in shown.suspicious:
            cv2.circle(sheet, _fixed(tag), 2 * 16, TAG, -1, cv2.LINE_AA, shift=4)
    for row in np.flatnonzero(tied).tolist():
        heading = math.radians(shown.headings_deg[row])
        tick = np.array([math.sin(heading), -math.cos(heading)])
        _line(sheet, own[row], own[row] + _TICK_PX * tick, OWN)
        cv2.circle(sheet, _fixed(own[row]), 3 * 16, OWN, -1, cv2.LINE_AA, shift=4)
    for row in shown.suspicious:
        cv2.circle(sheet, _fixed(tags[row]), 4 * 16, LOST, -1, cv2.LINE_AA, shift=4)
    return _written(sheet, shown, tags, view)


@dataclass(frozen=True, slots=True)
class _View:
    """From metres east and north to pixels of the sheet."""

    corner_m: FloatArray
    """West end of the map's west margin, and its north one's."""
    scale: float
    """Pixels per metre."""
    height_px: int

    @classmethod
    def of(cls, positions_m: FloatArray) -> _View:
        known = positions_m[np.isfinite(positions_m).all(axis=1)].reshape(-1, 2)
        low, high = (known.min(axis=0), known.max(axis=0)) if len(known) else (np.zeros(2), np.zeros(2))
        middle, extent = (low + high) / 2, np.maximum(high - low, _MIN_EXTENT_M)
        room = np.array([WIDTH_PX, _HEIGHTS_PX[1]]) - 2 * _MARGIN_PX
        scale = float((room / extent).min())
        height = max(math.ceil(extent[1] * scale) + 2 * _MARGIN_PX, _HEIGHTS_PX[0])
        half = np.array([WIDTH_PX, height]) / 2 / scale
        return cls(middle + half * (-1, 1), scale, height)

    def __call__(self, positions_m: FloatArray) -> FloatArray:
        pixels: FloatArray = (positions_m - self.corner_m) * (self.scale, -self.scale) + (0, _TITLE_PX)
        return pixels


def _written(sheet: Image, shown: AlignedMap, tags: FloatArray, view: _View) -> Image:
    """Return the sheet with title, names, scale, north and legend."""
    picture = Pillow.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    draw.text((_MARGIN_PX, _TITLE_PX / 2), shown.title, fill=INK, font=ImageFont.load_default(21), anchor="lm")
    for row in list(shown.suspicious)[:NAMED]:
        right = tags[row][0] + 10 + draw.textlength(shown.suspicious[row], font=font) < WIDTH_PX
        at = tags[row] + ((10, 0) if right else (-10, 0))
        draw.text((at[0], at[1]), shown.suspicious[row], fill=LOST, font=font, anchor="lm" if right else "rm")
    north = (WIDTH_PX - _MARGIN_PX, _TITLE_PX + 12)
    draw.polygon([(north[0], north[1]), (north[0] - 7, north[1] + 22), (north[0] + 7, north[1] + 22)], fill=FAINT)
    draw.text((north[0], north[1] + 34), "N", fill=FAINT, font=font, anchor="mm")
    y = _TITLE_PX + view.height_px + _FOOT_PX / 2
    length = round_length(WIDTH_PX / 5 / view.scale)
    end = _MARGIN_PX + length * view.scale
    draw.line(
        [(_MARGIN_PX, y - 5), (_MARGIN_PX, y + 5), (_MARGIN_PX, y), (end, y), (end, y - 5), (end, y + 5)], INK
    )
    draw.text((end + 10, y), f"{length:g} m", fill=INK, font=font, anchor="lm")
    x = float(WIDTH_PX - _MARGIN_PX)
    legend = {"not tied": None, "suspicious tag": LOST, "own position, looking": OWN, "tag": TAG}
    for text, colour in legend.items():
        draw.text((x, y), text, fill=FAINT, font=font, anchor="rm")
        x -= draw.textlength(text, font=font) + 12
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline=colour or TAG)
        x -= 24
    return np.array(picture)


def _line(sheet: Image, start: FloatArray, end: FloatArray, colour: tuple[int, int, int]) -> None:
    cv2.line(sheet, _fixed(start), _fixed(end), colour, 1, cv2.LINE_AA, shift=4)


def _fixed(point: FloatArray) -> tuple[int, int]:
    """Return a point in sixteenths of a pixel, as OpenCV's drawing takes it."""
    return round(float(point[0]) * 16), round(float(point[1]) * 16)
