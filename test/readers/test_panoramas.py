"""Views of panoramas: each pixel shows the direction that its camera and heading say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import ImageError
from geowarp_ros.readers import read_source
from geowarp_ros.types import FloatArray, Image
from test.readers.test_folders import GPS, NAPLES, save

WIDTH = 1024


def colour(east: FloatArray, north: FloatArray, up: FloatArray) -> Image:
    """A colour for each direction (unit vectors)."""
    parts = [127.5 + 120 * part for part in (east, north, up)]
    return np.asarray(np.stack(parts, axis=-1).round(), np.uint8)


def panorama(heading_deg: float, width: int = WIDTH) -> Image:
    """What stands all round, with this heading in the middle."""
    azimuth = np.radians(heading_deg) + 2 * np.pi * ((np.arange(width) + 0.5) / width - 0.5)
    elevation = np.pi * (0.5 - (np.arange(width // 2) + 0.5) / (width // 2))
    azimuth, elevation = np.meshgrid(azimuth, elevation)
    level = np.cos(elevation)
    return colour(np.sin(azimuth) * level, np.cos(azimuth) * level, np.sin(elevation))


def seen(camera: Camera, heading_deg: float) -> Image:
    """What a level camera sees, by its matrix alone."""
    x, y = np.meshgrid(np.arange(camera.width_px), np.arange(camera.height_px))
    ray = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones(x.shape)], axis=-1)
    right, down, ahead = np.moveaxis(ray / np.linalg.norm(ray, axis=-1, keepdims=True), -1, 0)
    turn = np.radians(heading_deg)
    return colour(right * np.cos(turn) + ahead * np.sin(turn), ahead * np.cos(turn) - right * np.sin(turn), -down)


@pytest.mark.parametrize(("heading", "views"), [(0.0, 4), (77.0, 6), (200.0, 1)])
def test_each_view_shows_what_its_camera_sees_at_its_heading(tmp_path: Path, heading: float, views: int) -> None:
    Pillow.fromarray(panorama(heading)).save(tmp_path / "p.png")
    (tmp_path / "positions.csv").write_text(f"filename,latitude,longitude,heading\np.png,48.1,11.5,{heading}\n")
    images = read_source(tmp_path, panorama_views=views).images
    assert [image.place.heading_deg for image in images] == [
        (heading + 360 * k / views) % 360 for k in range(views)
    ]
    assert len({image.place.name for image in images}) == views
    for image in images:
        picture = image.read()
        camera = image.camera_at(picture.shape[1], picture.shape[0])
        assert camera is not None and picture.shape[0] == pytest.approx(WIDTH / np.pi, abs=1)
        truth = seen(camera, image.place.heading_deg)
        assert np.abs(picture.astype(int) - truth).max() <= 2


def xmp(path: Path, text: str) -> None:
    data = path.read_bytes()
    packet = b"http://ns.adobe.com/xap/1.0/\0" + text.encode()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + data[2:])


@pytest.mark.parametrize(
    "written", ['GPano:PoseHeadingDegrees="350.5"', "<GPano:PoseHeadingDegrees>350.5</GPano:…>"]
)
def test_the_heading_of_a_panorama_is_its_exifs_or_its_xmps(tmp_path: Path, written: str) -> None:
    save(tmp_path / "a.jpg", NAPLES)
    save(tmp_path / "b.jpg", NAPLES | {GPS.GPSImgDirection: 10.0})
    save(tmp_path / "c.jpg", NAPLES)
    for name in "ab":
        xmp(tmp_path / f"{name}.jpg", written)
    headings = [image.place.heading_deg for image in read_source(tmp_path, panorama_views=2).images]
    assert headings == pytest.approx([350.5, 170.5, 10, 190, np.nan, np.nan], nan_ok=True)


def test_what_is_not_twice_as_wide_as_high_is_no_panorama(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", NAPLES)
    image = read_source(tmp_path, panorama_views=4).images[1]
    with pytest.raises(ImageError, match=r"a\.jpg#090: is 30×20 px, expected a 360° panorama"):
        image.read()
