"""Thinning photographs that were taken close to one another and look the same way."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.source import Skipped, Source
from geowarp_ros.types import Place

SAME_VIEW_DEG = 30.0
"""Maximum difference of the headings of one view: photographs of a phone, 65° wide, still share half of it."""


def spaced(found: Source, min_spacing_m: float, *, all_round: bool = False) -> Source:
    """Leave out each image that is too close to one before it, of the same split, that looks the same way.

    Unlike the images of a bag, those of a folder come in no order: each is compared with all that are kept. Where
    a heading is unknown, two images count as looking the same way.

    Args:
        found: The source.
        min_spacing_m: Minimum distance between images of one view, m.
        all_round: Whether the images are panoramas, which look the same way whatever their heading.
    """
    if min_spacing_m <= 0 or not found.images:
        return found
    places = [image.place for image in found.images]
    frame = LocalFrame(places[0].latitude_deg, places[0].longitude_deg)
    where = frame.to_enu([p.latitude_deg for p in places], [p.longitude_deg for p in places])[:, :2].tolist()
    kept: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)  # rows by split and cell
    images, skipped = [], list(found.skipped)
    for row, image in enumerate(found.images):
        column, line = (math.floor(metres / min_spacing_m) for metres in where[row])
        near = (
            other
            for east in (column - 1, column, column + 1)
            for north in (line - 1, line, line + 1)
            for other in kept.get((image.split, east, north), ())
        )
        if any(
            math.dist(where[row], where[other]) < min_spacing_m
            and (all_round or _same_view(places[row], places[other]))
            for other in near
        ):
            reason = f"closer than {min_spacing_m:g} m to another that looks the same way"
            skipped.append(Skipped(image.place.name, reason))
        else:
            kept[image.split, column, line].append(row)
            images.append(image)
    return replace(found, images=tuple(images), skipped=tuple(skipped))


def _same_view(a: Place, b: Place) -> bool:
    apart_deg = math.remainder(a.heading_deg - b.heading_deg, 360.0)
    return not abs(apart_deg) > SAME_VIEW_DEG  # NaN: unknown
