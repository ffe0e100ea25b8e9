"""Tags as receivers give them: the true positions of photographs, made wrong by a known law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.world.randomness import generator
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray


class Tags(Section):
    """Errors of the tags; one error a spot, because photographs at one spot share their fix."""

    std_m: float = Field(0.0, ge=0.0, description="Standard deviation of each coordinate (m).")
    length_m: float = Field(
        0.0,
        ge=0.0,
        description="Length along the walk after which errors are alike by 1/e (m, Gauss-Markov); 0: independent.",
    )
    outliers: float = Field(0.0, ge=0.0, lt=1.0, description="Share of spots whose tags are outliers.")
    outlier_m: float = Field(15.0, ge=0.0, description="Distance by which an outlier is off (m).")
    heading_std_deg: float | None = Field(
        0.0, ge=0.0, description="Standard deviation of the headings (deg); null: without headings."
    )
    seed: int = Field(0, ge=0, description="Seed of the errors.")


PHONE = Tags(std_m=1.0, heading_std_deg=None)
"""Tags of the demo's photographs."""


def retag(images: Sequence[SourceImage], tags: Tags) -> tuple[SourceImage, ...]:
    """Return the images with wrong tags; equal ``tags`` give equal errors.

    Args:
        images: Images at their true positions, in the order in which they were taken.
        tags: Law of the errors.
    """
    places = [image.place for image in images]
    if not places:
        return ()
    frame = LocalFrame(places[0].latitude_deg, places[0].longitude_deg)
    known = [math.isfinite(place.altitude_m) for place in places]
    truth = frame.to_enu(
        [p.latitude_deg for p in places],
        [p.longitude_deg for p in places],
        [p.altitude_m if has else 0.0 for p, has in zip(places, known, strict=True)],
    )
    rng = generator(tags.seed, "tags")
    _, first, spot = np.unique(np.round(truth[:, :2], 2), axis=0, return_index=True, return_inverse=True)
    walk = np.argsort(first)  # spots in the order in which they were passed
    errors = np.zeros((len(first), 3))
    errors[walk] = _errors(truth[first[walk]], tags, rng)
    latitude, longitude, altitude = frame.to_geodetic(truth + errors[spot.reshape(-1)])
    turned = rng.normal(0.0, tags.heading_std_deg or 0.0, len(places))
    return tuple(
        replace(
            image,
            place=replace(
                image.place,
                latitude_deg=float(latitude[row]),
                longitude_deg=float(longitude[row]),
                altitude_m=float(altitude[row]) if known[row] else math.nan,
                heading_deg=math.nan
                if tags.heading_std_deg is None
                else (image.place.heading_deg + float(turned[row])) % 360.0,
            ),
        )
        for row, image in enumerate(images)
    )


def _errors(spots: FloatArray, tags: Tags, rng: np.random.Generator) -> FloatArray:
    """Errors (S, 3) of spots (S, 3) in the order in which they were passed."""
    errors = rng.normal(0.0, tags.std_m, spots.shape)
    if tags.length_m:
        steps = np.linalg.norm(np.diff(spots, axis=0), axis=1)
        alike = np.exp(-steps / tags.length_m)
        for row, share in enumerate(alike, start=1):  # a first-order Gauss-Markov process
            errors[row] = share * errors[row - 1] + math.sqrt(1 - share**2) * errors[row]
    wrong = rng.permutation(len(spots))[: round(tags.outliers * len(spots))]
    direction = rng.uniform(0, 2 * math.pi, len(wrong))
    errors[wrong, :2] += tags.outlier_m * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    return errors
