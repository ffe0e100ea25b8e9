"""Twelve places of blobs, 60 m apart, for calibrations."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import torch

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.types import Image

PLACES = 12


def picture(seed: int, noise: int = 0) -> Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = np.asarray(cv2.resize(blocks, (96, 72), interpolation=cv2.INTER_CUBIC), int)
    image += np.random.default_rng(noise).integers(-5, 6, image.shape) * bool(noise)
    return np.asarray(image.clip(0, 255), np.uint8)


def write_model(path: Path) -> Path:
    """Write a model that nobody trained, always the same one."""
    torch.manual_seed(0)
    save_model(GeoWarp(ModelConfig()), path)
    return path


def write_source(folder: Path, seed: int, latitude: float) -> None:
    """Write the places once in split gallery and once, noisy, in split query."""
    folder.mkdir(parents=True)
    frame = LocalFrame(latitude, 7.0)
    with (folder / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("filename", "latitude", "longitude", "split"))
        for place in range(PLACES):
            lat, lon, _ = frame.to_geodetic(np.array([[60.0 * place, 0.0, 0.0]]))
            for split in ("gallery", "query"):
                name = f"{split}_{place:02}.png"
                cv2.imwrite(str(folder / name), picture(seed + place, 99 if split == "query" else 0))
                rows.writerow((name, float(lat[0]), float(lon[0]), split))
