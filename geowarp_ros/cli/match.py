"""Compare two images: distance of their descriptors, warp to a common viewpoint, score.

Two images may differ in size. A model without warping regression gives null for score and quads. The descriptor's
norm is the first image's. With --json one object is printed: distance (squared Euclidean, smaller is more alike),
descriptor_dim, descriptor_norm, score_unwarped, score (larger is more alike, at most 225), quad_q and quad_p (4×2,
clockwise from top-left, -1..1).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.parser import MODEL, NEW_FILE, Existing

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer
    from geowarp_ros.types import Image

IMAGE = Existing("an image file", file=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image_q", metavar="A", type=IMAGE, help="query image")
    parser.add_argument("image_p", metavar="B", type=IMAGE, help="image to compare with")
    parser.add_argument(
        "--model", type=MODEL, default="default", help="model file, or default for the one that ships"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--figure", type=NEW_FILE, help="draw both images with their quads and the warped pair (PNG)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available, else CPU"
    )


def run(args: argparse.Namespace) -> int:
    """Match the two images and print what came out."""
    from geowarp_ros.images import read_image
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.describer import Describer, choose_device

    images = read_image(args.image_q), read_image(args.image_p)
    device = choose_device(args.device)
    match = match_images(Describer(load_model(args.model, device), device), *images)
    if args.figure:
        _save_figure(args.figure, match, *images, (args.image_q.name, args.image_p.name))
    print(json.dumps(match) if args.json else _report(match))
    return 0


def match_images(describer: Describer, image_q: Image, image_p: Image) -> dict[str, Any]:
    """Return the verb's JSON object for two images of any size."""
    import numpy as np

    from geowarp_ros.model.describer import Warper
    from geowarp_ros.model.matching import similarity

    query, candidate = describer(image_q), describer(image_p)
    match: dict[str, Any] = {
        "distance": float(np.square(query.descriptor - candidate.descriptor).sum()),
        "descriptor_dim": len(query.descriptor),
        "descriptor_norm": float(np.linalg.norm(query.descriptor)),
        "score_unwarped": float(similarity(query.local_features, candidate.local_features)),
        "score": None,
        "quad_q": None,
        "quad_p": None,
    }
    if describer.model.regression is not None:
        pair = Warper(describer)(query, [describer.prepare(image_p)], candidate.local_features.cpu().numpy())
        match["score"] = float(pair.score[0])
        match["quad_q"], match["quad_p"] = pair.quads_q[0].tolist(), pair.quads_p[0].tolist()
    return match


def _report(match: dict[str, Any]) -> str:
    rows = [
        ("distance", f"{match['distance']:.4f}"),
        ("descriptor", f"{match['descriptor_dim']} values, norm {match['descriptor_norm']:.4f}"),
        ("score unwarped", f"{match['score_unwarped']:.2f}"),
        (
            "score",
            "none: the model has no warping regression" if match["score"] is None else f"{match['score']:.2f}",
        ),
    ]
    for name in ("quad_q", "quad_p"):
        if match[name] is not None:
            rows.append((name, "  ".join(f"({x:+.3f}, {y:+.3f})" for x, y in match[name])))
    return "\n".join(f"{name:<16}{value}" for name, value in rows)


def _save_figure(
    path: Path, match: dict[str, Any], image_q: Image, image_p: Image, names: tuple[str, str]
) -> None:
    from PIL import Image as Pillow

    from geowarp_ros.errors import ImageError
    from geowarp_ros.pictures import match_figure

    title = f"distance {match['distance']:.3f}    score "
    if match["score"] is None:
        title += f"{match['score_unwarped']:.1f} without a warp"
    else:
        title += f"{match['score']:.1f}  (unwarped {match['score_unwarped']:.1f})"
    figure = match_figure(image_q, image_p, match["quad_q"], match["quad_p"], title=title, names=names)
    try:
        Pillow.fromarray(figure).save(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: the figure cannot be written: {error}") from None
