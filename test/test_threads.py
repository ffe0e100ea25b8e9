"""One number of threads for every library, and how many cores are this process's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import faiss
import pytest
import torch

from geowarp_ros import threads
from geowarp_ros.threads import own_cores, use_threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two threads each, numbered as Linux numbers them; no quota, no wish."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (tmp_path / "own").write_text("0::/robot/camera\n")
    (tmp_path / "robot" / "camera").mkdir(parents=True)
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(threads, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def test_two_threads_of_a_core_count_once(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_cores() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4})
    assert own_cores() == 2


@pytest.mark.parametrize(
    ("at", "quota", "cores"),
    [
        ("robot/camera", "250000 100000", 2),
        ("robot", "300000 100000", 3),
        ("robot", "max 100000", 4),
        (".", "1000 100000", 1),
    ],
)
def test_a_control_groups_quota_limits_and_leaves_one(machine: Path, at: str, quota: str, cores: int) -> None:
    (machine / at / "cpu.max").write_text(quota + "\n")
    assert own_cores() == cores


def test_what_the_user_tells_openmp_limits(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for told, cores in (("2", 2), ("3,1", 3), ("64", 4), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert own_cores() == cores


def test_a_machine_that_tells_nothing_has_its_processors(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TOPOLOGY", "_CGROUP", "_OWN_CGROUP"):
        monkeypatch.setattr(threads, name, machine / "absent")
    assert own_cores() == 8


@pytest.fixture
def as_before() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])
    faiss.omp_set_num_threads(before[2])


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("setting", [2, 1, 0])
def test_every_library_takes_as_many(setting: int) -> None:
    count = use_threads(setting)
    assert count == (setting or own_cores())
    assert torch.get_num_threads() == cv2.getNumThreads() == faiss.omp_get_max_threads() == count
