"""Measure the run time of the components on this machine.

Contestants alternate within each round, so ratios hold under background load. Writes benchmark.json, benchmark.md
and benchmark.png.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from geowarp_ros.cli.parser import GALLERY, MODEL, NEW_FOLDER, Existing
from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.verbs.options import parse_size

if TYPE_CHECKING:
    from geowarp_ros.lab.benchmark.timing import Bench, Times

PARTS = {
    "encoders": "encoder pass: as trained, fused, in each precision and runtime; the regression in each runtime",
    "rerank": "exact mode, fast mode and the reference implementation over the encoder passes alone",
    "rerankers": "re-rankers without weights of their own over one encoder pass",
    "building": "gallery build over describing alone",
    "training": "training steps (16 images) over the encoder's forward and backward pass",
    "answers": "image to answer by stage and mode, and what the answers are worth, with --world",
    "node": "camera message to fix on a ROS 2 graph, start-up and memory",
    "search": "search of synthetic galleries by size and index kind, on one core",
    "prior": "search within circles, in a gallery of the first --galleries size",
    "keypoints": "matches between true neighbours by number and scale of keypoints, with --world",
    "features": "size of compressed local features and recall after re-ranking, with --gallery",
}
"""Part -> what it compares."""

TABLES = ("answers", "node", "search", "prior", "features", "keypoints")
"""Parts that produce a table instead of a comparison with a baseline."""

POSITIVE = (
    "candidates",
    "images",
    "places",
    "frames",
    "rounds",
    "galleries",
    "dim",
    "queries",
    "batches",
    "keypoints",
)
"""Options that must be at least 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = "parts:\n" + "\n".join(f"  {part:<12}{line}" for part, line in PARTS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--output", type=NEW_FOLDER, required=True, metavar="DIR", help="output folder")
    add("--parts", nargs="+", choices=PARTS, help="parts to run, see below (all that need no folder)")
    encoders = ["mobilenet_v2", "resnet18", "resnet50", "vgg16"]
    add("--encoders", nargs="+", default=encoders, help="encoders; most parts use the first")
    add("--sizes", nargs="+", default=["640x480"], metavar="WxH", help="image sizes at the encoder (640x480)")
    add("--batches", nargs="+", type=int, default=[1], metavar="N", help="encoders: images per pass (1)")
    add("--candidates", type=int, default=5, help="re-ranked candidates P (5)")
    add("--images", type=int, default=64, help="building: images of the gallery (64)")
    add("--places", type=int, default=100_000, help="node: places of the gallery (100000)")
    add("--frames", type=int, default=60, help="node: images per mode (60)")
    add("--rounds", type=int, default=7, help="measured rounds (7)")
    add(
        "--model",
        type=MODEL,
        default="default",
        help="model used for its own encoder; other encoders get random weights",
    )
    precisions = ("float32", "bfloat16", "float16")
    add("--precision", choices=precisions, default="float32", help="precision, except in part encoders (float32)")
    runtimes = ("auto", "torch", "onnxruntime")
    add("--runtime", choices=runtimes, default="auto", help="runtime, except in part encoders (auto)")
    devices = ("auto", "cpu", "cuda")
    add("--device", choices=devices, default="auto", help="device of the networks; auto: CUDA if available")
    add("--galleries", nargs="+", type=int, default=[10_000, 100_000], metavar="N", help="search: gallery sizes")
    add("--dim", type=int, default=512, help="search: descriptor dimension (512)")
    kinds = ["exact", "ivf-sq", "ivf-sq-disk", "ivf-pq"]
    text = "search: index kinds of 'geowarp gallery index'; suffix -disk: inverted lists on disk"
    add("--kinds", nargs="+", default=kinds, metavar="KIND", help=text)
    add("--queries", type=int, default=200, help="search: queries; answers, features, keypoints: at most (200)")
    add("--keep", type=Path, metavar="DIR", help="search: folder to keep the galleries in")
    add("--gallery", type=GALLERY, metavar="G", help="features: gallery with splits query and gallery")
    text = "features: maximum distance of a correct candidate in m (25)"
    add("--threshold", type=float, default=25.0, metavar="M", help=text)
    text = "features: exclude N neighbours of the same pass, as 'geowarp evaluate dataset'"
    add("--exclude-neighbours", type=int, default=0, metavar="N", help=text)
    add(
        "--world",
        type=Existing("a folder that 'geowarp world' wrote"),
        metavar="W",
        help="answers, keypoints: folder that 'geowarp world' wrote",
    )
    text = "keypoints: maximum numbers per image (1000 2000)"
    add("--keypoints", nargs="+", type=int, default=[1000, 2000], metavar="N", help=text)
    matchers = ["sift", "xfeat", "aliked", "disk", "xfeat-lighterglue", "aliked-lightglue", "disk-lightglue"]
    text = "keypoints: which are matched, and how; weights as 'geowarp models get' stored them (sift)"
    add("--matchers", nargs="+", default=["sift"], choices=matchers, metavar="METHOD", help=text)
    text = "keypoints: sizes at which they are detected, as multiples of the working resolution (1 2)"
    add("--scales", nargs="+", type=float, default=[1.0, 2.0], metavar="X", help=text)
    add("--no-reference", action="store_true", help="rerank: skip the reference implementation, which is slow")
    text = "time base; processor: CPU time of all threads, unaffected by other load, on a CPU only"
    add("--clock", choices=("wall", "processor"), default="wall", help=text)
    add("--threads", type=int, default=0, help="threads of all libraries; 0: one for each physical core")


def run(args: argparse.Namespace) -> int:
    """Measure the parts; write and print the tables."""
    from geowarp_ros.lab.benchmark.machine import describe_machine
    from geowarp_ros.lab.benchmark.report import write_report
    from geowarp_ros.threads import use_threads

    args.parts = args.parts or [
        part
        for part in PARTS
        if {"features": args.gallery, "keypoints": args.world, "answers": args.world}.get(part, True)
    ]
    _check(args)
    use_threads(args.threads)
    bench = _bench(args)
    found = {part: _compare(part, args, bench) for part in args.parts if part not in TABLES}
    tables = {part: _tabulate(part, args) for part in args.parts if part in TABLES}
    settings = {name: str(value) for name, value in sorted(vars(args).items())}
    print(write_report(args.output, describe_machine(), settings, found, tables), end="")
    print(f"\nWritten to {args.output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    from geowarp_ros.model.encoders import EncoderName

    for encoder in args.encoders:
        if encoder not in get_args(EncoderName):
            raise ConfigError(f"encoder {encoder!r}: expected one of {', '.join(get_args(EncoderName))}")
    for name in POSITIVE:
        given = getattr(args, name)
        if min(given if isinstance(given, list) else [given]) < 1:
            raise ConfigError(f"{name} = {given!r}: expected at least 1")


def _bench(args: argparse.Namespace) -> Bench:
    """Return what the comparisons share and store the device's name in ``args`` for the record."""
    from geowarp_ros.lab.benchmark.timing import PROCESSOR, WALL, Bench
    from geowarp_ros.model.describer import choose_device
    from geowarp_ros.model.inference import check_precision
    from geowarp_ros.model.runtimes import check_runtime
    from geowarp_ros.progress import bar

    device = choose_device(args.device)
    if set(args.parts) - set(TABLES):
        if device.type == "cuda" and args.clock == "processor":
            raise ConfigError(
                f"clock = 'processor' with device = {args.device!r}, which is CUDA here: processor time does not"
                " include GPU time; expected clock = 'wall', or device = 'cpu'"
            )
        check_precision(device, args.precision)
        check_runtime(args.runtime, device, args.precision)
    args.device = device.type
    clock = PROCESSOR if args.clock == "processor" else WALL
    return Bench(args.rounds, args.model, args.precision, args.runtime, device, clock, bar)


def _tabulate(part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of a part that has no baseline."""
    from geowarp_ros.lab.benchmark.search import measure_prior, measure_search
    from geowarp_ros.progress import bar

    if part == "search":
        return measure_search(args.galleries, args.dim, args.kinds, args.queries, progress=bar, folder=args.keep)
    if part == "prior":
        return measure_prior(args.galleries[0], args.dim)
    if part in ("answers", "keypoints") and args.world is None:
        raise ConfigError(f"part {part}: needs --world, a folder that 'geowarp world' wrote")
    if part == "answers":
        from geowarp_ros.config import LocalizerConfig, RerankMode
        from geowarp_ros.lab.benchmark.answers import measure_answers
        from geowarp_ros.model.describer import open_describer

        options = {name: getattr(args, name) for name in ("model", "device", "precision", "runtime", "threads")}
        config, folder = LocalizerConfig.model_validate(options), args.output / "galleries"
        modes = get_args(RerankMode)
        return measure_answers(args.world, open_describer(config), config, modes, folder, args.queries, bar)
    if part == "keypoints":
        from geowarp_ros.lab.benchmark.keypoints import measure_keypoints
        from geowarp_ros.model.checkpoints import load_model

        resolution = load_model(args.model, "cpu").config.resolution
        counts, scales = args.keypoints, args.scales
        return measure_keypoints(args.world, counts, scales, resolution, args.queries, args.matchers, bar)
    if part == "features":
        from geowarp_ros.lab.benchmark.compression import measure_local_features
        from geowarp_ros.model.checkpoints import load_model
        from geowarp_ros.model.describer import Describer

        if args.gallery is None:
            raise ConfigError("part features: needs --gallery, one of photographs with splits query and gallery")
        describer = Describer(load_model(args.model, "cpu"), "cpu")
        apart = args.exclude_neighbours
        return measure_local_features(args.gallery, describer, args.threshold, args.queries, apart, bar)
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"part node needs ROS 2 ({error}): leave it out with --parts, or install it") from None
    from geowarp_ros.lab.benchmark.node import measure_node

    size = parse_size(args.sizes[0])
    return measure_node(args.model, size, args.places, args.frames, ("exact", "fast"), bar)


def _compare(part: str, args: argparse.Namespace, bench: Bench) -> list[Times]:
    """Return the comparisons of a part."""
    from geowarp_ros.lab.benchmark.building import measure_building
    from geowarp_ros.lab.benchmark.encoders import measure_encoder, measure_regression
    from geowarp_ros.lab.benchmark.reranking import measure_rerankers, measure_reranking
    from geowarp_ros.lab.benchmark.training import measure_training

    sizes, first = [parse_size(text) for text in args.sizes], args.encoders[0]
    if part == "encoders":
        found = [times for name in args.encoders for times in measure_encoder(name, sizes, args.batches, bench)]
        return found + ([measure_regression(args.candidates, bench)] if bench.device.type == "cpu" else [])
    if part == "rerank":
        pairs, reference = itertools.product(args.encoders, sizes), not args.no_reference
        return [measure_reranking(name, size, args.candidates, bench, reference) for name, size in pairs]
    if part == "rerankers":
        return [measure_rerankers(first, size, args.candidates, bench) for size in sizes]
    if part == "building":
        return [measure_building(first, size, args.images, bench) for size in sizes]
    return [measure_training(first, size, bench) for size in sizes]
