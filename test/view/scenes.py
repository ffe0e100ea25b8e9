"""Pages that are served to a test's browser, and large scenes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from geowarp_ros.evaluation import exports
from geowarp_ros.evaluation.judging import figures
from geowarp_ros.evaluation.run import Run
from geowarp_ros.evaluation.scene import Ground, column, positions, scene
from geowarp_ros.view import server
from geowarp_ros.view.shown import Shown, Still
from test.evaluation import runs

GROUND = Ground(45.0, 9.0)


@contextmanager
def served(shown: Shown, tiles: str = "") -> Iterator[str]:
    """Serve a page on a free port of 127.0.0.1; yields its address."""
    listening = server.listen("127.0.0.1", 0)
    app = server.application(shown, server.LOOPBACK, tiles)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield server.address_of(listening, "127.0.0.1")
    finally:
        running.should_exit = True
        thread.join(10.0)


def written(folder: Path, run: Run | None = None) -> Path:
    """A run's files: of six images, 5 m and half a second apart, with five fixes, one 60 m off, and a no-fix."""
    run = run or runs.run()
    (folder / "results.json").write_text(json.dumps({"title": run.title, **figures(run)}))
    (folder / "run.json").write_text("{}")
    exports.write_csv(run, folder / "images.csv")
    return folder


def picture(row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((48, 64, 3), row * 37 % 256, np.uint8)


def large(count: int, points: int = 0, seed: int = 0) -> Still:
    """A town's gallery: streets every 100 m, photographs along them, headings, tags off by metres."""
    random = np.random.default_rng(seed)
    along, street = random.uniform(0, 10_000, count), 100.0 * random.integers(0, 100, count)
    turned = random.random(count) < 0.5
    where = np.where(turned[:, None], np.stack([along, street], 1), np.stack([street, along], 1))
    own = where + random.normal(0, 2.0, where.shape)
    places = {
        **positions(where),
        **positions(own, "own_"),
        "name": [f"street/{row:06}.jpg" for row in range(count)],
        "heading": column(random.uniform(0, 360, count)),
        "own_heading": column(random.uniform(0, 360, count)),
        "own_std": column(np.full(count, 0.5)),
        "suspicious": [],
    }
    cloud = {**positions(random.uniform(0, 10_000, (points, 2))), "of": points} if points else None
    shown = scene("gallery", f"{count:,} places", GROUND, places=places, points=cloud, left_out=[])
    return Still(shown, {"place": picture})
