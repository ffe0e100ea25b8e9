"""How a gallery's photographs are aligned: options, without what aligns."""

from __future__ import annotations

from pydantic import Field

from geowarp_ros.config import Section

MIN_PHOTOGRAPHS = 3
"""Number of photographs below which nothing is aligned: two fit any two tags."""


class AlignOptions(Section):
    """How a gallery's photographs are aligned."""

    position_std_m: float = Field(
        2.0, gt=0.0, le=1000.0, description="Standard deviation of a tag's position per axis (m)."
    )
    heading_std_deg: float = Field(
        10.0, gt=0.0, le=180.0, description="Standard deviation of the headings that come with the tags (°)."
    )
    free_tilt: bool = Field(False, description="Whether cameras may be held at any tilt, as drones' are.")
    neighbours: int = Field(
        24, ge=1, le=1000, description="Number of nearest photographs with which each is compared."
    )


DEFAULTS = AlignOptions()
