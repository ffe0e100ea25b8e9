from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.lab.studies import memory as room
from geowarp_ros.lab.studies.memory import PeakMemory, keeps_peak


@pytest.fixture
def tried_anew() -> Iterator[None]:
    keeps_peak.cache_clear()
    yield
    keeps_peak.cache_clear()


@pytest.mark.skipif(not keeps_peak(), reason="this system keeps no peak: the column stays empty there, see below")
def test_memory_taken_and_given_back_is_seen() -> None:
    pieces = [np.ones(1 << 16, np.uint8) for _ in range(2000)]
    last = pieces.pop()
    del pieces  # 125 MiB below the last piece, which the allocator keeps, and would fill what follows from
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    held = np.ones(64 << 20, np.uint8)  # 64 MiB, touched
    del held, last
    assert 60 < memory.peak_mib() < 100
    memory.start()
    assert memory.peak_mib() < 30


@pytest.mark.parametrize("peak_kb", [None, 700])
def test_a_system_that_keeps_no_peak_leaves_the_column_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried_anew: None, peak_kb: int | None
) -> None:
    # some sandboxes take the reset and never raise the peak, or have none
    status = "VmRSS:\t   700 kB\n" + (f"VmHWM:\t   {peak_kb} kB\n" if peak_kb else "")
    (tmp_path / "status").write_text(status)
    monkeypatch.setattr(room, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(room, "_CLEAR", tmp_path / "clear_refs")
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    assert not keeps_peak()
    assert math.isnan(memory.peak_mib())


def test_a_system_without_proc_leaves_the_column_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried_anew: None
) -> None:
    monkeypatch.setattr(room, "_CLEAR", tmp_path / "absent" / "clear_refs")
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    assert math.isnan(memory.peak_mib())
