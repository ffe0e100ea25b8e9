"""Put two models into one file: the descriptor of the first, local features and warp of the second.

Both see the same images, each at its own input size. Galleries are built with the new model.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import MODEL, NEW_FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--retrieval", required=True, type=MODEL, help="model whose descriptor finds candidates")
    parser.add_argument(
        "--matching", default="default", type=MODEL,
        help="model whose local features, and warp if it has one, compare them (default: the one that ships)",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=NEW_FILE, help="the model file to write (.safetensors)")
    parser.add_argument(
        "--retrieval-weight", type=float, default=0.0,
        help="weight of the descriptor distance in re-ranking; what the models had is of other distances",
    )  # fmt: skip
    parser.add_argument("--half", action="store_true", help="store float16: half the size, other last digits")


def run(args: argparse.Namespace) -> int:
    """Combine the models and say what was written."""
    from geowarp_ros.model.checkpoints import fingerprint, load_model, read_header, save_model
    from geowarp_ros.model.combination import combine
    from geowarp_ros.model.installed import find_weights

    retrieval, matching = load_model(args.retrieval), load_model(args.matching)
    model = combine(retrieval, matching, args.retrieval_weight)
    notes = {"retrieval": fingerprint(retrieval), "matching": fingerprint(matching)}
    for part, given in (("retrieval", args.retrieval), ("matching", args.matching)):
        noted = read_header(find_weights(given))
        notes |= {f"{part}_{note}": noted[note] for note in ("name", "licence", "source") if note in noted}
    save_model(model, args.output, half=args.half, notes=notes)
    config, warp = model.config, "with" if model.regression is not None else "without"
    print(
        f"{args.output}: {model.descriptor_dim} values a descriptor by {config.describing.encoder} + "
        f"{config.aggregation}, local features by {config.encoder}, {warp} warping regression, "
        f"working resolution {config.resolution or 'that of the images'}, "
        f"fingerprint {fingerprint(load_model(args.output))}"
    )
    return 0
