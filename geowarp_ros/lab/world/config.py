"""The town's parameters: default, unit, range and meaning of each, once."""

from __future__ import annotations

from pydantic import Field

from geowarp_ros.config import Section


class WorldConfig(Section):
    """A procedural town and the photographs that are taken of it; the same values give the same bytes."""

    seed: int = Field(1, ge=0, le=2**32 - 1, description="Seed of the town and of everything in it.")
    streets: int = Field(4, ge=0, le=400, description="Test streets: splits gallery and query, and the drive.")
    train_streets: int = Field(0, ge=0, le=2000, description="Streets of the splits train/gallery, train/queries.")
    val_streets: int = Field(0, ge=0, le=400, description="Streets of the splits val/gallery and val/queries.")
    street_length_m: float = Field(90.0, ge=40.0, le=400.0, description="Mean length of a street, in m.")
    width_px: int = Field(320, ge=64, le=1920, description="Image width, in pixels.")
    height_px: int = Field(240, ge=48, le=1440, description="Image height, in pixels.")
    fov_deg: float = Field(75.0, ge=30.0, le=110.0, description="Horizontal field of view, in degrees.")
    supersampling: int = Field(2, ge=1, le=4, description="Rays per pixel along each axis (anti-aliasing).")
    spacing_m: float = Field(
        5.0, ge=0.5, le=50.0, description="Distance of gallery photographs along a street, in m."
    )
    query_spacing_m: float = Field(
        9.0, ge=0.5, le=100.0, description="Mean distance of queries of one pass, in m."
    )
    query_passes: int = Field(1, ge=0, le=20, description="Query passes per street, each in its own weather.")
    occluders: float = Field(1.0, ge=0.0, le=4.0, description="Cars and people; 0 empties the streets.")
    jpeg_quality: int = Field(90, ge=30, le=100, description="Quality of the JPEG files.")
    drive: bool = Field(True, description="Write the bag of a drive along the test streets.")
    gallery_drive: bool = Field(False, description="Write a bag of the gallery's own drive, too.")
    drive_speed_m_s: float = Field(10.0, gt=0.0, le=40.0, description="Speed of the drive, in m/s.")
    image_rate_hz: float = Field(5.0, gt=0.0, le=60.0, description="Rate of the drive's images, in Hz.")
    fix_rate_hz: float = Field(10.0, gt=0.0, le=100.0, description="Rate of the drive's GNSS fixes, in Hz.")
    drive_view_deg: float = Field(
        90.0, ge=-180.0, le=180.0, description="Where the drive's camera looks, clockwise from straight ahead."
    )
    latitude: float = Field(50.0, ge=-80.0, le=80.0, description="WGS84 latitude of the town's middle.")
    longitude: float = Field(-30.0, ge=-180.0, le=180.0, description="WGS84 longitude of the town's middle.")
    altitude_m: float = Field(50.0, ge=-500.0, le=8000.0, description="Ellipsoidal height of the ground, in m.")
