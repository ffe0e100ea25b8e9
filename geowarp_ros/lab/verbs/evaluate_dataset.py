"""Measure retrieval and re-rankers on a set of geotagged images: the paper's tables, for any model and data.

Options of the baselines are settings, too: --set baselines.expansion.alpha=0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geowarp_ros.cli.alignment import add_align_options, align_options
from geowarp_ros.cli.options import add_settings, localizer_config, settings
from geowarp_ros.cli.parser import IMAGES, NEW_FOLDER, ExistingModel
from geowarp_ros.cli.sources import add_reading, reading
from geowarp_ros.cli.verbs import require
from geowarp_ros.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

    from geowarp_ros.evaluation.sets import Sets
    from geowarp_ros.keypoints.detector import KeypointConfig
    from geowarp_ros.lab.baselines import Method
    from geowarp_ros.lab.baselines.densevlad import DenseVlad
    from geowarp_ros.lab.studies.dataset import Contender, DatasetConfig, Outcome
    from geowarp_ros.lab.studies.tables import Table
    from geowarp_ros.model.describer import Describer

DENSEVLAD = "densevlad"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; their defaults are those of DatasetConfig."""
    absent: Any = argparse.SUPPRESS
    parser.add_argument(
        "directory", type=IMAGES, metavar="DIR", help="images/{train,val,test}/…/@utm…@.jpg, a CSV, or any source"
    )
    parser.add_argument(
        "--model", dest="models", type=ExistingModel(DENSEVLAD), nargs="+", default=absent, metavar="M",
        help="model files to compare (default: the model that ships); densevlad: baseline trained on the gallery",
    )  # fmt: skip
    parser.add_argument(
        "--rerank", dest="methods", nargs="+", default=absent, metavar="METHOD", help="methods to compare, or: all"
    )
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=absent, metavar="M", help="thresholds of the recall (m)"
    )
    parser.add_argument("--recalls", nargs="+", type=int, default=absent, metavar="N", help="N of Recall@N")
    parser.add_argument(
        "--gallery-split", default=absent, help="split to search (default: test/gallery or gallery)"
    )
    parser.add_argument(
        "--query-split", default=absent, help="split to ask about (default: test/queries or query)"
    )
    parser.add_argument(
        "--every", type=int, default=0, metavar="N",
        help="instead of splits: every N-th image is a query; 1: every image is a query of all others",
    )  # fmt: skip
    add_reading(parser, video_every="--every-picture")
    parser.add_argument(
        "--exclude-neighbours", type=int, default=absent, metavar="N",
        help="ignore gallery images of the query's own sequence within N numbers (in the file name)",
    )  # fmt: skip
    parser.add_argument(
        "--limit-queries", type=int, default=absent, metavar="N", help="maximum number of queries, evenly spread"
    )
    parser.add_argument("--seed", type=int, default=absent, help="seed of the bootstrap")
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="folder of tables, plot and galleries; reused"
    )
    add_align_options(parser, "position-std", "free-tilt")
    add_settings(parser, "keypoint_weights", "matcher_weights", "candidates", "device", "runtime", "threads")


def run(args: argparse.Namespace) -> int:
    """Read, build or reuse galleries, ask every query, write and print the tables."""
    from geowarp_ros.evaluation.sets import check_reachable, read_sets, spread
    from geowarp_ros.lab.studies.dataset import evaluate_model
    from geowarp_ros.lab.studies.galleries import kept_gallery
    from geowarp_ros.progress import bar

    config, given = _config(args), vars(args)
    require("matplotlib")
    if args.every == 1 and not config.exclude_neighbours:
        raise ConfigError(
            "--every 1 makes each image find itself: leave it out with --exclude-neighbours, at least 1"
        )
    sets = read_sets(
        args.directory,
        gallery_split=given.get("gallery_split"),
        query_split=given.get("query_split"),
        every=args.every,
        reading=reading(args),
    )
    unreachable = check_reachable(sets, config.thresholds_m, config.exclude_neighbours)
    queries = spread(sets.queries, config.limit_queries)
    notes = [
        f"{sets.description}: {len(queries)} of {len(sets.queries)} queries, {len(sets.gallery.images)} places."
    ]
    notes += [
        f"{count} of {len(sets.queries)} queries have no gallery image within {metres:g} m and count as misses."
        for metres, count in unreachable.items()
        if count
    ]
    if sets.gallery.local:
        notes.append("Positions are metres of the data set's own frame, nowhere on the earth.")
    if config.exclude_neighbours:
        notes.append(
            f"Gallery images within {config.exclude_neighbours} numbers of a query were left out of its search."
        )
    outcomes: list[Outcome] = []
    for contender in _contenders(given.get("models", [config.localizer.model]), sets, config, args.output):
        align = align_options(args) if any(image.camera for image in sets.gallery.images) else None
        possible, refused = _possible(contender, config)
        notes += refused
        for keypoints, methods in _by_keypoints(possible, contender.describer.device):
            folder = args.output / "galleries"
            gallery = kept_gallery(sets.gallery, contender.describer, folder, bar, align, keypoints)
            if missing := len(sets.gallery.images) - len(gallery):
                notes.append(f"{contender.label}: {missing} gallery images cannot be read and are not searched.")
            part = possible.model_copy(update={"rerank": methods})
            found, unreadable = evaluate_model(contender, gallery, queries, part, bar)
            outcomes += found
            if unreadable:
                notes.append(
                    f"{contender.label}: {len(unreadable)} queries cannot be read: {', '.join(unreadable[:5])}."
                )
    notes = list(dict.fromkeys(notes))
    tables = _tables(outcomes, config)
    _write(args.output, tables, outcomes, config, notes, given, sets.gallery.local)
    print("\n".join([*notes, "", *(table.markdown() for table in tables), f"Written to {args.output}"]))
    return 0


def _config(args: argparse.Namespace) -> DatasetConfig:
    from geowarp_ros.config import LocalizerConfig, parse_config
    from geowarp_ros.lab.baselines import WITH_WEIGHTS
    from geowarp_ros.lab.studies.dataset import DatasetConfig
    from geowarp_ros.lab.studies.tables import TITLES

    given = vars(args)
    names = {"thresholds": "thresholds_m", "recalls": "recalls", "seed": "seed"}
    names |= {name: name for name in ("exclude_neighbours", "limit_queries")}
    values: dict[str, Any] = {names[name]: given[name] for name in names if name in given}
    if "methods" in given:
        everything = [method for method in TITLES if method not in WITH_WEIGHTS]
        values["rerank"] = list(dict.fromkeys(everything if given["methods"] == ["all"] else given["methods"]))
    nested = settings(args)
    values["baselines"] = nested.pop("baselines", {})
    config = parse_config(DatasetConfig, values)
    localizer = localizer_config(nested, "evaluate dataset")
    method = localizer.rerank.method
    if method != LocalizerConfig().rerank.method and "methods" not in given:
        raise ConfigError(f"rerank.method = {method!r}: say by --rerank which methods to compare")
    for name in (setting.partition("=")[0].strip() for setting in given.get("set", ())):
        if name == "model" and "models" in given:
            raise ConfigError("--set model: --model names the models to compare; give one of the two")
        if name.startswith("position.") and not name.startswith("position.verification."):
            raise ConfigError(f"--set {name}: evaluate dataset ranks places; it estimates no position")
    return config.model_copy(update={"localizer": localizer})


def _contenders(models: Sequence[str], sets: Sets, config: DatasetConfig, output: Path) -> list[Contender]:
    """Load every model before anything long begins, so that a wrong file is refused at once."""
    from geowarp_ros.lab.studies.dataset import Contender
    from geowarp_ros.model.describer import open_describer

    backbones = {"alexnet": "AlexNet", "vgg16": "VGG16", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}
    backbones["mobilenet_v2"] = "MobileNetV2"
    aggregations = {"gem": "GeM", "netvlad": "NV"}
    found: list[Contender] = []
    for name in (model for model in models if model != DENSEVLAD):
        describer = open_describer(config.localizer.model_copy(update={"model": name}))
        kind = describer.model.config
        file = describer.model.file or Path(name)  # of "gallery" that of the model that ships
        label = file.stem
        while any(label == other.label for other in found):
            label = f"{file.parent.name}/{label}"
        encoder, aggregation = kind.describing.encoder, kind.aggregation
        names = backbones.get(encoder, encoder), aggregations.get(aggregation, aggregation)
        found.append(Contender(label, *names, describer))
    if DENSEVLAD in models:
        # galleries and re-rankers ask no more of a Describer than DenseVlad has
        dense = cast("Describer", _densevlad(sets, config.seed, output))
        found.append(Contender(DENSEVLAD, "–", "DenseVLAD", dense))
    return found


def _densevlad(sets: Sets, seed: int, output: Path) -> DenseVlad:
    """Train the baseline on the gallery, as its authors do, or load what an earlier run trained on it."""
    from geowarp_ros.gallery.making.filling import identity_of
    from geowarp_ros.lab.baselines.densevlad import DenseVlad, train_densevlad
    from geowarp_ros.progress import bar

    path = output / "models" / f"densevlad-{identity_of(sets.gallery)}-{seed}.safetensors"
    if path.exists():
        return DenseVlad.load(path)
    trained = train_densevlad(sets.gallery.images, seed=seed, progress=bar)
    path.parent.mkdir(parents=True, exist_ok=True)
    trained.save(path)
    return trained


def _possible(contender: Contender, config: DatasetConfig) -> tuple[DatasetConfig, list[str]]:
    """Leave out the methods that need a regression where the model has none, with a note that names them."""
    from geowarp_ros.lab.baselines import WARPING

    if contender.describer.model.regression is not None:
        return config, []
    fast = config.localizer.rerank.mode == "fast"
    left_out = [method for method in config.rerank if method in WARPING and not (fast and method == "geowarp")]
    possible = tuple(method for method in config.rerank if method not in left_out)
    if not possible:
        raise ModelError(f"{contender.label}: has no warping regression, which {', '.join(left_out)} needs")
    notes = [f"{contender.label}: has no warping regression: without {', '.join(left_out)}."] if left_out else []
    return config.model_copy(update={"rerank": possible}), notes


def _by_keypoints(
    config: DatasetConfig, device: torch.device
) -> Iterator[tuple[KeypointConfig | None, tuple[Method, ...]]]:
    """Yield the methods by what their gallery stores: a network's keypoints are matched as stored."""
    from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS
    from geowarp_ros.model.learned import keypoints_of
    from geowarp_ros.rerank.verification import KIND_OF

    kinds = {method: KIND_OF.get(method, "sift") for method in config.rerank}
    alone = set(kinds.values()) == {"sift"}
    for kind in dict.fromkeys(kinds.values()):
        methods = tuple(method for method in config.rerank if kinds[method] == kind)
        if kind == "sift":  # beside others, which are detected at more than the working resolution, as these are
            yield None if alone else DEFAULT_KEYPOINTS, methods
        else:
            yield keypoints_of(kind, config.localizer.keypoint_weights, device), methods


def _tables(outcomes: list[Outcome], config: DatasetConfig) -> list[Table]:
    """The paper's two tables, recall at every N, the poses, the gains and the costs."""
    from geowarp_ros.lab.studies.tables import cost_table, gain_table, paper_table, pose_table, recall_table

    metres, seed = config.thresholds_m, config.seed
    of_paper = [outcome for outcome in outcomes if outcome.method in ("none", "geowarp")]
    title = "Recall@1 of retrieval with and without GeoWarp (layout of the paper's Table 1)"
    tables = [paper_table("table1", title, of_paper, metres, seed)] if of_paper else []
    if len(outcomes) > len(of_paper):
        title = "Recall@1 of the re-rankers (layout of the paper's Table 2)"
        tables.append(paper_table("table2", title, outcomes, metres, seed))
    tables += [recall_table(outcomes, config.recalls, metres, seed), cost_table(outcomes)]
    return [
        *tables,
        *(table for table in (pose_table(outcomes), gain_table(outcomes, metres, seed)) if table.rows),
    ]


def _write(
    output: Path,
    tables: list[Table],
    outcomes: list[Outcome],
    config: DatasetConfig,
    notes: list[str],
    asked: dict[str, Any],
    local: bool,
) -> None:
    """Write every table in three forms, the queries, the plot, and what it takes to do it again."""
    from geowarp_ros import __version__
    from geowarp_ros.lab.studies.recall_plot import write_recall_plot
    from geowarp_ros.lab.studies.tables import query_table
    from geowarp_ros.provenance import commit

    output.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*(f"{note}\n" for note in notes), *(table.markdown() for table in tables)])
    (output / "tables.md").write_text(text, encoding="utf-8")
    for table in [*tables, query_table(outcomes, config.thresholds_m, local)]:
        (output / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
    write_recall_plot(outcomes, config.thresholds_m, notes[0], output / "recall.png")
    results = {"notes": notes, **{table.name: table.records() for table in tables}}
    resolved = {
        "asked": {name: str(value) if isinstance(value, Path) else value for name, value in asked.items()},
        "config": config.model_dump(mode="json"),
        "models": {o.contender.label: o.contender.describer.fingerprint for o in outcomes},
        "commit": commit(),
        "version": __version__,
        "seed": config.seed,
    }
    for name, value in (("results.json", results), ("config.json", resolved)):
        (output / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
