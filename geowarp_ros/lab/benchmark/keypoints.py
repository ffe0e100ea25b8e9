"""Which keypoints to store: matches between photographs of a rendered town that obey its true geometry."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.config import LearnedMatcher
from geowarp_ros.errors import SourceError
from geowarp_ros.images import read_image, resize_shorter
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.keypoints.matching import Pairs, match
from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import DESCRIPTION
from geowarp_ros.lab.world.passes import Shot, shots
from geowarp_ros.lab.world.world import World
from geowarp_ros.model.learned import keypoints_of, load_matcher
from geowarp_ros.progress import Progress, silent
from geowarp_ros.rerank.glue import LightGlue, Size
from geowarp_ros.rerank.verification import KIND_OF

FloatArray: TypeAlias = NDArray[np.float64]

RATIO = 0.8
"""Ratio test of the matches."""
RIGHT_PX = 1.0
"""Maximum distance of a right match's points from their epipolar lines, px at working resolution."""
ENOUGH = 12
"""Right matches with which a pose can be estimated."""
NEIGHBOURS = 3
MAX_APART_M = 15.0
MAX_TURN_DEG = 45.0


def measure_keypoints(
    world: Path,
    counts: Sequence[int],
    scales: Sequence[float],
    resolution: int,
    pairs: int,
    methods: Sequence[str] = ("sift",),
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Match queries with their true neighbours in the gallery, with keypoints of several numbers and scales.

    A neighbour is one of the three nearest photographs at most 15 m away that look at most 45° aside.

    Args:
        world: Folder of a world that ``geowarp world`` wrote.
        counts: Maximum numbers of keypoints.
        scales: Sizes at which they are detected, as multiples of the working resolution.
        resolution: Working resolution: shorter side, px.
        pairs: Maximum number of pairs, evenly spread.
        methods: Which are matched and how, as ``position.verify`` names it.
        progress: Shows the settings.

    Returns:
        One row per setting: method, scale, count, keypoints (mean per image), bytes_per_image, detect_ms (median),
        pairs, matches and right (medians per pair), right_share (percent of all matches), posed (percent of pairs
        with at least ENOUGH right matches), match_ms (median). Times are of the processor, all threads together.

    Raises:
        SourceError: It is no world, or has no such pairs.
        ModelError: Weights are absent or foreign.
    """
    try:
        config = WorldConfig.model_validate(json.loads((world / DESCRIPTION).read_text())["config"])
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{world}: is no world of 'geowarp world': {error}") from None
    chosen = list(_pairs(list(shots(World(config)))))
    chosen = chosen[:: max(1, -(-len(chosen) // pairs))]
    if not chosen:
        raise SourceError(f"{world}: no query of it has a neighbour in its gallery")
    kinds = {method: keypoints_of(KIND_OF[method]) for method in methods}
    settings = [
        (method, kinds[method].model_copy(update={"count": count, "scale": scale}))
        for method, scale, count in product(methods, scales, counts)
    ]
    return [
        _measure(world, chosen, method, config, resolution)
        for method, config in progress(settings, len(settings), "matching by settings")
    ]


def _pairing(method: str, config: KeypointConfig) -> Callable[[Keypoints, Size, Keypoints, Size], Pairs]:
    if method == config.kind:
        return lambda a, _, b, __: match(a.descriptors, b.descriptors, RATIO)
    return LightGlue(load_matcher(cast(LearnedMatcher, method)).network, config.count)


def _pairs(taken: Sequence[Shot]) -> Iterator[tuple[Shot, Shot]]:
    gallery = [shot for shot in taken if shot.split == "gallery"]
    for query in (shot for shot in taken if shot.split == "query"):
        apart = [(float(np.linalg.norm(query.camera.position - shot.camera.position)), shot) for shot in gallery]
        near = [(distance, shot) for distance, shot in apart if distance <= MAX_APART_M and _turn(query, shot)]
        for _, shot in sorted(near, key=lambda pair: pair[0])[:NEIGHBOURS]:
            yield query, shot


def _turn(query: Shot, shot: Shot) -> bool:
    between = query.camera.heading_deg - shot.camera.heading_deg
    return abs((between + 180) % 360 - 180) <= MAX_TURN_DEG


def _measure(
    world: Path, pairs: Sequence[tuple[Shot, Shot]], method: str, config: KeypointConfig, resolution: int
) -> dict[str, Any]:
    detector, pairing = KeypointDetector(config), _pairing(method, config)
    found, ms = dict[str, tuple[Keypoints, Size]](), defaultdict[str, list[float]](list)

    def keypoints(shot: Shot) -> tuple[Keypoints, Size]:
        if shot.name not in found:
            image = read_image(world / shot.name)
            height, width = resize_shorter(image, resolution).shape[:2]
            began = time.process_time()
            found[shot.name] = detector(image, width, height), (width, height)
            ms["detect"].append((time.process_time() - began) * 1e3)
        return found[shot.name]

    matches, right = [], []
    for query, place in pairs:
        (a, size_a), (b, size_b) = keypoints(query), keypoints(place)
        began = time.process_time()
        rows = pairing(a, size_a, b, size_b)
        ms["match"].append((time.process_time() - began) * 1e3)
        factor = min(resolution / query.camera.height_px, 1.0) if resolution else 1.0
        off = off_line_px(query.camera, place.camera, a.points[rows[:, 0]], b.points[rows[:, 1]], factor)
        matches.append(len(rows))
        right.append(int((off <= RIGHT_PX).sum()))
    numbers = [len(one) for one, _ in found.values()]
    return {
        "method": method,
        "scale": config.scale,
        "count": config.count,
        "keypoints": round(float(np.mean(numbers))),
        "bytes_per_image": round(float(np.mean(numbers)) * (config.descriptor_dim + 2 * 4)),
        "detect_ms": float(np.median(ms["detect"])),
        "pairs": len(pairs),
        "matches": float(np.median(matches)),
        "right": float(np.median(right)),
        "right_share": 100 * sum(right) / max(sum(matches), 1),
        "posed": 100 * float(np.mean(np.array(right) >= ENOUGH)),
        "match_ms": float(np.median(ms["match"])),
    }


def off_line_px(q: Camera, p: Camera, points_q: NDArray[Any], points_p: NDArray[Any], factor: float) -> FloatArray:
    """Distance of matched points from their true epipolar lines, the larger one of the two images, px.

    With camera_q_from_world R_q and position c_q, likewise p, E = R_q [c_p - c_q]× R_pᵀ, and x_qᵀ E x_p = 0
    (Hartley and Zisserman, 2nd ed., sec. 9.6).

    Args:
        q: Camera of the query.
        p: Camera of the place.
        points_q: (N, 2), px at working resolution.
        points_p: (N, 2) likewise.
        factor: Working resolution over the cameras' own.
    """
    x, y, z = p.position - q.position
    between = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    essential = q.camera_from_world @ between @ p.camera_from_world.T
    to_own = np.array(
        [[1 / factor, 0.0, 0.5 / factor - 0.5], [0.0, 1 / factor, 0.5 / factor - 0.5], [0.0, 0.0, 1.0]]
    )
    from_q, from_p = (np.linalg.inv(camera.matrix) @ to_own for camera in (q, p))
    fundamental = from_q.T @ essential @ from_p
    ones = np.ones((len(points_q), 1))
    h_q, h_p = np.hstack([points_q, ones]), np.hstack([points_p, ones])
    lines_q, lines_p = h_p @ fundamental.T, h_q @ fundamental
    off = np.abs((h_q * lines_q).sum(axis=1))
    nearest = np.minimum(np.hypot(lines_q[:, 0], lines_q[:, 1]), np.hypot(lines_p[:, 0], lines_p[:, 1]))
    return np.asarray(off / nearest)
