from __future__ import annotations

from pathlib import Path

import pytest

from test.lab.training.street import write_street


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 places to train on and 20 to validate on, four shots of each 2 m apart, places 40 m apart."""
    folder = write_street(tmp_path_factory.mktemp("street"), places=40)
    return write_street(folder, places=20, first=100, split="val")
