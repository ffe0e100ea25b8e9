"""Answers to single images, none of known position: as GeoJSON, and as a page with the map of the reports."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.evaluation import page
from geowarp_ros.evaluation.cards import map_scene, matched
from geowarp_ros.evaluation.drive import NS
from geowarp_ros.evaluation.exports import feature, lon_lat, rounded
from geowarp_ros.evaluation.run import THUMBNAIL_PX, Answered, Run
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import answer_picture, ellipse_m, encode_jpeg
from geowarp_ros.types import Answer, Fix, FloatArray, Image

MATCHES_SHOWN = 60
"""Maximum number of images whose match is shown large below the map."""

_MATCH_PX = 1000


@dataclass(frozen=True, slots=True)
class Localized:
    """One image and what the localizer said.

    Attributes:
        name: The image's path, as it was given.
        answer: The answer; its ``pair`` may be gone.
        thumbnail: The image as JPEG; empty where no page is made.
        match: Picture of the match (HTML); likewise.
    """

    name: str
    answer: Answer
    thumbnail: bytes = b""
    match: str = ""

    @classmethod
    def shown(cls, name: str, answer: Answer, image: Image, number: int) -> Localized:
        """Return the image with its pictures for a page; of very many the later ones have no large one."""
        large = (
            matched(answer_picture(answer, image, width_px=_MATCH_PX, plan=True)) if number < MATCHES_SHOWN else ""
        )
        return cls(name, answer, encode_jpeg(image, 78, 2 * THUMBNAIL_PX), large)


def write_answers_geojson(localized: Sequence[Localized], path: Path) -> None:
    """Write answers as GeoJSON (RFC 7946: longitude first, polygons anticlockwise, cut at the antimeridian).

    A fix is a point (kind ``fix``), and the ellipse that holds 95 % a polygon (kind ``ellipse``). A no-fix has no
    geometry, for a geometry is a position: its best guess is named by properties.
    """
    features = [each for item in localized for each in _features(item)]
    path.write_text(
        json.dumps({"type": "FeatureCollection", "features": features}, indent=1, allow_nan=False),
        encoding="utf-8",
    )


def _features(item: Localized) -> list[dict[str, Any]]:
    answer, fix = item.answer, item.answer.fix
    of: dict[str, Any] = {"image": item.name, "confidence": rounded(answer.confidence)}
    best = answer.candidates[0].place if answer.candidates else None
    if fix is None:
        guess = [best.name, *reversed(lon_lat(best))] if best else [None] * 3
        said = dict(zip(("best_guess", "best_guess_latitude", "best_guess_longitude"), guess, strict=True))
        reason = {name: getattr(answer.result, name) for name in ("reason", "detail")}
        nowhere = {"type": "Feature", "geometry": None, "properties": {**of, "kind": "no_fix", **reason, **said}}
        return [nowhere]
    known = {
        "photograph": best.name if best else None,
        "method": fix.method,
        "std_m": rounded(fix.std_m),
        "heading_deg": rounded(fix.heading_deg),
        "heading_std_deg": rounded(fix.heading_std_deg),
        "altitude_m": rounded(fix.altitude_m),
    }
    shape, rings = _ellipse(fix)
    return [
        feature("Point", lon_lat(fix), **of, kind="fix", **known),
        feature(shape, rings, **of, kind="ellipse", probability=0.95),
    ]


def _ellipse(fix: Fix) -> tuple[str, list[Any]]:
    """Return the ellipse that holds 95 % as a polygon or, on both sides of the antimeridian, as two."""
    local = np.column_stack([ellipse_m(fix), np.zeros(64)])
    latitude, longitude, _ = LocalFrame(fix.latitude_deg, fix.longitude_deg).to_geodetic(local)
    longitude = fix.longitude_deg + (longitude - fix.longitude_deg + 180) % 360 - 180
    ring = np.column_stack([longitude, latitude])
    if np.abs(longitude).max() <= 180:
        return "Polygon", [_closed(ring)]
    side = math.copysign(1, fix.longitude_deg)
    here, there = _kept(ring, side), _kept(ring, side, beyond=True) - (side * 360, 0)
    return "MultiPolygon", [[_closed(part)] for part in (here, there)]


def _kept(ring: FloatArray, side: float, *, beyond: bool = False) -> FloatArray:
    """Return the part of a convex ring on this side of the meridian side · 180°, or beyond it."""
    over = (side * ring[:, 0] - 180) * (-1 if beyond else 1)  # above 0: cut away
    found = []
    for row, point in enumerate(ring):
        if over[row - 1] * over[row] < 0:
            part = over[row - 1] / (over[row - 1] - over[row])
            found.append([side * 180, ring[row - 1, 1] + part * (point[1] - ring[row - 1, 1])])
        if over[row] <= 0:
            found.append(point.tolist())
    return np.array(found)


def _closed(ring: FloatArray) -> list[list[float]]:
    return [[round(value, 9) for value in point] for point in [*ring.tolist(), ring[0].tolist()]]


def write_answers_page(
    localized: Sequence[Localized], unread: Sequence[str], gallery: Gallery, path: Path
) -> None:
    """Write answers as one HTML file that opens offline: the map, beside it what is chosen, below it every match.

    Args:
        localized: At least one, made by :meth:`Localized.shown`.
        unread: What is said of images that could not be read.
        gallery: The gallery that was searched.
        path: Path of the HTML file.
    """
    answered = tuple(
        Answered(item.name, (row + 1) * NS, None, item.answer, item.answer.fix, item.thumbnail)
        for row, item in enumerate(localized)
    )
    fixes = sum(item.answer.fix is not None for item in localized)
    count = f"{len(localized)} image{'s' if len(localized) > 1 else ''}"
    run = Run(f"{count} in {gallery.path.resolve().name}", answered, gallery.frame)
    shown = map_scene(run, 0, gallery.positions_enu[:, :2], gallery.image, untimed=True)
    drive, places = shown["drive"], shown["places"]
    for row, item in enumerate(localized):  # a guess stands where its photograph does
        if item.answer.fix is None and drive["place"][row] is not None:
            drive["x"][row], drive["y"][row] = (places[axis][drive["place"][row]] for axis in "xy")
    said = f"{fixes} with a fix, {len(localized) - fixes} without: a diamond is the best guess, and no position."
    body = [
        f"<header><h1>{escape(run.title)}</h1><p>{escape(said)}</p></header>",
        page.notes(unread),
        '<h2>Where</h2><p>Scroll to zoom, drag to move; click an image to see it.</p><div id="map"></div>',
        "<h2>What they were matched with</h2>",
        *(f"<p>{escape(item.name)}</p>{item.match}" for item in localized if item.match),
    ]
    page.write_page(path, f"{run.title} · geowarp", body, {}, shown)
