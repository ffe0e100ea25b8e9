"""What is true of two photographs of one wall: the homography between them and the quads that see the same of it.

Convention:
    Points and quads are in normalised coordinates, -1..1 at the image's edges, quads clockwise from top-left,
    as in :mod:`geowarp_ros.geometry`. A plane is given by its top-left corner
    and the vectors to its right and down.
"""

from __future__ import annotations

import numpy as np

from geowarp_ros.lab.world.camera import Camera, Vector

REACH_M = 20.0
"""Walls are taken to go on this far beyond the plane's ends: neighbours stand in nearly the same plane."""


def normalised_from_plane(camera: Camera, corner: Vector, right: Vector, down: Vector) -> Vector:
    """Return the homography (3, 3) from metres (rightwards, downwards) on a plane to the view of it."""
    unit_right, unit_down = right / np.linalg.norm(right), down / np.linalg.norm(down)
    return np.asarray(camera.normalised_from_pixels @ camera.pixels_from_plane(corner, unit_right, unit_down))


def plane_homography(query: Camera, place: Camera, corner: Vector, right: Vector, down: Vector) -> Vector:
    """Return the homography ``p_from_q`` (3, 3) that a plane induces between two views."""
    p_from_plane = normalised_from_plane(place, corner, right, down)
    homography = p_from_plane @ np.linalg.inv(normalised_from_plane(query, corner, right, down))
    return np.asarray(homography / homography[2, 2])


def shared_quads(
    query: Camera, place: Camera, corner: Vector, right: Vector, down: Vector
) -> tuple[Vector, Vector] | None:
    """Return quads (4, 2) of both views that show the same rectangle of the plane, the largest both see whole.

    The cameras are taken to be level, so that what is upright looks upright; a tilt of a few degrees lets corners
    pass the frame by a little. None where the views share less than half a metre.
    """
    width = float(np.linalg.norm(right))
    views = [normalised_from_plane(camera, corner, right, down) for camera in (query, place)]
    reach = [_seen_along(camera, corner, right, width) for camera in (query, place)]
    left, end = max(span[0] for span in reach), min(span[1] for span in reach)
    if end - left < 0.5:
        return None
    top, bottom = -np.inf, np.inf
    for view in views:
        for x in (left, end):
            high, low = _seen_upright(view, x)
            top, bottom = max(top, high), min(bottom, low)
    if bottom - top < 0.5:
        return None
    rectangle = np.array([(left, top), (end, top), (end, bottom), (left, bottom)])
    return transform(views[0], rectangle), transform(views[1], rectangle)


def transform(homography: Vector, points: Vector) -> Vector:
    """Apply a homography (3, 3) to points (N, 2); returns (N, 2)."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    return np.asarray(mapped[:, :2] / mapped[:, 2:])


def _seen_along(camera: Camera, corner: Vector, right: Vector, width: float) -> tuple[float, float]:
    """Return which stretch of the plane, in metres from its corner, the middle row of the image sees."""
    along = right / np.linalg.norm(right)
    away = np.array([-along[1], along[0], 0.0])  # level, into the wall: up × right
    distance = float((corner - camera.position) @ away)
    foot = float((camera.position - corner) @ along)
    slope = camera.width_px / 2 / camera.focal_px
    ends = []
    for side, limit in ((-1.0, -REACH_M), (1.0, width + REACH_M)):
        ray = camera.camera_from_world[2] + side * slope * camera.camera_from_world[0]
        approach = float(ray @ away)
        # a ray that never meets the wall sees it to its end
        ends.append(foot + distance / approach * float(ray @ along) if approach > 1e-6 else limit)
    return max(ends[0], -REACH_M), min(ends[1], width + REACH_M)


def _seen_upright(view: Vector, x: float) -> tuple[float, float]:
    """Return which stretch of the plane's column at ``x``, metres below its corner, lies between rows -1 and 1."""
    edges = []
    for row in (-1.0, 1.0):
        # (v1 - row·v2) · (x, b, 1) = 0, solved for b
        line = view[1] - row * view[2]
        edges.append(-(line[0] * x + line[2]) / line[1])
    return min(edges), max(edges)
