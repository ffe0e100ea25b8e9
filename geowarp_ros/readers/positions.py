"""What every source asks of a position before a gallery keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.source import Skipped, Source, SourceImage

NULL_ISLAND = "at 0°, 0°, which receivers report without a fix (--accept-null-island keeps it)"
"""Reason for which a position is left out."""

ALTITUDES_M = (-12_000, 100_000)
"""Lowest and highest altitude (m) that is one: beyond them it is a number that ran over, or of another unit."""

MAX_ERROR_M = 100.0
"""Stated horizontal error above which a position places no photograph: it is a radio cell's, or of a receiver that
does not see the sky. A phone that goes by wireless networks states 30 to 65 m."""


GRIDS = {
    1.0: "whole degrees",
    1 / 60: "whole minutes",
    0.1: "one decimal",
    0.01: "two decimals",
    0.001: "three decimals",
}
"""Step (deg) of positions that were cut short, for privacy or by a spreadsheet, and its name."""

FAR, MIN_FAR_M = 10.0, 500.0
"""An image is far from the rest beyond so many times the distance that three quarters keep, and so many metres."""


def null_island(latitude_deg: float, longitude_deg: float) -> bool:
    """Return whether a position is 0°, 0°: in the sea, and what receivers report without a fix.

    Exactly, but for a decimetre: it may have been metres of a UTM zone on the way.
    """
    return abs(latitude_deg) < 1e-6 and abs(longitude_deg) < 1e-6


def without_null_island(found: Source) -> Source:
    """Return a source whose images at 0°, 0° are among those left out."""
    lost = [i for i in found.images if null_island(i.place.latitude_deg, i.place.longitude_deg)]
    if not lost:
        return found
    kept = tuple(i for i in found.images if not null_island(i.place.latitude_deg, i.place.longitude_deg))
    skipped = (*found.skipped, *(Skipped(image.place.name, NULL_ISLAND) for image in lost))
    return replace(found, images=kept, skipped=skipped)


def doubts(images: Sequence[SourceImage]) -> list[str]:
    """Return what looks wrong about positions each of which is possible, in sentences with the images' names.

    All at one place; all cut to few decimals or to whole minutes; some :data:`FAR` times as far from the middle as
    three quarters are.
    """
    names = [image.place.name for image in images]
    degrees = np.array([(i.place.latitude_deg, i.place.longitude_deg) for i in images]).reshape(-1, 2)
    if len(names) < 2:
        return []
    if (degrees == degrees[0]).all():
        where = f"{degrees[0, 0]:g}, {degrees[0, 1]:g}"
        return [f"all {len(names)} images are at one position ({where}): {_some(names)}"]
    for step_deg, words in GRIDS.items():
        if np.allclose(degrees / step_deg, np.rint(degrees / step_deg), rtol=0, atol=1e-6):
            metres = 111_320 * step_deg / 2
            said = f"all {len(names)} positions are cut to {words}, which moves images by up to {metres:,.0f} m"
            return [f"{said}: {_some(names)}"]
    frame = LocalFrame(*degrees[0])
    enu = frame.to_enu(*degrees.T)
    distance = np.linalg.norm(enu - np.median(enu, axis=0), axis=1)
    usual = max(float(np.quantile(distance, 0.75, method="lower")), MIN_FAR_M / FAR)
    far = [f"{names[row]} ({distance[row] / 1000:,.1f} km)" for row in np.flatnonzero(distance > FAR * usual)]
    if len(names) < 3 or not far:
        return []
    return [f"{len(far)} of {len(names)} images are far from the rest: {_some(far)}; are their positions right?"]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
