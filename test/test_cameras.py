"""Camera models against OpenCV in both directions, at the edge of what a lens sees, scaled; what is refused."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from geowarp_ros.cameras import MAX_RAY_DEG, Camera, camera_from_matrix
from geowarp_ros.errors import CameraError

LENSES: dict[str, tuple[Any, tuple[float, ...]]] = {
    "none": ("plumb_bob", ()),
    "mild": ("plumb_bob", (0.02, -0.01, 0.001, -0.0005, 0.002)),
    "four": ("plumb_bob", (-0.28, 0.08, 0.0007, 0.0003)),
    "barrel": ("plumb_bob", (-0.33, 0.11, 0.0002, -0.0004, -0.016)),
    "rational": ("rational_polynomial", (0.61, -2.6, 0.0008, -0.0001, 1.48, 0.49, -2.42, 1.41)),
    "fisheye": ("equidistant", (-0.02, 0.004, -0.003, 0.0006)),
    "pure fisheye": ("equidistant", ()),
}


def camera(lens: str) -> Camera:
    model, coefficients = LENSES[lens]
    return Camera(640, 480, 410.0, 420.0, 315.5, 242.5, model, coefficients)


def by_opencv(of: Camera, rays: np.ndarray) -> np.ndarray:
    zero = np.zeros(3)
    if of.model == "equidistant":
        coefficients = np.array(of.distortion or [0.0] * 4)
        found, _ = cv2.fisheye.projectPoints(rays.reshape(-1, 1, 3), zero, zero, of.matrix, coefficients)
    else:
        found, _ = cv2.projectPoints(rays, zero, zero, of.matrix, np.array(of.distortion))
    return np.asarray(found).reshape(-1, 2)


def rays_within(angle_deg: float, count: int = 500) -> np.ndarray:
    rng = np.random.default_rng(3)
    theta, phi = np.radians(rng.uniform(0, angle_deg, count)), rng.uniform(0, 2 * np.pi, count)
    ways = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    return np.asarray(ways * rng.uniform(0.5, 40, (count, 1)))


@pytest.mark.parametrize("lens", LENSES)
def test_projection_equals_opencv_and_comes_back(lens: str) -> None:
    of = camera(lens)
    rays = rays_within(80 if of.model == "equidistant" else 38)
    pixels = of.project(rays)
    assert np.abs(pixels - by_opencv(of, rays)).max() < 1e-6
    assert np.abs(of.normalised(pixels) - rays[:, :2] / rays[:, 2:]).max() < 1e-6


@pytest.mark.parametrize("lens", LENSES)
def test_the_centre_is_the_optical_axis_and_nothing_is_nothing(lens: str) -> None:
    of = camera(lens)
    assert np.abs(of.project(np.array([[0.0, 0.0, 3.0]])) - (315.5, 242.5)).max() < 1e-9
    assert np.abs(of.normalised(np.array([[315.5, 242.5]]))).max() < 1e-9
    assert of.project(np.empty((0, 3))).shape == of.normalised(np.empty((0, 2))).shape == (0, 2)
    assert np.isnan(of.project(np.array([[1.0, 0.0, -2.0], [1.0, 0.0, 0.0]]))).all()


@pytest.mark.parametrize("lens", LENSES)
def test_every_pixel_has_its_ray_or_none(lens: str) -> None:
    """All pixels of a far too large image: where there is a ray, it projects to the pixel."""
    of = camera(lens)
    x, y = np.meshgrid(np.linspace(-900, 1500, 49), np.linspace(-700, 1200, 39))
    pixels = np.column_stack([x.ravel(), y.ravel()])
    rays = of.normalised(pixels)
    seen = np.asarray(np.isfinite(rays).all(axis=1))
    assert (np.isnan(rays).any(axis=1) == ~seen).all()
    back = of.project(np.column_stack([rays, np.ones(len(rays))]))
    assert np.abs(back[seen] - pixels[seen]).max() < 0.05
    near = np.linalg.norm(pixels - (315.5, 242.5), axis=1) < 150
    assert seen[near].all()


def test_beyond_the_fold_of_a_barrel_there_is_no_ray() -> None:
    """r (1 - 0.3 r²) grows up to r = 1 / sqrt(0.9), where it is 2/3 of that."""
    of, edge = Camera(640, 480, 400, 400, 320, 240, "plumb_bob", (-0.3, 0, 0, 0)), 1 / math.sqrt(0.9)
    inside, outside = edge * np.array([[0.98, 0, 1 / edge]]), edge * np.array([[1.02, 0, 1 / edge]])
    assert np.isfinite(of.project(inside)).all() and np.isnan(of.project(outside)).all()
    assert by_opencv(of, outside)[0, 0] < 320 + 400 * edge * 2 / 3  # where OpenCV folds it back into the image
    last = 320 + 400 * edge * 2 / 3
    assert np.isfinite(of.normalised(np.array([[last - 1, 240]]))).all()
    assert np.isnan(of.normalised(np.array([[last + 1, 240]]))).all()


def test_a_fisheye_sees_up_to_its_edge() -> None:
    of = Camera(640, 640, 200, 200, 320, 320, "equidistant")  # r = 200 θ
    at_85, beyond, far = of.normalised(np.array([[320 + 200 * math.radians(a), 320] for a in (85, 89.5, 120)]))
    assert at_85 == pytest.approx([math.tan(math.radians(85)), 0])
    assert MAX_RAY_DEG < 89.5 and np.isnan(beyond).all() and np.isnan(far).all()
    folding = Camera(640, 640, 200, 200, 320, 320, "equidistant", (-0.2, 0, 0, 0))  # θ - 0.2 θ³: up to 74°
    edge = math.sqrt(1 / 0.6)
    for angle, seen in ((edge - 0.02, True), (edge + 0.02, False)):
        ray = np.array([[math.sin(angle), 0, math.cos(angle)]])
        assert np.isfinite(folding.project(ray)).all() == seen
    assert np.isnan(folding.normalised(np.array([[320 + 200 * edge * 2 / 3 + 1, 320]]))).all()


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("size", [(1280, 960), (320, 240), (213, 160)])
def test_scaled_to_another_size_pixels_keep_their_rays(lens: str, size: tuple[int, int]) -> None:
    of = camera(lens)
    scaled = of.scaled_to(*size)
    assert (scaled.width_px, scaled.height_px) == size and of.scaled_to(640, 480) is of
    corner = scaled.project(np.array([[0.3, -0.2, 1.0]]))[0]
    full = of.project(np.array([[0.3, -0.2, 1.0]]))[0]
    assert (corner + 0.5) / size == pytest.approx((full + 0.5) / (640, 480))  # outer edges stay outer edges


def test_a_smaller_image_is_what_area_averaging_makes_of_it() -> None:
    """A dot at a pixel of four times the size, averaged down, has its centre where the scaled camera says."""
    of, ray = Camera(256, 192, 200, 200, 127.5, 95.5), np.array([[0.11, -0.07, 1.0]])
    large = of.scaled_to(1024, 768)
    x, y = np.meshgrid(np.arange(1024), np.arange(768))
    at = large.project(ray)[0]
    dot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 12.0**2))
    small = cv2.resize(dot, (256, 192), interpolation=cv2.INTER_AREA)
    centre = [float((small * axis[:192, :256]).sum() / small.sum()) for axis in (x, y)]
    assert centre == pytest.approx(of.project(ray)[0], abs=1e-3)


def test_another_aspect_is_another_camera() -> None:
    with pytest.raises(CameraError, match=r"lab\.yaml: is of images of 640×480 px, the image has 640×360"):
        Camera(640, 480, 400, 400, 320, 240, source="lab.yaml").scaled_to(640, 360)


FULL = (640, 480, [400.0, 0, 320, 0, 410.0, 240, 0, 0, 1])


def test_numbers_of_a_calibration() -> None:
    assert camera_from_matrix(*FULL) == Camera(640, 480, 400, 410, 320, 240)
    assert camera_from_matrix(*FULL, "plumb_bob", [0] * 5) == camera_from_matrix(*FULL, "")
    old = camera_from_matrix(*FULL, "fisheye", [0.1, 0, 0, 0])
    assert (old.model, old.distortion) == ("equidistant", (0.1, 0, 0, 0))
    assert camera_from_matrix(*FULL, "plumb_bob", [0.1, 0, 0, 0, 0.2, 0, 0, 0]).distortion == (0.1, 0, 0, 0, 0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"matrix": [0.0] * 9}, "cam: fx is 0 px, expected a focal length above 0 .is it calibrated"),
        ({"matrix": [400, 0, math.nan, 0, 400, 240, 0, 0, 1]}, "cam: cx is nan"),
        ({"matrix": [400, 0, 0, 0, 400, 0, 320, 240, 1]}, r"cam: camera matrix .*320, 240, 1, expected fx, 0, cx"),
        ({"matrix": [400, 0, 1900, 0, 400, 240, 0, 0, 1]}, "principal point 1900, 240 .*another camera"),
        ({"model": "plumb_bop"}, "distortion model 'plumb_bop' .did you mean 'plumb_bob'"),
        ({"model": "", "distortion": [0.1, 0, 0, 0]}, "distortion model ''"),
        ({"distortion": [0.1, 0.2]}, "2 distortion coefficients for plumb_bob, expected 0 or 4 or 5"),
        ({"distortion": [0.1, 0, 0, 0, 0, 0.3]}, "6 distortion coefficients for plumb_bob"),
        ({"model": "equidistant", "distortion": [0.1] * 5}, "5 distortion coefficients for equidistant"),
        ({"distortion": [0.1, math.inf, 0, 0]}, r"d\[1\] is inf"),
        ({"width_px": 0}, "cam: is 0×480 px"),
    ],
)
def test_what_is_no_camera_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    usual = {"width_px": 640, "height_px": 480, "matrix": FULL[2], "source": "cam"}
    with pytest.raises(CameraError, match=message):
        camera_from_matrix(**{**usual, **given})


def test_a_camera_says_in_one_line_what_it_is() -> None:
    assert str(camera("none")) == "640×480, focal length 415.0 px, no distortion"
    assert str(camera_from_matrix(*FULL, "equidistant", source="/front/camera_info")).endswith(
        "equidistant, from /front/camera_info"
    )
