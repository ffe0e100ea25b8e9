"""From an image to its answer: how long each stage takes in each mode, and what the answers are worth."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.config import LocalizerConfig, RerankMode
from geowarp_ros.errors import SourceError
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.lab.studies.galleries import kept_gallery
from geowarp_ros.lab.world.tags import PHONE, retag
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Describer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import read_source
from geowarp_ros.types import Fix, Frame

STAGES = ("describe", "search", "keypoints", "rerank", "verify", "pose", "anchors")


def measure_answers(
    world: Path,
    describer: Describer,
    config: LocalizerConfig,
    modes: Sequence[RerankMode],
    folder: Path,
    limit: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Ask a gallery, tagged as phones tag photographs and aligned, for its queries; the modes take turns.

    Args:
        world: Folder of images with splits ``gallery`` and ``query`` and a camera, as ``geowarp world`` writes.
        describer: The model.
        config: Settings of all modes.
        modes: Modes of re-ranking.
        folder: Where the gallery is kept.
        limit: Maximum number of queries, evenly spread.
        progress: Shows the queries.

    Returns:
        One row per mode: median ms of each stage by the clock; ``all`` and ``all_95``, its 95 % quantile;
        ``processor``, the median of all threads' time; percent of the images with a fix, and with one that is
        a pose of their own; median and 95 % error of the fixes, m.

    Raises:
        SourceError: The world has no gallery or no queries.
    """
    source = read_source(world, split="gallery")
    source = replace(source, images=retag(source.images, PHONE))
    gallery = kept_gallery(source, describer, folder, progress, AlignOptions())
    queries = read_source(world, split="query").images
    queries = queries[:: max(1, -(-len(queries) // limit))]
    if not queries:
        raise SourceError(f"{world}: has no images of split 'query'")
    localizers = {}
    for mode in modes:
        rerank = config.rerank.model_copy(update={"mode": mode})
        localizers[mode] = Localizer.of(describer, gallery, config.model_copy(update={"rerank": rerank}))
    stages: dict[str, dict[str, list[float]]] = {mode: defaultdict(list) for mode in modes}
    errors: dict[str, list[float]] = {mode: [] for mode in modes}
    posed = dict.fromkeys(modes, 0)
    for number, image in enumerate(progress(queries, len(queries), "asking about images")):
        frame, place = Frame(image.read(), camera=image.camera), image.place
        truth = gallery.frame.to_enu(place.latitude_deg, place.longitude_deg)[:2]
        turn = number % len(modes)
        for mode in (*modes[turn:], *modes[:turn]):
            began, began_cpu = time.perf_counter(), time.process_time()
            answer = localizers[mode].localize(frame)
            took = stages[mode]
            took["all"].append((time.perf_counter() - began) * 1e3)
            took["processor"].append((time.process_time() - began_cpu) * 1e3)
            for stage in STAGES:
                took[stage].append(answer.header.timing_ms.get(stage, 0.0))
            if isinstance(answer.result, Fix):
                fix = answer.result
                found = gallery.frame.to_enu(fix.latitude_deg, fix.longitude_deg)[:2]
                errors[mode].append(float(np.linalg.norm(found - truth)))
                posed[mode] += fix.orientation is not None
    return [_row(mode, stages[mode], np.array(errors[mode]), posed[mode], len(queries)) for mode in modes]


def _row(mode: str, took: dict[str, list[float]], errors: Any, posed: int, count: int) -> dict[str, Any]:
    return {
        "mode": mode,
        **{stage: float(np.median(took[stage])) for stage in (*STAGES, "all")},
        "all_95": float(np.quantile(took["all"], 0.95)),
        "processor": float(np.median(took["processor"])),
        "images": count,
        "fixes": 100 * len(errors) / count,
        "posed": 100 * posed / count,
        "error_m": float(np.median(errors)) if len(errors) else math.nan,
        "error_95_m": float(np.quantile(errors, 0.95)) if len(errors) else math.nan,
    }
