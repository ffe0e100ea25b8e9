"""Parameters of the street world."""

from __future__ import annotations

from pydantic import Field

from geowarp_ros.config import Section


class WorldConfig(Section):
    """A procedural town and its photographs; equal values give identical files."""

    seed: int = Field(1, ge=0, le=2**32 - 1, description="Random seed of the town.")
    streets: int = Field(4, ge=0, le=400, description="Test streets: splits gallery and query, and the drive.")
    train_streets: int = Field(0, ge=0, le=2000, description="Streets of splits train/gallery and train/queries.")
    val_streets: int = Field(0, ge=0, le=400, description="Streets of splits val/gallery and val/queries.")
    street_length_m: float = Field(90.0, ge=40.0, le=400.0, description="Mean street length (m).")
    width_px: int = Field(320, ge=64, le=1920, description="Image width (px).")
    height_px: int = Field(240, ge=48, le=1440, description="Image height (px).")
    fov_deg: float = Field(75.0, ge=30.0, le=110.0, description="Horizontal field of view (deg).")
    supersampling: int = Field(2, ge=1, le=4, description="Samples per pixel along each axis (anti-aliasing).")
    spacing_m: float = Field(5.0, ge=0.5, le=50.0, description="Spacing of gallery images along a street (m).")
    query_spacing_m: float = Field(9.0, ge=0.5, le=100.0, description="Mean spacing of queries in a pass (m).")
    query_passes: int = Field(1, ge=0, le=20, description="Query passes per street, each in its own weather.")
    occluders: float = Field(1.0, ge=0.0, le=4.0, description="Density of cars and people; 0: none.")
    jpeg_quality: int = Field(90, ge=30, le=100, description="JPEG quality.")
    drive: bool = Field(True, description="Record a bag of a drive along the test streets.")
    gallery_drive: bool = Field(False, description="Record a bag of the gallery drive as well.")
    drive_speed_m_s: float = Field(10.0, gt=0.0, le=40.0, description="Speed of the drives (m/s).")
    image_rate_hz: float = Field(5.0, gt=0.0, le=60.0, description="Image rate of the drives (Hz).")
    fix_rate_hz: float = Field(10.0, gt=0.0, le=100.0, description="GNSS fix rate of the drives (Hz).")
    drive_view_deg: float = Field(
        90.0,
        ge=-180.0,
        le=180.0,
        description="Camera heading of the drives, clockwise from the driving direction.",
    )
    latitude: float = Field(50.0, ge=-80.0, le=80.0, description="WGS84 latitude of the town's centre (deg).")
    longitude: float = Field(-30.0, ge=-180.0, le=180.0, description="WGS84 longitude of the town's centre (deg).")
    altitude_m: float = Field(50.0, ge=-500.0, le=8000.0, description="Ellipsoidal height of the ground (m).")
