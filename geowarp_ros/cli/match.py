"""Say whether two images show the same place: keypoints that agree, distance of descriptors, warp, score.

The verdict is by the matched keypoints that agree on one view of a plane, against as many as agree by chance;
distance and score only mean something beside those of other images. Two images may differ in size. A model without
warping regression gives null for score and quads. The descriptor's norm is the first image's. --json prints one
object: verdict (same_place, perhaps, no_sign), inliers of so many matches, chance_inliers, distance (squared
Euclidean, smaller is more alike), descriptor_dim, descriptor_norm, score_unwarped, score (larger is more alike, at
most 225), quad_q and quad_p (4×2, clockwise from top-left, -1..1).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.parser import MODEL, NEW_PICTURE, Existing, refuse_overwriting

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer
    from geowarp_ros.types import Image, Pair

IMAGE = Existing("an image file", file=True)

VERDICTS = {
    "same_place": ("same place", "green"),
    "perhaps": ("perhaps the same place", "amber"),
    "no_sign": ("no sign of the same place", "red"),
}
"""Verdict -> in words, and its colour."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("image_q", metavar="A", type=IMAGE, help="query image")
    parser.add_argument("image_p", metavar="B", type=IMAGE, help="image to compare with")
    parser.add_argument(
        "--model", type=MODEL, default="default", help="model file, or default for the one that ships"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--figure", type=NEW_PICTURE, help="draw both images with what agrees in them, and the warped pair"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available, else CPU"
    )


def run(args: argparse.Namespace) -> int:
    """Match the two images and print what came out."""
    refuse_overwriting([args.figure], [args.image_q, args.image_p])
    from geowarp_ros.images import read_image
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.describer import Describer, choose_device
    from geowarp_ros.output import coloured

    images = read_image(args.image_q), read_image(args.image_p)
    device = choose_device(args.device)
    match, pair = match_images(Describer(load_model(args.model, device), device), *images)
    if args.figure:
        _save_figure(args.figure, match, pair, (args.image_q.name, args.image_p.name))
    if args.json:
        print(json.dumps(match))
    else:
        print(coloured(_verdict(match), VERDICTS[match["verdict"]][1]), *_rows(match), sep="\n")
    return 0


def match_images(describer: Describer, image_q: Image, image_p: Image) -> tuple[dict[str, Any], Pair]:
    """Return the verb's JSON object for two images of any size, and the keypoints that agree."""
    import numpy as np

    from geowarp_ros.config import VerificationConfig
    from geowarp_ros.integrity.verification import CHANCE_INLIERS
    from geowarp_ros.keypoints.detector import KeypointConfig
    from geowarp_ros.keypoints.matching import match as match_descriptors
    from geowarp_ros.model.describer import Warper
    from geowarp_ros.model.matching import similarity
    from geowarp_ros.rerank.verification import matched_pair

    query, candidate = describer(image_q), describer(image_p)
    config, kind = VerificationConfig(), KeypointConfig()
    own, other = query.keypoints(kind), candidate.keypoints(kind)
    first, second = own.descriptors[: config.keypoints], other.descriptors[: config.keypoints]
    numbers = match_descriptors(first, second, config.ratio)
    points = own.points[numbers[:, 0]], other.points[numbers[:, 1]]
    agreed = matched_pair(image_q, image_p, points, (query.pixels, candidate.pixels), config.threshold_px)
    inliers = len(agreed.points_q)
    match: dict[str, Any] = {
        "verdict": verdict_of(inliers, CHANCE_INLIERS),
        "inliers": inliers,
        "matches": agreed.matches,
        "chance_inliers": CHANCE_INLIERS,
        "distance": float(np.square(query.descriptor - candidate.descriptor).sum()),
        "descriptor_dim": len(query.descriptor),
        "descriptor_norm": float(np.linalg.norm(query.descriptor)),
        "score_unwarped": float(similarity(query.local_features, candidate.local_features)),
        "score": None,
        "quad_q": None,
        "quad_p": None,
    }
    if describer.model.regression is not None:
        warped = Warper(describer)(query, [candidate.pixels], candidate.local_features.cpu().numpy())
        match["score"] = float(warped.score[0])
        match["quad_q"], match["quad_p"] = warped.quads_q[0].tolist(), warped.quads_p[0].tolist()
    return match, agreed


def verdict_of(inliers: int, chance: int) -> str:
    """Return which of VERDICTS so many keypoints tell; up to twice what chance gives is a doubt."""
    return "no_sign" if inliers <= chance else "perhaps" if inliers <= 2 * chance else "same_place"


def _verdict(match: dict[str, Any]) -> str:
    from geowarp_ros.pictures import agreement_text

    agree = agreement_text(match["inliers"], match["matches"])
    return f"{VERDICTS[match['verdict']][0]}: {agree} (chance: up to {match['chance_inliers']})"


def _rows(match: dict[str, Any]) -> list[str]:
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
    return [f"{name:<16}{value}" for name, value in rows]


def _save_figure(path: Path, match: dict[str, Any], pair: Pair, names: tuple[str, str]) -> None:
    from geowarp_ros import pictures

    score = f"score {match['score_unwarped']:.1f} without a warp"
    if match["score"] is not None:
        score = f"score {match['score']:.1f}, without the warp {match['score_unwarped']:.1f}"
    title, _, agree = _verdict(match).partition(": ")
    figure = pictures.match_picture(
        pictures.Side(pair.query, names[0], match["quad_q"], pair.points_q),
        pictures.Side(pair.candidate, names[1], match["quad_p"], pair.points_p),
        title=title,
        detail=f"{agree}   ·   distance {match['distance']:.3f}   ·   {score}",
        ink={"same_place": pictures.FOUND, "perhaps": pictures.DOUBT, "no_sign": pictures.LOST}[match["verdict"]],
        width_px=pictures.FIGURE_PX,
    )
    pictures.save_picture(path, figure)
