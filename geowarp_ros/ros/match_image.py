"""The picture of a match: query and candidate with their quads, and both as warped to a common viewpoint."""

from __future__ import annotations

import cv2
import numpy as np

from geowarp_ros.types import Candidate, Fix, FloatArray, Image, NoFix

HEIGHT_PX = 240
FOUND = (60, 220, 90)
LOST = (245, 80, 60)
_BAND_PX = 28
_FULL = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def match_picture(query: Image, candidate: Image, match: Candidate, *, height: int = HEIGHT_PX) -> Image:
    """Return the four views side by side, (height, W, 3) RGB: query, candidate, warped query, warped candidate.

    Without quads (retrieval only) there are the first two.
    """
    query, candidate = _at_height(query, height), _at_height(candidate, height)
    if match.quad_q is None or match.quad_p is None:
        return np.hstack([query, candidate])
    views = [
        _outlined(query, match.quad_q),
        _outlined(candidate, match.quad_p),
        warp_to_frame(query, match.quad_q),
        warp_to_frame(candidate, match.quad_p),
    ]
    return np.hstack(views)


def answer_picture(query: Image, candidate: Image | None, answer: Fix | NoFix) -> Image:
    """Return :func:`match_picture` of an answer's best candidate under a line that says what was answered.

    Args:
        query: The camera image.
        candidate: The best candidate's image; None where there is none.
        answer: What the localizer said.
    """
    if candidate is None or not answer.candidates:
        picture, words = _at_height(query, HEIGHT_PX), ""
    else:
        best = answer.candidates[0]
        picture = match_picture(query, candidate, best)
        words = best.place.name + (f"   score {best.score:.1f}" if best.score is not None else "")
    found = isinstance(answer, Fix)
    verdict = f"fix {answer.confidence:.2f}" if isinstance(answer, Fix) else f"no fix: {answer.reason}"
    band = np.full((_BAND_PX, picture.shape[1], 3), 24, np.uint8)
    _write(band, f"{verdict}   {words}", FOUND if found else LOST)
    return np.vstack([band, picture])


def warp_to_frame(image: Image, quad: FloatArray) -> Image:
    """Pull ``quad`` (4, 2) of an image to the whole frame, as the network does (zeros outside)."""
    height, width = image.shape[:2]
    frame_from_image = cv2.getPerspectiveTransform(_pixels(quad, width, height), _pixels(_FULL, width, height))
    return np.asarray(cv2.warpPerspective(image, frame_from_image, (width, height), flags=cv2.INTER_LINEAR))


def encode_jpeg(image: Image, quality: int = 80) -> bytes:
    """Return an RGB image as JPEG."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


def _at_height(image: Image, height: int) -> Image:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation))


def _outlined(image: Image, quad: FloatArray) -> Image:
    drawn = image.copy()
    corners = _pixels(quad, image.shape[1], image.shape[0]).round().astype(np.int32)
    cv2.polylines(drawn, [corners], True, (255, 200, 0), 2, cv2.LINE_AA)
    return drawn


def _pixels(quad: FloatArray, width: int, height: int) -> FloatArray:
    """-1..1 at the outer edges -> OpenCV's pixels, whose centres are whole numbers."""
    scaled: FloatArray = ((np.asarray(quad) + 1.0) * (width, height) / 2.0 - 0.5).astype(np.float32)
    return scaled


def _write(band: Image, text: str, colour: tuple[int, int, int]) -> None:
    ascii_text = text.encode("ascii", "replace").decode()  # OpenCV's built-in font has no more
    cv2.putText(band, ascii_text, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
