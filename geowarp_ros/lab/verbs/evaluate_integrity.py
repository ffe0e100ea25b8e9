"""Calibrate on some drives and judge on others: false fixes, availability, ellipses, and images taken elsewhere.

RECIPE is a YAML file such as docs/recipes/integrity.yaml. The towns that it names are rendered, and its galleries
built, in the output folder where they are absent. The calibration holds for any gallery of the model; --store puts
it beside the model's file, where galleries without one of their own find it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from geowarp_ros.cli.options import add_settings, localizer_config, settings
from geowarp_ros.cli.parser import DATA, NEW_FOLDER, RECIPE
from geowarp_ros.cli.verbs import require

if TYPE_CHECKING:
    from geowarp_ros.integrity.calibration import Calibration
    from geowarp_ros.lab.studies.integrity import Asked, Images, IntegrityRecipe
    from geowarp_ros.lab.studies.tables import Table
    from geowarp_ros.readers import SourceImage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", type=RECIPE, metavar="RECIPE", help="YAML: towns, drives, foreign images")
    parser.add_argument("--data", type=DATA, default=Path(), help="folder of the recipe's sources")
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="folder for towns, galleries, tables, plot"
    )
    parser.add_argument("--store", action="store_true", help="store the calibration beside the model file")
    add_settings(parser, "model", "device", "runtime", "threads")


def run(args: argparse.Namespace) -> int:
    """Render, build, ask, fit, judge, write and print."""
    config = localizer_config(settings(args), "evaluate integrity")
    require("matplotlib", "sklearn")
    from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS
    from geowarp_ros.integrity.calibration import beside_model, save_calibration, settings_of
    from geowarp_ros.lab.studies.alignments import alignment_row, alignment_table
    from geowarp_ros.lab.studies.galleries import kept_gallery
    from geowarp_ros.lab.studies.integrity import (
        ask_drive,
        elsewhere_table,
        fit_asked,
        fix_table,
        pose_table,
        prior_table,
        read_recipe,
        select,
        stage_table,
    )
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.model.describer import open_describer
    from geowarp_ros.model.installed import find_weights
    from geowarp_ros.progress import bar
    from geowarp_ros.readers import Source
    from geowarp_ros.rerank.verification import method_of

    recipe = read_recipe(args.recipe)
    describer = open_describer(config)
    roots = _render(recipe, args.output / "towns")

    def find(images: Images) -> tuple[SourceImage, ...]:
        return select(images, roots.get(images.path, args.data), args.recipe.parent)

    asked: list[Asked] = []
    aligned = []
    for drive in recipe.drives:
        places = find(drive.gallery)
        source = Source(places, description=drive.name)
        gallery = kept_gallery(source, describer, args.output / "galleries", bar, drive.align, DEFAULT_KEYPOINTS)
        localizer = Localizer.of(describer, gallery, config, calibrated=False)
        asked.append(ask_drive(localizer, drive, find, recipe.plain_seeds, bar))
        if drive.gallery.tags is not None:
            truth = find(drive.gallery.model_copy(update={"tags": None}))
            aligned.append(
                alignment_row(drive.name, gallery, [image.place for image in truth], drive.gallery.tags)
            )
    measured_with = settings_of(config, describer.fingerprint, gallery.keypoint_config)
    calibration, summary = fit_asked(asked, recipe.false_fix_rate, measured_with)
    every = (table(asked, calibration) for table in (fix_table, pose_table, prior_table, elsewhere_table))
    tables = [*every, alignment_table([row for row in aligned if row is not None]), stage_table(asked)]
    tables = [table for table in tables if table.rows]
    _write(args.output, tables, asked, calibration, summary, args.recipe)
    print("\n".join(table.markdown() for table in tables))
    if args.store:
        verified_by = method_of(config.position.verify, gallery.keypoint_config)
        stored = beside_model(find_weights(config.model), config.rerank.mode, verified_by)
        save_calibration(stored, calibration)
        print(f"Stored as {stored}")
    print(f"Written to {args.output}")
    return 0


def _render(recipe: IntegrityRecipe, folder: Path) -> dict[str, Path]:
    """Render the towns that are absent; returns the folder in which each town lies, by its name."""
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.world.config import WorldConfig
    from geowarp_ros.lab.world.dataset import is_world, write_world
    from geowarp_ros.progress import bar

    for name, town in recipe.towns.items():
        if not is_world(folder / name):
            folder.mkdir(parents=True, exist_ok=True)
            write_world(
                parse_config(WorldConfig, {**town.model_dump(), "drive": False}), folder / name, progress=bar
            )
    return dict.fromkeys(recipe.towns, folder)


def _write(
    output: Path,
    tables: list[Table],
    asked: list[Asked],
    calibration: Calibration,
    summary: dict[str, float],
    recipe: Path,
) -> None:
    """Write the tables, the plot, the calibration, and what it takes to do it again."""
    from geowarp_ros import __version__
    from geowarp_ros.integrity.calibration import save_calibration
    from geowarp_ros.lab.studies.integrity import judge
    from geowarp_ros.lab.studies.integrity_plot import write_tradeoff_plot
    from geowarp_ros.provenance import commit

    (output / "integrity.md").write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    curves = [
        (item.drive.name, judge(item.as_it_is, calibration), item.drive.correct_within_m)
        for item in asked
        if not item.drive.calibrates
    ]
    write_tradeoff_plot(
        curves, calibration.min_confidence, "Drives that did not calibrate", output / "integrity.png"
    )
    save_calibration(output / "calibration.json", calibration)
    results = {
        **{table.name: table.records() for table in tables},
        "cross_validation": summary,
        "recipe": recipe.read_text(encoding="utf-8"),
        "measured_with": calibration.measured_with,
        "commit": commit(),
        "version": __version__,
        "seed": 0,
    }
    (output / "results.json").write_text(
        json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
