"""SIGKILL at random moments: a gallery is whole after each, and what was begun can be ended."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Source, read_source
from test.faults.mutations import write_source
from test.gallery.conftest import ColourDescriber
from test.gallery.test_remodel import NewDescriber

IMAGES = 12


@dataclass
class Killed:
    """What became of one kind of change.

    Attributes:
        killed: Processes that the signal met while they worked.
        ended: Processes that were quicker than it.
        wholes: Times the gallery was opened and verified.
        resumed: Changes that a second process ended.
    """

    killed: int = 0
    ended: int = 0
    wholes: int = 0
    resumed: int = 0


def kill_changes(folder: Path, trials: int, seed: int) -> dict[str, Killed]:
    """Build, replace, add, remove and upgrade, each killed at random moments so often.

    Raises:
        AssertionError: A gallery is not what it was before the change, nor what it should be after it.
    """
    rng = random.Random(seed)
    first = read_source(write_source(folder / "first", IMAGES))
    more = read_source(write_source(folder / "more", IMAGES))
    whole = build_gallery(first, ColourDescriber(), folder / "whole", batch_size=2).gallery
    bare = build_gallery(first, ColourDescriber(), folder / "bare", batch_size=2, keypoints=None).gallery

    def build(gallery: Path) -> None:
        build_gallery(first, ColourDescriber(), gallery, batch_size=2)

    def rebuild(gallery: Path) -> None:
        build_gallery(_renamed(more), ColourDescriber(), gallery, batch_size=2, replace_existing=True)

    def add(gallery: Path) -> None:
        add_to_gallery(more, ColourDescriber(), gallery, prefix="more", batch_size=2)

    def remove(gallery: Path) -> None:
        remove_from_gallery(gallery, [f"{number}.png" for number in range(0, IMAGES, 2)])

    def upgrade(gallery: Path) -> None:
        upgrade_gallery(gallery)

    def remodel(gallery: Path) -> None:
        upgrade_gallery(gallery, describer=NewDescriber(resolution=0), batch_size=2)

    changes: dict[str, tuple[Callable[[Path], None], Path | None, int, int]] = {
        "build": (build, None, 0, IMAGES),
        "build --replace": (rebuild, whole, IMAGES, IMAGES),
        "add": (add, whole, IMAGES, 2 * IMAGES),
        "remove": (remove, whole, IMAGES, IMAGES // 2),
        "upgrade": (upgrade, bare, IMAGES, IMAGES),
        "upgrade --model": (remodel, whole, IMAGES, IMAGES),
    }
    found = {}
    for name, (change, start, before, after) in changes.items():
        found[name] = seen = Killed()
        duration_s = _time(change, start, folder / "timed")
        for _ in tqdm(range(trials), desc=f"killing {name}", disable=trials < 20):
            gallery = _copy(start, folder / "gallery")
            killed = _killed(change, gallery, rng.uniform(0, 1.1 * duration_s))
            seen.killed += killed
            seen.ended += not killed
            _check_whole(gallery, {before, after} if killed else {after})
            seen.wholes += 1
            if (gallery / "gallery.json").exists() and len(Gallery.open(gallery)) == after != before:
                continue
            if name == "build --replace" and Gallery.open(gallery).places[0].name == "other/0.png":
                continue
            change(gallery)
            _check_whole(gallery, {after})
            assert Gallery.open(gallery).keypoint_config is not None
            assert name != "upgrade --model" or Gallery.open(gallery).model_fingerprint == "beef"
            seen.wholes += 1
            seen.resumed += 1
    return found


def _renamed(source: Source) -> Source:
    from dataclasses import replace

    images = [replace(i, place=replace(i.place, name=f"other/{i.place.name}")) for i in source.images]
    return replace(source, images=tuple(images))


def _copy(start: Path | None, gallery: Path) -> Path:
    shutil.rmtree(gallery, ignore_errors=True)
    if start is not None:
        shutil.copytree(start, gallery)
    return gallery


def _time(change: Callable[[Path], None], start: Path | None, gallery: Path) -> float:
    begun = time.monotonic()
    change(_copy(start, gallery))
    return time.monotonic() - begun


def _killed(change: Callable[[Path], None], gallery: Path, after_s: float) -> bool:
    """Change a gallery in another process and kill it so long after its begin; False where it was quicker."""
    if not (child := os.fork()):
        status = 1
        try:
            change(gallery)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, ended = os.waitpid(child, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0, "the change failed by itself"
    return os.WIFSIGNALED(ended)


def _check_whole(gallery: Path, sizes: set[int]) -> None:
    if not (gallery / "gallery.json").exists():
        assert 0 in sizes, f"{gallery} is gone"
        return
    opened = Gallery.open(gallery)
    assert opened.verify() == []
    assert len(opened) in sizes, f"{gallery}: {len(opened)} images, expected {sizes}"


def content(folder: Path) -> str:
    """Digest of everything in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
