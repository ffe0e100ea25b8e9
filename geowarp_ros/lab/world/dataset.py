"""Export of a world: images, positions, map and drives.

Written to a hidden sibling folder that is renamed when complete. Rerunning with the same parameters resumes an
interrupted export; the bytes of an image depend only on its seeds.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros import __version__
from geowarp_ros.cameras import camera_from_matrix
from geowarp_ros.errors import ConfigError, SourceError
from geowarp_ros.files import write_whole
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.drive import record_drive
from geowarp_ros.lab.world.passes import Shot, shots
from geowarp_ros.lab.world.world import World
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers.camera_files import CAMERA_FILE, write_camera

COLUMNS = ("filename", "latitude", "longitude", "altitude", "heading", "split", "street", "pass")
DESCRIPTION = "world.json"
FORMAT_VERSION = 1


def write_world(
    config: WorldConfig, output: Path, *, overwrite: bool = False, progress: Progress = silent
) -> Path:
    """Render a world to a folder.

    Args:
        config: World parameters.
        output: Output folder: images/, positions.csv, camera.yaml, map.json, world.json and optionally drive/,
            gallery_drive/.
        overwrite: Replace an existing world; other non-empty folders are always refused.
        progress: Progress display.

    Returns:
        ``output``.

    Raises:
        ConfigError: No streets configured.
        SourceError: ``output`` exists, or cannot be written.
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
        if _description(partial) != description:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write_json(partial / DESCRIPTION, description)
        world = World(config)
        planned = list(shots(world))
        for shot in progress(planned, len(planned), "rendering photographs"):
            _take(world, shot, partial)
        _write_positions(partial / "positions.csv", planned, town_frame(config))
        matrix = planned[0].camera.matrix.flatten().tolist()  # of all images
        write_camera(partial / CAMERA_FILE, camera_from_matrix(config.width_px, config.height_px, matrix))
        _write_json(partial / "map.json", street_map(world))
        for name, wanted in (("drive", config.drive), ("gallery_drive", config.gallery_drive)):
            if config.streets and wanted:
                record_drive(world, partial / name, gallery=name == "gallery_drive", progress=progress)
        _replace(output, partial)
    except OSError as error:
        raise SourceError(f"cannot write the world {output}: {error.strerror or error}") from error
    return output


def town_frame(config: WorldConfig) -> LocalFrame:
    """Return the ENU frame at the town's centre, on the ground."""
    return LocalFrame(config.latitude, config.longitude, config.altitude_m)


def street_map(world: World) -> dict[str, Any]:
    """Return the map of the town, ENU in metres.

    Returns:
        ``datum`` (latitude, longitude, altitude), ``streets`` (name, part, photographed, start, end, width_m) and
        ``buildings`` (four corners, colour, quarter).
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


def is_world(folder: Path) -> bool:
    """Return whether a folder was written by :func:`write_world`."""
    description = _description(folder)
    return isinstance(description, dict) and description.get("format") == "geowarp-world"


def _description(folder: Path) -> Any:
    """Return the content of world.json; None where there is none."""
    try:
        return json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return None


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise SourceError(f"output {output} is a file, expected a folder")
    if any(output.iterdir()):
        if not is_world(output):
            raise SourceError(f"output {output} is not empty and not a world; nothing was written")
        if not overwrite:
            raise SourceError(f"output {output} is already a world; --overwrite replaces it")


def _replace(output: Path, finished: Path) -> None:
    """Move the finished folder into place; the previous one stays intact until then."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.replace(old)
    finished.replace(output)
    shutil.rmtree(old, ignore_errors=True)


def _take(world: World, shot: Shot, folder: Path) -> None:
    path = folder / shot.name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        image = world.render(shot.camera, shot.conditions)
        write_whole(path, encode_jpeg(image, world.config.jpeg_quality), SourceError)


def _write_positions(path: Path, planned: list[Shot], frame: LocalFrame) -> None:
    positions = np.stack(frame.to_geodetic(np.array([shot.camera.position for shot in planned])), axis=1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for shot, (latitude, longitude, altitude) in zip(planned, positions, strict=True):
            position = (f"{latitude:.9f}", f"{longitude:.9f}", f"{altitude:.3f}", f"{shot.camera.heading_deg:.2f}")
            rows.writerow((shot.name, *position, shot.split, shot.street.name, shot.drive))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode(), SourceError)


def _rounded(point: Any) -> list[float]:
    return [round(float(value), 2) for value in point]
