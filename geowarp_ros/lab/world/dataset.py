"""Writes a world to disk: photographs, their positions, the map, the drives.

The folder is made under a hidden name beside its final one and renamed when complete. A second run with the same
parameters goes on where the first was interrupted; a photograph's bytes depend on nothing but its own seeds.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from geowarp_ros import __version__
from geowarp_ros.errors import ConfigError, SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.drive import record_drive
from geowarp_ros.lab.world.passes import Shot, shots
from geowarp_ros.lab.world.world import World
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Image

COLUMNS = ("filename", "latitude", "longitude", "altitude", "heading", "split", "street", "pass")
DESCRIPTION = "world.json"
FORMAT_VERSION = 1


def write_world(
    config: WorldConfig, output: Path, *, overwrite: bool = False, progress: Progress = silent
) -> Path:
    """Render a world into the folder ``output``.

    Args:
        config: What to render.
        output: Folder to make: images/, positions.csv, map.json, world.json; drive/, gallery_drive/ on request.
        overwrite: Replace a world that is there already; anything else that is not empty is always refused.
        progress: Shows how far it is.

    Returns:
        ``output``.

    Raises:
        ConfigError: The configuration has no street.
        SourceError: ``output`` is taken, or cannot be written.
    """
    if not config.streets + config.train_streets + config.val_streets:
        raise ConfigError("streets = 0, train_streets = 0, val_streets = 0: expected at least one street in all")
    output = output.resolve()
    _check_output(output, overwrite)
    description = {
        "format": "geowarp-world",
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "config": config.model_dump(),
    }
    partial = output.with_name(f".{output.name}.partial")
    try:
        _prepare(partial, description)
        world = World(config)
        planned = list(shots(world))
        for shot in progress(planned, len(planned), "photographs"):
            _take(world, shot, partial)
        _write_positions(partial / "positions.csv", planned, town_frame(config))
        _write_json(partial / "map.json", street_map(world))
        _write_drives(world, partial, progress)
        _replace(output, partial)
    except OSError as error:
        raise SourceError(f"cannot write the world {output}: {error.strerror or error}") from error
    return output


def town_frame(config: WorldConfig) -> LocalFrame:
    """Return the frame whose origin is the town's middle, on the ground."""
    return LocalFrame(config.latitude, config.longitude, config.altitude_m)


def street_map(world: World) -> dict[str, Any]:
    """Return what a map picture needs, in metres ENU about the town's middle.

    Returns:
        ``datum`` (latitude, longitude, altitude), ``streets`` (name, part, start, end, width_m, photographed) and
        ``buildings`` (four corners, colour).
    """
    config = world.config
    photographed = {street.name for street in world.streets}
    streets = [
        {
            "name": street.name,
            "part": street.part,
            "photographed": street.name in photographed,
            "start": _rounded(street.start),
            "end": _rounded(street.end),
            "width_m": round(street.width_m, 2),
        }
        for quarter in world.quarters
        for street in quarter.streets
    ]
    buildings = []
    for quarter in world.quarters:
        for building in quarter.buildings:
            design = building.design
            ends = [(0, 0), (design.width_m, 0), (design.width_m, design.depth_m), (0, design.depth_m)]
            corners = [_rounded(building.at(x, depth, 0)[:2]) for x, depth in ends]
            buildings.append({"corners": corners, "colour": list(design.roof_colour), "quarter": quarter.index})
    datum = {"latitude": config.latitude, "longitude": config.longitude, "altitude": config.altitude_m}
    return {"datum": datum, "streets": streets, "buildings": buildings}


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Return an RGB image (H, W, 3) as JPEG."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise SourceError(f"cannot encode an image of shape {image.shape} as JPEG")
    return data.tobytes()


def is_world(folder: Path) -> bool:
    """Tell whether a folder is one that :func:`write_world` made."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("format") == "geowarp-world"


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise SourceError(f"output {output} is a file, expected a folder to make")
    if not any(output.iterdir()):
        return
    if not is_world(output):
        raise SourceError(f"output {output} is not empty and no world; nothing was written")
    if not overwrite:
        raise SourceError(f"output {output} is a world already; --overwrite replaces it")


def _replace(output: Path, finished: Path) -> None:
    """Put the finished folder in the place of the old one, which is whole until then."""
    old = output.with_name(f".{output.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if output.exists():
        output.replace(old)
    finished.replace(output)
    if old.exists():
        shutil.rmtree(old)


def _prepare(partial: Path, description: dict[str, Any]) -> None:
    """Make the unfinished folder, or keep it where it is the same world's."""
    try:
        same = json.loads((partial / DESCRIPTION).read_text()) == description
    except (OSError, ValueError):
        same = False
    if not same:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        _write_json(partial / DESCRIPTION, description)


def _take(world: World, shot: Shot, folder: Path) -> None:
    """Take one photograph unless an earlier run has taken it."""
    path = folder / shot.name
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode_jpeg(world.render(shot.camera, shot.conditions), world.config.jpeg_quality)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def _write_positions(path: Path, planned: list[Shot], frame: LocalFrame) -> None:
    enu = np.array([shot.camera.position for shot in planned]).reshape(-1, 3)
    latitude, longitude, altitude = frame.to_geodetic(enu)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for shot, lat, lon, alt in zip(planned, latitude, longitude, altitude, strict=True):
            position = (f"{lat:.9f}", f"{lon:.9f}", f"{alt:.3f}", f"{shot.camera.heading_deg:.2f}")
            rows.writerow((shot.name, *position, shot.split, shot.street.name, shot.drive))


def _write_drives(world: World, folder: Path, progress: Progress) -> None:
    """Write the bags that the configuration asks for."""
    for wanted, name in ((world.config.drive, "drive"), (world.config.gallery_drive, "gallery_drive")):
        if wanted and world.config.streets:
            record_drive(world, folder / name, gallery=name == "gallery_drive", progress=progress)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def _rounded(point: Any) -> list[float]:
    return [round(float(value), 2) for value in point]
