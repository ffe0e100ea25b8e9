from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geowarp_ros.evaluation.memory import PeakMemory


def test_memory_taken_and_given_back_is_seen():
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    if math.isnan(memory.peak_mib()):
        pytest.skip("this system does not let a process reset its peak: the column stays empty there")
    held = np.ones(64 << 20, np.uint8)  # 64 MiB, touched
    del held
    assert 60 < memory.peak_mib() < 100
    memory.start()
    assert memory.peak_mib() < 30
