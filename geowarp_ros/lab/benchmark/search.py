"""Duration, memory and recall of searches, by size of the gallery and kind of index."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import ConfigError
from geowarp_ros.gallery.index.compressed import recall_of
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.index.search import ExactIndex, Index, MergedIndex
from geowarp_ros.gallery.making.build import index_gallery
from geowarp_ros.gallery.manifest import DESCRIPTORS, INDEX, MANIFEST, SEGMENTS, read_manifest, write_manifest
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.benchmark.synthetic import queries_of, write_gallery
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Near

NEAREST = 20
_WARM_UP = 20
_BUILD_SECONDS = "build_seconds"
_DISK = "-disk"
_ROWS_AT_ONCE = 262_144
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def measure_search(
    sizes: Sequence[int],
    dim: int,
    kinds: Sequence[str],
    queries: int,
    seed: int = 0,
    progress: Progress = silent,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Build a gallery of each size, index it in each way, and search it in a process of its own on one core.

    Descriptors are made, indexed and compared in blocks, and are in memory only as far as the system caches their
    file: ten million of 256 numbers take 10 GB of the disk.

    Args:
        sizes: Numbers of photographs.
        dim: D.
        kinds: Kinds of index, as in ``geowarp gallery index --kind``; with ``-disk`` appended, the same index with
            its lists left on the disk.
        queries: Number of searches, after a few that do not count.
        seed: Seed of the synthetic descriptors (:mod:`geowarp_ros.lab.benchmark.synthetic`) and queries.
        progress: Shows the combinations.
        folder: Folder that keeps the galleries for a second run, which only searches; None deletes them.

    Returns:
        One row per size and kind: images, kind, build_s, index_bytes (on the disk) and memory_bytes per image (how
        much more the process holds after the searches than before it opened the gallery, mapped files not counted;
        NaN where the system does not say), load_s (opening and the first search), search_p50_ms and search_p99_ms
        with what they read in the page cache, search_cpu_ms and search_cpu_p99_ms (mean and 99th percentile of the
        time of the processor alone, which other work on the machine lengthens less), cold_p50_ms (the descriptors'
        file dropped from the cache before; NaN for exact), recall (of the 20 nearest by comparing all),
        promised_recall (what the index says of itself).
    """
    rows = []
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as root:
        work = [(size, kind) for size in sizes for kind in kinds]
        truth: dict[int, NDArray[np.int64]] = {}
        for size, kind in progress(work, len(work), "measuring searches"):
            gallery = _prepare(Path(root), size, dim, seed, kind)
            asked = queries_of(size, dim, queries + _WARM_UP, seed)
            if size not in truth:
                truth[size] = nearest_by_blocks(gallery, asked[_WARM_UP:])
            found, measured = _in_own_process(_search, gallery, asked, kind != "exact")
            made = read_manifest(gallery).index
            index_bytes = sum(path.stat().st_size for path in (gallery / INDEX).rglob("*") if path.is_file())
            rows.append(
                {
                    "images": size,
                    "kind": kind,
                    "build_s": float((gallery / _BUILD_SECONDS).read_text(encoding="utf-8")),
                    "index_bytes": index_bytes / size,
                    **measured,
                    "memory_bytes": measured["memory_bytes"] / size,
                    "recall": recall_of(found, truth[size]),
                    "promised_recall": made.recall if made else 1.0,
                }
            )
    return rows


def measure_prior(
    size: int,
    dim: int,
    radii_m: Sequence[float] = (20, 50, 100, 200, 500, 1000),
    queries: int = 50,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Search within circles of the same gallery, exactly, on one core.

    Returns:
        One row per radius: images, radius_m, inside (photographs, median), search_p50_ms; a last one without a
        circle, whose radius is infinite.
    """
    with tempfile.TemporaryDirectory() as temporary:
        gallery = Path(temporary) / "gallery"
        write_gallery(gallery, size, dim, seed)
        asked = queries_of(size, dim, queries, seed)
        return [_in_own_process(_search_within, gallery, asked, radius) for radius in (*radii_m, float("inf"))]


def nearest_by_blocks(gallery: Path, asked: NDArray[np.float32], block: int = _ROWS_AT_ONCE) -> NDArray[np.int64]:
    """Compare all queries with all descriptors, one block of them after the other: one reading for all queries.

    Args:
        gallery: Folder of the gallery.
        asked: (Q, D) queries.
        block: Number of rows compared at once.

    Returns:
        (Q, 20) rows, nearest first.
    """
    descriptors = Gallery.open(gallery).descriptors
    blocks: list[tuple[Index, int]] = [
        (ExactIndex(descriptors[first : first + block]), first) for first in range(0, len(descriptors), block)
    ]
    return MergedIndex(blocks, descriptors.shape[1]).search(asked, NEAREST)[1]


def _prepare(root: Path, size: int, dim: int, seed: int, kind: str) -> Path:
    """Return a gallery with an index of this kind, made unless an earlier run has left it."""
    plain = root / f"{size}-{dim}-{seed}"
    gallery = root / f"{plain.name}-{kind}"
    if (gallery / _BUILD_SECONDS).exists():
        return gallery
    if kind.endswith(_DISK):
        made = _prepare(root, size, dim, seed, kind.removesuffix(_DISK))
        _link(made, gallery)
        _leave_lists_on_disk(gallery)
        shutil.copy(made / _BUILD_SECONDS, gallery)
    else:
        if not (plain / MANIFEST).exists():
            write_gallery(plain, size, dim, seed)
        _link(plain, gallery)
        seconds = _in_own_process(_index, gallery, kind)
        (gallery / _BUILD_SECONDS).write_text(str(seconds), encoding="utf-8")
    return gallery


def _link(made: Path, gallery: Path) -> None:
    """Make a gallery of another's files, so that the large ones are there only once."""
    shutil.rmtree(gallery, ignore_errors=True)
    shutil.copytree(made, gallery, copy_function=os.link, ignore=shutil.ignore_patterns(_BUILD_SECONDS))


def _leave_lists_on_disk(gallery: Path) -> None:
    manifest = read_manifest(gallery)
    if manifest.index is None:
        raise ConfigError(f"{gallery}: its kind of index has no lists to leave on the disk")
    index = manifest.index.model_copy(update={"on_disk": True})
    write_manifest(gallery, manifest.model_copy(update={"index": index}))


def _index(gallery: Path, kind: str) -> float:
    started = time.perf_counter()
    index_gallery(gallery, IndexOptions.model_validate({"kind": kind, "on_disk": False}))
    return time.perf_counter() - started


def _search(folder: Path, asked: NDArray[np.float32], cold: bool) -> tuple[NDArray[np.int64], dict[str, float]]:
    """Open, search, measure: in a process that has done nothing before."""
    descriptors = folder / SEGMENTS / "0001" / DESCRIPTORS
    if cold:
        _drop_from_cache(descriptors)
    before = _own_memory_bytes()
    started = time.perf_counter()
    gallery = Gallery.open(folder)
    gallery.search(asked[0], NEAREST)
    load_s = time.perf_counter() - started
    cold_ms = _timed(gallery, asked[:_WARM_UP])[1]
    _timed(gallery, asked[_WARM_UP:])  # what they read is in the page cache now, however large the file
    found, warm_ms, busy_ms = _timed(gallery, asked[_WARM_UP:])
    return np.array(found), {
        "load_s": load_s,
        "memory_bytes": _own_memory_bytes() - before,
        "search_p50_ms": float(np.median(warm_ms)),
        "search_p99_ms": float(np.percentile(warm_ms, 99)),
        "search_cpu_ms": float(np.mean(busy_ms)),
        "search_cpu_p99_ms": float(np.percentile(busy_ms, 99)),
        "cold_p50_ms": float(np.median(cold_ms)) if cold else float("nan"),
    }


def _search_within(folder: Path, asked: NDArray[np.float32], radius_m: float) -> dict[str, float]:
    gallery = Gallery.open(folder)
    rng = np.random.default_rng(0)
    inside, spent = [], []
    for query in asked:
        place = gallery.places[int(rng.integers(len(gallery)))]
        near = Near(place.latitude_deg, place.longitude_deg, radius_m) if np.isfinite(radius_m) else None
        gallery.search(query, near=near)  # its pages, and the tree of places
        started = time.perf_counter()
        gallery.search(query, near=near)
        spent.append((time.perf_counter() - started) * 1e3)
        inside.append(len(gallery.rows_within(near)) if near else len(gallery))
    return {
        "images": len(gallery),
        "radius_m": radius_m,
        "inside": float(np.median(inside)),
        "search_p50_ms": float(np.median(spent)),
    }


def _timed(gallery: Gallery, asked: NDArray[np.float32]) -> tuple[list[list[int]], list[float], list[float]]:
    """Return the rows, the duration and the processor time (both ms) of each search."""
    found, spent_ms, busy_ms = [], [], []
    for query in asked:
        started, busy = time.perf_counter(), time.process_time()
        candidates = gallery.search(query, NEAREST)
        spent_ms.append((time.perf_counter() - started) * 1e3)
        busy_ms.append((time.process_time() - busy) * 1e3)
        found.append([candidate.index for candidate in candidates])
    return found, spent_ms, busy_ms


def _in_own_process(work: Any, *arguments: Any) -> Any:
    """Call ``work`` in a process of its own that uses one thread."""
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _own_memory_bytes() -> float:
    """Return the anonymous memory of this process; NaN where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), float("nan"))


def _drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
