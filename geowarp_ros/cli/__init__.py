"""The ``geowarp`` command. Each verb lives in a module of its name; only the chosen one imports its rooms."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from geowarp_ros import __version__
from geowarp_ros.cli.verbs import run_verb
from geowarp_ros.errors import GeowarpError, did_you_mean

VERBS: dict[str, str] = {
    "demo": "localise a replayed drive on a real ROS 2 graph, from nothing",
    "match": "compare two images: distance, warp, score",
    "gallery": "build and keep a gallery of geotagged images",
    "localize": "say where images were taken",
    "calibrate": "measure on a held-out drive when an answer can be trusted",
    "benchmark": "measure how long things take on this machine, side by side",
    "evaluate": "judge models, re-rankers and drives against the truth",
    "play": "replay a bag into the running node",
    "world": "render the procedural street world",
    "train": "train the retrieval network and the warping regression",
    "export": "write a model for ONNX Runtime or TensorRT",
    "import-weights": "read the published checkpoints or ImageNet weights",
}
"""Verb -> its line in the help. ``x-y`` lives in ``cli/x_y.py``, which has add_arguments(parser) and run(args)."""

LABORATORY = ("demo", "benchmark", "world", "train")
"""Verbs that live in ``lab/verbs/`` instead: nothing else outside the laboratory leads into it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0 done, 1 a mistake said in one line, 2 usage.

    A surprise keeps its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="geowarp",
        description=__import__("geowarp_ros").__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="verbs:\n" + "\n".join(f"  {verb:<16}{line}" for verb, line in VERBS.items()),
    )
    parser.add_argument("--version", action="version", version=f"geowarp {__version__}")
    parser.add_argument("verb", metavar="VERB", help="see below; 'geowarp VERB --help' says more")
    args = parser.parse_args(words[:1])
    if args.verb not in VERBS:
        parser.error(f"unknown verb {args.verb!r}{did_you_mean(args.verb, VERBS)}; verbs: {', '.join(VERBS)}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("faiss", "numexpr"):  # they tell which of their builds and how many threads they take
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        room = "lab.verbs" if args.verb in LABORATORY else "cli"
        return run_verb(f"geowarp {args.verb}", f"{room}.{args.verb.replace('-', '_')}", words[1:])
    except GeowarpError as error:
        print(f"geowarp {args.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"geowarp {args.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
