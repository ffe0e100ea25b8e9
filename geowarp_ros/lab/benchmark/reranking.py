"""Re-ranking: the whole way from pixels to a ranking beside the encoder passes that it cannot do without."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from geowarp_ros.config import LocalizerConfig, RerankMethod, parse_config
from geowarp_ros.images import to_tensor
from geowarp_ros.lab.benchmark.reference import ReferenceWay
from geowarp_ros.lab.benchmark.scene import Scene, Size, make_model, make_scene
from geowarp_ros.lab.benchmark.timing import CPU, WALL, Clock, Times, Work, take_turns
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.inference import Precision
from geowarp_ros.progress import Progress, silent
from geowarp_ros.rerank import Reranker, build_reranker
from geowarp_ros.types import Candidate

FLOOR = "2·P + 1 encoder passes alone"
ONE_BATCH = "the same passes, as trained, one batch"
ONE_PASS = "one encoder pass"
REFERENCE = "the reference's way"

METHODS: tuple[RerankMethod, ...] = (
    "geowarp", "geowarp-unwarped", "one-way", "qe-dba", "diffusion", "dense-ransac", "sift", "orb",
)  # fmt: skip
"""Those that need no weights of their own."""


def measure_reranking(
    encoders: Sequence[EncoderName],
    sizes: Sequence[Size],
    rounds: int,
    *,
    candidates: int = 5,
    weights: str = "",
    precision: Precision = "float32",
    reference: bool = True,
    progress: Progress = silent,
    clock: Clock = WALL,
    device: torch.device = CPU,
) -> list[Times]:
    """Time exact and fast mode, and the reference's way, from pixels to ranking, over the exact mode's floor.

    Searching is left out: it is the same for all. Each method describes the query itself.

    Args:
        encoders: By name.
        sizes: Of query and candidates; images go through the encoder at this size.
        rounds: How often.
        candidates: P.
        weights: A model file; used for the encoder it has.
        precision: Of the encoder.
        reference: Time the reference's way, too.
        progress: Shows the rounds.
        clock: In seconds.
        device: Where the networks compute and descriptors are compared.
    """
    found = []
    for encoder in encoders:
        model, about = make_model(encoder, weights)
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                scene = make_scene(model, size, candidates, Path(folder), precision, device)
                title = f"{encoder}, {size}, P = {candidates}, {precision}, {device} ({about})"
                contestants = _whole_way(scene, candidates)
                if reference:
                    contestants[REFERENCE] = _reference_way(scene)
                found.append(take_turns(title, contestants, FLOOR, rounds, clock, progress, device))
    return found


def measure_rerankers(
    methods: Sequence[RerankMethod],
    encoder: EncoderName,
    size: Size,
    rounds: int,
    *,
    candidates: int = 5,
    weights: str = "",
    precision: Precision = "float32",
    progress: Progress = silent,
    clock: Clock = WALL,
    device: torch.device = CPU,
) -> Times:
    """Time every re-ranker on the same candidates, over the one encoder pass that describes the query."""
    model, about = make_model(encoder, weights)
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(model, size, candidates, Path(folder), precision, device)
        query = scene.describer(scene.pixels)
        found = scene.gallery.search(query.descriptor)
        contestants: dict[str, Work] = {ONE_PASS: lambda: scene.describer(scene.pixels)}
        for name, reranker in _rerankers(methods, scene, candidates).items():
            contestants[name] = lambda reranker=reranker: reranker(query, found)  # type: ignore[misc]
        title = f"Re-rankers, {encoder}, {size}, P = {candidates}, {precision}, {device} ({about})"
        return take_turns(title, contestants, ONE_PASS, rounds, clock, progress, device)


def _rerankers(methods: Sequence[RerankMethod], scene: Scene, candidates: int) -> dict[str, Reranker]:
    found: dict[str, Reranker] = {}
    for method in methods:
        for mode in ("exact", "gated", "fast") if method == "geowarp" else ("exact",):
            values = {"rerank": {"method": method, "candidates": candidates, "mode": mode}}
            config = parse_config(LocalizerConfig, values)
            name = f"geowarp, {mode}" if method == "geowarp" else method
            found[name] = build_reranker(config, scene.gallery, scene.describer)
    return found


def _whole_way(scene: Scene, candidates: int) -> dict[str, Work]:
    describer, rerankers = scene.describer, _rerankers(["geowarp"], scene, candidates)
    listed = _candidates(scene, candidates)
    size, network = scene.size, describer.network
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2 * candidates + 1, 3, size.height, size.width, generator=generator).to(describer.device)

    def encode(rows: list[int]) -> None:
        network.feature_map(images[1 : 1 + 2 * len(rows)])

    @torch.inference_mode()
    def floor() -> None:
        network.feature_map(images[:1])
        shapes = [(size.height, size.width)] * candidates
        describer.passes.run(shapes, encode, per_row=2)

    @torch.inference_mode()
    def one_batch() -> None:
        describer.model.feature_map(images[:1])
        describer.model.feature_map(images[1:])

    contestants: dict[str, Work] = {FLOOR: floor, ONE_BATCH: one_batch}
    for name, reranker in rerankers.items():
        contestants[name] = lambda reranker=reranker: reranker(describer(scene.pixels), listed)  # type: ignore[misc]
    return contestants


def _reference_way(scene: Scene) -> Work:
    model, device = scene.describer.model, scene.describer.device
    way = ReferenceWay(model)

    @torch.inference_mode()
    def work() -> None:
        # for retrieval; matching encodes the query again
        model.pool(model.encoder(to_tensor(scene.pixels, device)))
        way(scene.pixels, scene.files)

    return work


def _candidates(scene: Scene, count: int) -> list[Candidate]:
    return [Candidate(row, scene.gallery.places[row], float(row)) for row in np.arange(count).tolist()]
