"""One small world, rendered once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import write_world
from geowarp_ros.lab.world.world import World

SMALL = WorldConfig(
    seed=5,
    streets=2,
    train_streets=1,
    val_streets=1,
    street_length_m=50,
    width_px=96,
    height_px=72,
    supersampling=1,
    spacing_m=15,
    query_spacing_m=20,
    drive_speed_m_s=20,
)


@pytest.fixture(scope="session")
def world() -> World:
    """The town itself."""
    return World(SMALL)


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The town on disk."""
    return write_world(SMALL, tmp_path_factory.mktemp("world") / "town")


def project(camera: Camera, points: ArrayLike) -> Vector:
    """Pixels (N, 2) of ENU points (N, 3) in front of the camera."""
    pixels: Vector = (np.asarray(points) - camera.position) @ camera.camera_from_world.T @ camera.matrix.T
    return pixels[:, :2] / pixels[:, 2:]
