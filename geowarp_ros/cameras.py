"""Camera models: from pixels to viewing rays and back.

Convention:
    Pixels are (x, y), the centre of the top-left pixel is (0, 0), as in OpenCV and ROS. The optical frame is that
    of REP 103: x right, y down, z forward. Normalised coordinates are (x / z, y / z) in it. Points are
    undistorted, images never are. The models are ROS's ``distortion_model`` (sensor_msgs/CameraInfo):
    ``plumb_bob`` (k1, k2, p1, p2, k3), ``rational_polynomial`` (k1, k2, p1, p2, k3, k4, k5, k6) and
    ``equidistant`` (fisheye; k1 … k4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import CameraError, did_you_mean

FloatArray = NDArray[np.float64]

DistortionModel: TypeAlias = Literal["plumb_bob", "rational_polynomial", "equidistant"]

COEFFICIENTS: dict[DistortionModel, tuple[int, ...]] = {
    "plumb_bob": (0, 4, 5),
    "rational_polynomial": (0, 8),
    "equidistant": (0, 4),
}
"""Numbers of distortion coefficients that each model takes; 0: none, a perfect lens."""

ASPECT_TOLERANCE = 0.01
"""Maximum relative difference of the aspect ratios of a camera and an image of it at another size."""

ESTIMATED = "the alignment's estimate"
"""Source of a camera of which photographs alone tell the focal length."""

MAX_RAY_DEG = 89.0
"""Maximum angle between a ray and the optical axis: beyond it, (x / z, y / z) says nothing."""


@dataclass(frozen=True, slots=True)
class Camera:
    """Intrinsics of one camera at one image size.

    Attributes:
        width_px: Image width.
        height_px: Image height.
        fx: Focal length in x (px).
        fy: Focal length in y (px).
        cx: Principal point in x (px).
        cy: Principal point in y (px).
        model: Distortion model; ``equidistant`` is a fisheye projection even without coefficients.
        distortion: Its coefficients; empty: none.
        source: Where it is from, for people: ``camera_info``, a file's name, ``EXIF``, :data:`ESTIMATED`,
            ``the gallery's camera``.

    Raises:
        CameraError: Sizes or focal lengths that are not positive, numbers that are not finite, an unknown model or
            a wrong number of coefficients.
    """

    width_px: int
    height_px: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: DistortionModel = "plumb_bob"
    distortion: tuple[float, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no camera."""
        name = self.source or "camera"
        if self.width_px < 1 or self.height_px < 1:
            raise CameraError(f"{name}: is {self.width_px}×{self.height_px} px, expected a size above 0")
        numbers = {"fx": self.fx, "fy": self.fy, "cx": self.cx, "cy": self.cy}
        for what, value in (*numbers.items(), *((f"d[{i}]", d) for i, d in enumerate(self.distortion))):
            if not math.isfinite(value):
                raise CameraError(f"{name}: {what} is {value}, expected a finite number")
        for what in ("fx", "fy"):
            if numbers[what] <= 0:
                raise CameraError(
                    f"{name}: {what} is {numbers[what]:g} px, expected a focal length above 0 (is it calibrated?)"
                )
        if self.model not in get_args(DistortionModel):
            raise CameraError(
                f"{name}: distortion model {self.model!r}{did_you_mean(self.model, get_args(DistortionModel))},"
                f" expected one of {', '.join(get_args(DistortionModel))}"
            )
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            wanted = " or ".join(str(number) for number in COEFFICIENTS[self.model])
            raise CameraError(
                f"{name}: {len(self.distortion)} distortion coefficients for {self.model}, expected {wanted}"
            )

    @property
    def matrix(self) -> FloatArray:
        """(3, 3) K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def focal_px(self) -> float:
        """Mean focal length (px)."""
        return (self.fx + self.fy) / 2

    def __str__(self) -> str:
        """Return one line for people."""
        lens = self.model if self.distortion or self.model == "equidistant" else "no distortion"
        size = f"{self.width_px}×{self.height_px}"
        return f"{size}, focal length {self.focal_px:.1f} px, {lens}" + (self.source and f", from {self.source}")

    def scaled_to(self, width_px: int, height_px: int) -> Camera:
        """Return the same camera for its image at another size.

        Raises:
            CameraError: The aspect ratio differs: it is an image of another camera, or a part of one.
        """
        if (width_px, height_px) == (self.width_px, self.height_px):
            return self
        sx, sy = width_px / self.width_px, height_px / self.height_px
        # a shorter side is rounded to whole pixels
        slack = ASPECT_TOLERANCE + 1.0 / min(width_px, height_px)
        if abs(sx / sy - 1.0) > slack:
            raise CameraError(
                f"{self.source or 'camera'}: is of images of {self.width_px}×{self.height_px} px, the image has"
                f" {width_px}×{height_px}: another aspect ratio, so another camera or a part of its image"
            )
        return replace(
            self,
            width_px=width_px,
            height_px=height_px,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    def normalised(self, points_px: NDArray[Any]) -> FloatArray:
        """Return the normalised, undistorted coordinates (N, 2) of pixels (N, 2); NaN where there is no ray."""
        points = np.asarray(points_px, np.float64).reshape(-1, 2)
        plain = (points - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.model == "equidistant":
            return _from_equidistant(plain, self.distortion)
        if not any(self.distortion) or not len(points):
            return plain
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-12)
        coefficients = np.array(self.distortion)
        found = cv2.undistortPointsIter(
            points.reshape(-1, 1, 2), self.matrix, coefficients, np.eye(3), np.eye(3), criteria
        ).reshape(-1, 2)
        # the iteration settles on rubbish beyond the lens's edge
        back = self.project(np.column_stack([found, np.ones(len(found))]))
        wrong = ~(np.abs(back - points).max(axis=1) < 0.05)
        return np.where(wrong[:, None], np.nan, found)

    def project(self, points: NDArray[Any]) -> FloatArray:
        """Return the pixels (N, 2) of points (N, 3) in the optical frame; NaN where the lens sees none of them.

        It sees nothing behind the camera, nor beyond the angle at which its distortion would turn back inwards.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        if not len(points):
            return np.empty((0, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = np.where(points[:, 2:] > 0, points[:, :2] / points[:, 2:], np.nan)
        return _distorted(plain, self.model, self.distortion) * (self.fx, self.fy) + (self.cx, self.cy)


def camera_from_matrix(
    width_px: int,
    height_px: int,
    matrix: Sequence[float],
    model: str = "plumb_bob",
    distortion: Sequence[float] = (),
    source: str = "",
) -> Camera:
    """Return a camera from the numbers of a ROS calibration.

    Args:
        width_px: Width of the images that were calibrated.
        height_px: Their height.
        matrix: K row by row: fx, 0, cx, 0, fy, cy, 0, 0, 1.
        model: Distortion model; ``fisheye`` is an older name of ``equidistant``; may be empty without distortion.
        distortion: Its coefficients; zeros that the model does not have are dropped, nothing but zeros is none.
        source: Where it is from.

    Raises:
        CameraError: As :class:`Camera`; another form of matrix, or a principal point far outside the image.
    """
    name, coefficients = source or "camera", tuple(float(value) for value in distortion)
    kind: Any = {"fisheye": "equidistant", "": "" if any(coefficients) else "plumb_bob"}.get(model, model)
    most = max(COEFFICIENTS.get(kind, (0,)))
    while len(coefficients) > most and not coefficients[-1]:
        coefficients = coefficients[:-1]
    fx, skew, cx, below, fy, cy, *last = (float(value) for value in matrix)
    found = Camera(
        int(width_px), int(height_px), fx, fy, cx, cy, kind, coefficients if any(coefficients) else (), source
    )
    if [skew, below, *last] != [0.0, 0.0, 0.0, 0.0, 1.0]:
        given = ", ".join(f"{value:g}" for value in matrix)
        raise CameraError(f"{name}: camera matrix {given}, expected fx, 0, cx, 0, fy, cy, 0, 0, 1")
    if not (-width_px <= cx <= 2 * width_px and -height_px <= cy <= 2 * height_px):
        raise CameraError(
            f"{name}: its principal point {cx:g}, {cy:g} lies far outside its image of {width_px}×{height_px} px;"
            " is it of another camera?"
        )
    return found


_TRANSPORTS = ("compressed", "ffmpeg", "h264", "h265", "hevc")
"""Names under an image's topic on which it travels packed (image_transport)."""


def _unpacked(image_topic: str) -> str:
    folder, _, last = image_topic.rpartition("/")
    return folder if last in _TRANSPORTS else image_topic


def camera_info_topic(image_topic: str) -> str:
    """Return the topic that image_transport pairs with a topic of images: ``camera_info`` beside it."""
    folder, slash, _ = _unpacked(image_topic).rpartition("/")
    return f"{folder}{slash}camera_info"


def is_rectified(image_topic: str) -> bool:
    """Whether a topic carries undistorted images by image_proc's names: image_rect, image_rect_color."""
    return _unpacked(image_topic).rpartition("/")[2].startswith("image_rect")


def _distorted(plain: FloatArray, model: DistortionModel, d: tuple[float, ...]) -> FloatArray:
    """Return normalised coordinates (N, 2) as the lens puts them (OpenCV, calib3d, "detailed description")."""
    if model != "equidistant" and not any(d):
        return plain
    r2 = (plain**2).sum(axis=1, keepdims=True)
    if model == "equidistant":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        scale = np.divide(_bent(theta, d), r, out=np.ones_like(r), where=r > 1e-12)
        return np.where(theta <= _edge(model, d), plain * scale, np.nan)
    k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *([0.0] * (8 - len(d))))
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    x, y = plain[:, :1], plain[:, 1:]
    tangential = np.hstack([2 * p1 * x * y + p2 * (r2 + 2 * x**2), p1 * (r2 + 2 * y**2) + 2 * p2 * x * y])
    return np.where(r2 <= _edge(model, d) ** 2, plain * radial + tangential, np.nan)


@lru_cache(maxsize=256)
def _edge(model: DistortionModel, d: tuple[float, ...]) -> float:
    """Radius (equidistant: angle) up to which the distorted radius grows; beyond it, pixels have two rays.

    Where the derivative first vanishes, in s = r² (θ²): of r N(s) / D(s) it has the sign of
    (N + 2 s N') D - 2 s N D', of θ (1 + k1 θ² + …) it is 1 + 3 k1 θ² + 5 k2 θ⁴ + ….
    """
    limit = math.radians(MAX_RAY_DEG)
    if model == "equidistant":
        slope = np.poly1d([(2 * power + 1) * k for power, k in enumerate((1.0, *d))][::-1])
    else:
        k1, k2, _, _, k3, k4, k5, k6 = (*d, *([0.0] * (8 - len(d))))
        top, bottom, s2 = np.poly1d([k3, k2, k1, 1]), np.poly1d([k6, k5, k4, 1]), np.poly1d([2, 0])
        slope = (top + s2 * top.deriv()) * bottom - s2 * top * bottom.deriv()
        slope, limit = slope * bottom, math.tan(limit)  # nor beyond a pole
    turns = [float(root.real) for root in slope.roots if abs(root.imag) < 1e-9 and root.real > 0]
    return min([limit, *(math.sqrt(turn) for turn in turns)])


def _bent(theta: FloatArray, d: tuple[float, ...]) -> FloatArray:
    """Distorted angle of the equidistant (Kannala-Brandt) model: θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸)."""
    k1, k2, k3, k4 = (*d, *([0.0] * (4 - len(d))))
    t2 = theta**2
    return np.asarray(theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))))


def _from_equidistant(plain: FloatArray, d: tuple[float, ...]) -> FloatArray:
    """Invert the equidistant model by bisection of the angle; NaN beyond the lens's edge."""
    bent, edge = np.linalg.norm(plain, axis=1), _edge("equidistant", d)
    low, high = np.zeros_like(bent), np.full_like(bent, edge)
    for _ in range(60):
        theta = (low + high) / 2
        beyond = _bent(theta, d) > bent
        low, high = np.where(beyond, low, theta), np.where(beyond, theta, high)
    with np.errstate(invalid="ignore"):
        scale = np.where(bent > 1e-12, np.tan(low) / np.maximum(bent, 1e-12), 1.0)
        return np.where((bent <= _bent(np.array([edge]), d))[:, None], plain * scale[:, None], np.nan)
