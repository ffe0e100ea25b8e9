"""Measure how long things take on this machine, side by side in one run.

Contestants take turns within each round, so ratios stay true while the machine is busy with something else. Writes
benchmark.json, benchmark.md and benchmark.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from geowarp_ros.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from geowarp_ros.lab.benchmark.timing import Times

PARTS = {
    "encoders": "one pass of each encoder: as trained, fused, in each precision",
    "rerank": "exact and fast mode and the reference's way over the encoder passes alone",
    "rerankers": "every re-ranker that needs no weights over one encoder pass",
    "building": "gallery build over describing alone",
    "training": "a step of each training over the encoder's own part, 16 images",
    "node": "camera message to fix on a real ROS 2 graph, start and memory",
    "search": "search of synthetic galleries by size and kind of index, on one core",
    "prior": "search within circles of the first of those sizes",
    "whitening": "recall with and without PCA-whitening, of --gallery",
    "features": "bytes of local features and recall after re-ranking with them, of --gallery",
}
"""Part -> what it compares."""

OF_A_GALLERY = ("whitening", "features")
"""Parts that only run where a gallery of photographs is given."""

TABLES = ("node", "search", "prior", "whitening", "features")
"""Parts that are no comparison over a baseline but a table of their own."""

ENCODERS = ("resnet18", "resnet50", "vgg16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.epilog = "parts:\n" + "\n".join(f"  {part:<12}{line}" for part, line in PARTS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for what is written")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="which; see below (all that need no --gallery)")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), help="of encoders and rerank")
    parser.add_argument(
        "--sizes", nargs="+", default=["640x480"], metavar="WxH", help="of images, which are not resized (640x480)"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1], metavar="N", help="images an encoder pass")
    parser.add_argument("--candidates", type=int, default=5, help="P, how many are re-ranked (5)")
    parser.add_argument("--images", type=int, default=64, help="of the gallery that is built (64)")
    parser.add_argument("--places", type=int, default=100_000, help="of the node's gallery (100000)")
    parser.add_argument("--frames", type=int, default=60, help="that the node is shown in each mode (60)")
    parser.add_argument("--rounds", type=int, default=7, help="that count (7)")
    parser.add_argument("--model", default="default", help="weights of its encoder; the others' are random")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of rerank and on"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="of encoders, rerank, rerankers, building and training; auto: CUDA where there is one",
    )
    parser.add_argument(
        "--galleries", nargs="+", type=int, default=[10_000, 100_000], metavar="N", help="of search"
    )
    parser.add_argument("--dim", type=int, default=512, help="of search: numbers of a descriptor (512)")
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["exact", "ivf-sq", "ivf-sq-disk", "ivf-pq"],
        metavar="KIND",
        help="of search: as 'geowarp gallery index --kind' takes them; -disk leaves inverted lists on the disk",
    )
    parser.add_argument("--queries", type=int, default=200, help="of search (200)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="of search: leave galleries there for a second run"
    )
    parser.add_argument("--gallery", type=Path, metavar="G", help="of photographs with splits query and gallery")
    parser.add_argument(
        "--threshold", type=float, default=25.0, metavar="M", help="what is near enough there (25)"
    )
    parser.add_argument(
        "--exclude-neighbours", type=int, default=0, metavar="N", help="as 'geowarp evaluate dataset'"
    )
    parser.add_argument(
        "--no-reference", action="store_true", help="of rerank: leave the reference's way out, which takes longest"
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: time of all threads, without what the machine does for others; on a CPU alone",
    )
    parser.add_argument("--threads", type=int, default=0, help="of the networks; 0: as torch chooses")


def run(args: argparse.Namespace) -> int:
    """Measure the parts, write and print the tables."""
    import torch

    from geowarp_ros.lab.benchmark.machine import describe_machine
    from geowarp_ros.lab.benchmark.report import write_report

    args.parts = args.parts or [part for part in PARTS if args.gallery or part not in OF_A_GALLERY]
    _check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = _choose_device(args)
    found = {part: _measure(part, args, device) for part in args.parts if part not in TABLES}
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
    for name in (
        "candidates",
        "images",
        "places",
        "frames",
        "rounds",
        "galleries",
        "dim",
        "queries",
        *(["batches"] if args.batches else []),
    ):
        given = getattr(args, name)
        if min(given if isinstance(given, list) else [given]) < 1:
            raise ConfigError(f"{name} = {given!r}: expected at least 1")


def _choose_device(args: argparse.Namespace) -> torch.device:
    """Return the device of the comparisons; ``args`` holds its name afterwards, for the record."""
    from geowarp_ros.model.describer import choose_device
    from geowarp_ros.model.inference import check_precision

    device = choose_device(args.device)
    if set(args.parts) - set(TABLES):
        if device.type == "cuda" and args.clock == "processor":
            raise ConfigError(
                f"clock = 'processor' with device = {args.device!r}, which is CUDA here: a processor's time does"
                " not hold what a GPU computes; expected clock = 'wall', or device = 'cpu'"
            )
        check_precision(device, args.precision)
    args.device = device.type
    return device


def _tabulate(part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    from geowarp_ros.lab.benchmark.search import measure_prior, measure_search
    from geowarp_ros.progress import bar

    if part in OF_A_GALLERY:
        return _of_a_gallery(part, args)
    if part == "node":
        return _of_the_node(args)
    if part == "prior":
        return measure_prior(args.galleries[0], args.dim)
    return measure_search(args.galleries, args.dim, args.kinds, args.queries, progress=bar, folder=args.keep)


def _of_the_node(args: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"part node needs ROS 2 ({error}): leave it out with --parts, or install it") from None
    from geowarp_ros.lab.benchmark.node import measure_node
    from geowarp_ros.lab.benchmark.scene import parse_size
    from geowarp_ros.progress import bar

    size = parse_size(args.sizes[0])
    return measure_node(args.model, size, args.places, args.frames, ("exact", "fast"), bar)


def _of_a_gallery(part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    from geowarp_ros.lab.benchmark.compression import measure_local_features, measure_whitening
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.describer import Describer
    from geowarp_ros.progress import bar

    if args.gallery is None:
        raise ConfigError(f"part {part}: needs --gallery, one of photographs with splits query and gallery")
    apart = args.exclude_neighbours
    if part == "whitening":
        return measure_whitening(args.gallery, args.threshold, exclude_neighbours=apart)
    describer = Describer(load_model(args.model, "cpu"), "cpu")
    return measure_local_features(args.gallery, describer, args.threshold, args.queries, apart, bar)


def _measure(part: str, args: argparse.Namespace, device: torch.device) -> list[Times]:
    from geowarp_ros.lab.benchmark.scene import parse_size
    from geowarp_ros.lab.benchmark.timing import PROCESSOR, WALL
    from geowarp_ros.progress import bar

    sizes, rounds = [parse_size(text) for text in args.sizes], args.rounds
    first = args.encoders[0]
    shared: dict[str, Any] = {"weights": args.model, "progress": bar, "device": device}
    shared["clock"] = PROCESSOR if args.clock == "processor" else WALL
    if part == "encoders":
        from geowarp_ros.lab.benchmark.encoders import measure_encoders

        return measure_encoders(args.encoders, sizes, args.batches, rounds, **shared)
    shared["precision"] = args.precision
    if part == "rerank":
        from geowarp_ros.lab.benchmark.reranking import measure_reranking

        return measure_reranking(
            args.encoders,
            sizes,
            rounds,
            candidates=args.candidates,
            reference=not args.no_reference,
            **shared,
        )
    if part == "rerankers":
        from geowarp_ros.lab.benchmark.reranking import METHODS, measure_rerankers

        return [
            measure_rerankers(METHODS, first, size, rounds, candidates=args.candidates, **shared) for size in sizes
        ]
    if part == "building":
        from geowarp_ros.lab.benchmark.building import measure_building

        return [measure_building(first, size, args.images, rounds, **shared) for size in sizes]
    if part == "training":
        from geowarp_ros.lab.benchmark.training import measure_training
        from geowarp_ros.lab.training.session import PRECISIONS

        shared["precision"] = PRECISIONS[args.precision]
        return [measure_training(first, size, rounds, **shared) for size in sizes]
    raise ConfigError(f"part {part!r}: expected one of {', '.join(PARTS)}")
