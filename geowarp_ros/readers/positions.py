"""What every source asks of a position before a gallery keeps it."""

from __future__ import annotations

from dataclasses import replace

from geowarp_ros.readers.source import Skipped, Source

NULL_ISLAND = "at 0°, 0°, which receivers report without a fix (--accept-null-island keeps it)"
"""Reason for which a position is left out."""


MAX_ERROR_M = 100.0
"""Stated horizontal error above which a position places no photograph: it is a radio cell's, or of a receiver that
does not see the sky. A phone that goes by wireless networks states 30 to 65 m."""


def null_island(latitude_deg: float, longitude_deg: float) -> bool:
    """Return whether a position is exactly 0°, 0°: in the sea, and what receivers report without a fix."""
    return latitude_deg == 0 and longitude_deg == 0


def without_null_island(found: Source) -> Source:
    """Return a source whose images at 0°, 0° are among those left out."""
    lost = [i for i in found.images if null_island(i.place.latitude_deg, i.place.longitude_deg)]
    if not lost:
        return found
    kept = tuple(i for i in found.images if not null_island(i.place.latitude_deg, i.place.longitude_deg))
    skipped = (*found.skipped, *(Skipped(image.place.name, NULL_ISLAND) for image in lost))
    return replace(found, images=kept, skipped=skipped)
