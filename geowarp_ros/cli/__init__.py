# PYTHON_ARGCOMPLETE_OK
"""The ``geowarp`` command. Each verb lives in a module of its name; only the chosen one imports its rooms."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from geowarp_ros import __version__
from geowarp_ros.cli.parser import Parser
from geowarp_ros.cli.verbs import asked_words, complete, run_verb
from geowarp_ros.errors import GeowarpError
from geowarp_ros.output import OutputError, guarded_output

VERBS: dict[str, str] = {
    "demo": "render a town, build its gallery, replay a drive through the node",
    "match": "say whether two images show the same place, and by what",
    "gallery": "build and maintain a gallery of geotagged images",
    "localize": "say where images were taken",
    "calibrate": "fit confidence and covariance on a held-out drive",
    "doctor": "say what is here, what is missing, and how long an image takes",
    "benchmark": "measure how long things take on this machine",
    "view": "look at a gallery, a drive or the running node in a browser",
    "evaluate": "compare models, re-rankers and drives with the truth",
    "play": "replay a bag into the running node",
    "world": "render the procedural street world",
    "train": "train the retrieval network and the warping regression",
    "export": "export a model to ONNX",
    "models": "list the published models and matchers, and fetch them",
    "import-weights": "import published checkpoints or ImageNet weights",
    "combine": "put one model's descriptor and another's matching into one",
}
"""Verb -> its line in the help. ``x-y`` lives in ``cli/x_y.py``, which has add_arguments(parser) and run(args)."""

LABORATORY = ("demo", "doctor", "benchmark", "play", "world", "train", "export")
"""Verbs that live in ``lab/verbs/`` instead: nothing else outside the laboratory leads into it."""


EXTRAS = {
    "plotly": "report",
    "sklearn": "report",
    "matplotlib": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnxscript": "export",
    "rclpy": "ros",
    "poselib": "map",
    "pyarrow": "parquet",
    "starlette": "view",
    "uvicorn": "view",
}
"""Library that a robot can do without -> the extra that installs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status.

    0: done. 1: a mistake, reported in one line. 2: usage. 130: interrupted. 141: whoever read the output has gone
    (128 + SIGPIPE, as a shell reports it). An unexpected exception keeps its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv) if (asked := asked_words()) is None else asked
    name = f"geowarp {words[0]}" if words and words[0] in VERBS else "geowarp"
    try:
        with guarded_output():
            return _run(words)
    except OutputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.status
    except (GeowarpError, OSError) as error:  # OSError: a folder that cannot be made, a full disk
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = f"pip install 'geowarp_ros[{EXTRAS[error.name]}]'"
        print(f"{name}: needs {error.name}, which is not installed: {extra}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _run(words: Sequence[str]) -> int:
    parser = Parser(
        prog="geowarp",
        description="Say where a camera is, from a gallery of geotagged photographs, or that it is lost.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="begin with 'geowarp doctor': each verb ends with the command that goes on from it\n\nverbs:\n"
        + "\n".join(f"  {verb:<16}{line}" for verb, line in VERBS.items()),
    )
    parser.add_argument("--version", action="version", version=f"geowarp {__version__}")
    parser.add_argument("verb", metavar="VERB", choices=VERBS, help="see below; 'geowarp VERB --help' says more")
    complete(parser, words)
    if not words:
        parser.print_help()
        return 0
    args = parser.parse_args(words[:1])
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    for chatty in ("faiss", "numexpr"):  # they tell which of their builds and how many threads they take
        logging.getLogger(chatty).setLevel(logging.WARNING)
    room = "lab.verbs" if args.verb in LABORATORY else "cli"
    return run_verb(f"geowarp {args.verb}", f"{room}.{args.verb.replace('-', '_')}", words[1:])
