"""One thread a process: pytest-xdist keeps the cores busy, and results do not depend on how many there are."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from test.catalogue.serving import Site, serving

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_collection_finish() -> None:
    """Leave imported modules out of garbage collections: the package forces full ones, of 0.2 s each otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A ROS 2 graph on loopback, in a domain of this process's own; the processes that tests start inherit it."""
    import rclpy

    from geowarp_ros.lab.loopback import loopback_environment, own_domain_id

    if rclpy.ok():  # test/ros/conftest.py has made one for the whole session
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in loopback_environment(own_domain_id()).items():
            patch.setenv(name, value)
        patch.setenv("ROS_LOG_DIR", str(tmp_path_factory.mktemp("ros_log")))
        rclpy.init()
        yield
        rclpy.try_shutdown()


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on loopback."""
    with serving() as found:
        yield found
