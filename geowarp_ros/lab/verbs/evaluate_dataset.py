"""Measure retrieval and re-rankers on a set of geotagged images: the paper's tables, for any model and data."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geowarp_ros.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from geowarp_ros.evaluation.dataset import Contender, DatasetConfig, Outcome
    from geowarp_ros.evaluation.sets import Sets
    from geowarp_ros.evaluation.tables import Table
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.lab.baselines.densevlad import DenseVlad
    from geowarp_ros.model.describer import Describer

DENSEVLAD = "densevlad"
WARPING = ("geowarp", "one-way")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; their defaults are those of DatasetConfig."""
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="images/{train,val,test}/…/@utm…@.jpg, or a CSV"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=["default"],
        metavar="M",
        help="model files; default: the one that ships; densevlad: that baseline, trained on the gallery",
    )
    parser.add_argument(
        "--rerank", nargs="+", default=argparse.SUPPRESS, metavar="METHOD", help="methods compared, or: all"
    )
    parser.add_argument("--thresholds", nargs="+", type=float, default=argparse.SUPPRESS, metavar="M")
    parser.add_argument("--recalls", nargs="+", type=int, default=argparse.SUPPRESS, metavar="N")
    parser.add_argument("--gallery-split", default=None, help="test/gallery or gallery, whichever is there")
    parser.add_argument("--query-split", default=None, help="test/queries or query, whichever is there")
    parser.add_argument(
        "--every",
        type=int,
        default=0,
        metavar="N",
        help="without splits: every N-th image is a query; 1: each, of all others",
    )
    parser.add_argument("--utm-zone", default="32N", help="of names that give none")
    parser.add_argument(
        "--candidates", type=int, default=argparse.SUPPRESS, help="how many candidates are re-ranked (5)"
    )
    parser.add_argument(
        "--exclude-neighbours",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="leave out gallery images within N numbers (in the file name) of the query, of the same pass",
    )
    parser.add_argument("--limit-queries", type=int, default=argparse.SUPPRESS, metavar="N", help="evenly spread")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="of the bootstrap")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any parameter of the localizer, such as rerank.expansion.alpha=0 or rerank.weights=loftr.ckpt",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for tables, plot, galleries; reused")


def run(args: argparse.Namespace) -> int:
    """Read, build or reuse galleries, ask every query, write and print the tables."""
    from geowarp_ros.evaluation.dataset import evaluate_model
    from geowarp_ros.evaluation.sets import check_reachable, read_sets, spread
    from geowarp_ros.progress import bar

    config = _config(args)
    if args.every == 1 and not config.exclude_neighbours:
        raise ConfigError(
            "--every 1 makes each image find itself: leave it out with --exclude-neighbours, at least 1"
        )
    sets = read_sets(
        args.directory,
        gallery_split=args.gallery_split,
        query_split=args.query_split,
        every=args.every,
        utm_zone=args.utm_zone,
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
    if config.exclude_neighbours:
        notes.append(
            f"Gallery images within {config.exclude_neighbours} numbers of a query were left out of its search."
        )
    outcomes: list[Outcome] = []
    for contender in _contenders(args.model, sets, config, args.output):
        gallery = _gallery(contender, sets, args.output)
        if missing := len(sets.gallery.images) - len(gallery):
            notes.append(f"{contender.label}: {missing} gallery images cannot be read and are not searched.")
        possible, refused = _possible(contender, config)
        notes += refused
        found, unreadable = evaluate_model(contender, gallery, queries, possible, bar)
        outcomes += found
        if unreadable:
            notes.append(
                f"{contender.label}: {len(unreadable)} queries cannot be read: {', '.join(unreadable[:5])}."
            )
    tables = _tables(outcomes, config)
    _write(args.output, tables, outcomes, config, notes, vars(args))
    print("\n".join([*notes, "", *(table.markdown() for table in tables), f"Written to {args.output}"]))
    return 0


def _config(args: argparse.Namespace) -> DatasetConfig:
    from typing import get_args

    import yaml

    from geowarp_ros.config import RerankMethod, parse_config
    from geowarp_ros.evaluation.dataset import DatasetConfig

    given = vars(args)
    names = {
        "thresholds": "thresholds_m",
        "recalls": "recalls",
        "exclude_neighbours": "exclude_neighbours",
        "limit_queries": "limit_queries",
        "seed": "seed",
    }
    values: dict[str, Any] = {names[name]: given[name] for name in names if name in given}
    if "rerank" in given:
        learned = ("loftr", "disk-lightglue")  # they need weights: only by name
        everything = [method for method in get_args(RerankMethod) if method not in learned]
        chosen = everything if given["rerank"] == ["all"] else given["rerank"]
        values["rerank"] = list(dict.fromkeys(chosen))
    localizer: dict[str, Any] = {"device": args.device, "rerank": {}}
    if "candidates" in given:
        localizer["rerank"]["candidates"] = given["candidates"]
    for setting in args.set:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected NAME=VALUE, such as rerank.expansion.alpha=0")
        *sections, leaf = name.split(".")
        section = localizer
        for part in sections:
            section = section.setdefault(part, {})
        section[leaf] = yaml.safe_load(text)
    return parse_config(DatasetConfig, {**values, "localizer": localizer})


def _contenders(models: list[str], sets: Sets, config: DatasetConfig, output: Path) -> list[Contender]:
    """Load every model before anything long begins, so that a wrong file is said at once."""
    from geowarp_ros.evaluation.dataset import Contender
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.describer import Describer, choose_device

    backbones = {"alexnet": "AlexNet", "vgg16": "VGG16", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}
    aggregations = {"gem": "GeM", "netvlad": "NV"}
    device = choose_device(config.localizer.device)
    found: list[Contender] = []
    for name in (model for model in models if model != DENSEVLAD):
        describer = Describer(load_model(name, device), device, config.localizer.precision)
        kind = describer.model.config
        label = Path(name).stem
        while any(label == other.label for other in found):
            label = f"{Path(name).parent.name}/{label}"
        found.append(Contender(label, backbones[kind.encoder], aggregations[kind.aggregation], describer))
    if DENSEVLAD in models:
        # galleries and re-rankers ask no more of a Describer than DenseVlad has
        dense = cast("Describer", _densevlad(sets, config.seed, output))
        found.append(Contender(DENSEVLAD, "–", "DenseVLAD", dense))
    return found


def _densevlad(sets: Sets, seed: int, output: Path) -> DenseVlad:
    """Train the baseline on the gallery, as its authors do, or take over what an earlier run trained on it."""
    from geowarp_ros.lab.baselines.densevlad import DenseVlad, train_densevlad
    from geowarp_ros.progress import bar

    path = output / "models" / f"densevlad-{_identity(sets)}-{seed}.safetensors"
    if path.exists():
        return DenseVlad.load(path)
    trained = train_densevlad(sets.gallery.images, seed=seed, progress=bar)
    path.parent.mkdir(parents=True, exist_ok=True)
    trained.save(path)
    return trained


def _gallery(contender: Contender, sets: Sets, output: Path) -> Gallery:
    """Build the gallery, or open the one that this model made of these images before."""
    from geowarp_ros.gallery.making.build import build_gallery
    from geowarp_ros.gallery.manifest import MANIFEST
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.progress import bar

    describer = contender.describer
    folder = output / "galleries" / f"{describer.fingerprint}-{_identity(sets)}"
    if not (folder / MANIFEST).exists():
        build_gallery(sets.gallery, describer, folder, progress=bar)
    gallery = Gallery.open(folder, describer.device)
    gallery.check_model(describer.fingerprint)
    return gallery


def _identity(sets: Sets) -> str:
    """Eight digits that other images, or other positions, would change."""
    digest = hashlib.sha256()
    for image in sets.gallery.images:
        place = image.place
        digest.update(f"{place.name} {place.latitude_deg!r} {place.longitude_deg!r}\n".encode())
    return digest.hexdigest()[:8]


def _possible(contender: Contender, config: DatasetConfig) -> tuple[DatasetConfig, list[str]]:
    """Leave out the methods that warp where the model cannot; say which."""
    if contender.describer.model.regression is not None:
        return config, []
    left_out = [method for method in config.rerank if method in WARPING]
    possible = tuple(method for method in config.rerank if method not in WARPING)
    if not possible:
        raise ModelError(f"{contender.label}: has no warping regression, which {', '.join(left_out)} needs")
    notes = [f"{contender.label}: has no warping regression: without {', '.join(left_out)}."] if left_out else []
    return config.model_copy(update={"rerank": possible}), notes


def _tables(outcomes: list[Outcome], config: DatasetConfig) -> list[Table]:
    """The paper's two tables, recall at every N, the gains and the costs."""
    from geowarp_ros.evaluation.tables import cost_table, gain_table, paper_table, recall_table

    metres, seed = config.thresholds_m, config.seed
    of_paper = [outcome for outcome in outcomes if outcome.method in ("none", "geowarp")]
    title = "Recall@1 of retrieval with and without GeoWarp (layout of the paper's Table 1)"
    tables = [paper_table("table1", title, of_paper, metres, seed)] if of_paper else []
    if len(outcomes) > len(of_paper):
        title = "Recall@1 of the re-rankers (layout of the paper's Table 2)"
        tables.append(paper_table("table2", title, outcomes, metres, seed))
    tables += [recall_table(outcomes, config.recalls, metres, seed), cost_table(outcomes)]
    gains = gain_table(outcomes, metres, seed)
    return [*tables, gains] if gains.rows else tables


def _write(
    output: Path,
    tables: list[Table],
    outcomes: list[Outcome],
    config: DatasetConfig,
    notes: list[str],
    asked: dict[str, Any],
) -> None:
    """Write every table in three forms, the queries, the plot, and what it takes to do it again."""
    from geowarp_ros import __version__
    from geowarp_ros.evaluation.recall_plot import write_recall_plot
    from geowarp_ros.evaluation.tables import query_table
    from geowarp_ros.lab.training.session import commit

    output.mkdir(parents=True, exist_ok=True)
    text = "\n".join([*(f"{note}\n" for note in notes), *(table.markdown() for table in tables)])
    (output / "tables.md").write_text(text, encoding="utf-8")
    for table in [*tables, query_table(outcomes, config.thresholds_m)]:
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
