"""Duration of re-ranking, from pixels to a ranking, over that of the encoder passes it needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from geowarp_ros.config import LocalizerConfig, parse_config
from geowarp_ros.images import to_tensor
from geowarp_ros.lab.baselines import WITH_WEIGHTS, BaselinesConfig, Method, build_method
from geowarp_ros.lab.benchmark.reference import ReferenceWay
from geowarp_ros.lab.benchmark.scene import Scene, make_model, make_scene
from geowarp_ros.lab.benchmark.timing import Bench, Times, Work
from geowarp_ros.lab.studies.tables import TITLES
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.rerank import Reranker
from geowarp_ros.types import Candidate

FLOOR = "2·P + 1 encoder passes alone"
ONE_BATCH = "the same passes, as trained, one batch"
ONE_PASS = "one encoder pass"
REFERENCE = "the reference's way"

METHODS = tuple(method for method in TITLES if method != "none" and method not in WITH_WEIGHTS)
"""Re-rankers that need no weights of their own."""


def measure_reranking(
    encoder: EncoderName, size: Size, candidates: int, bench: Bench, reference: bool = True
) -> Times:
    """Time the modes of geowarp and the reference's way, from pixels to ranking, over the exact mode's floor.

    Search is not timed: it is the same for all. Each contestant describes the query itself.

    Args:
        encoder: Encoder by name.
        size: Size of query and candidates, at which images go through the encoder.
        candidates: Number of candidates P.
        bench: Rounds, weights, precision and device.
        reference: Time the reference's way, too.
    """
    with _scene(encoder, size, candidates, bench) as (scene, title):
        contestants = _whole_way(scene, candidates)
        if reference:
            contestants[REFERENCE] = _reference_way(scene)
        return bench.compare(title, contestants, FLOOR)


def measure_rerankers(encoder: EncoderName, size: Size, candidates: int, bench: Bench) -> Times:
    """Time every re-ranker on the same candidates, over the one encoder pass that describes the query.

    Arguments as in :func:`measure_reranking`.
    """
    with _scene(encoder, size, candidates, bench) as (scene, title):
        query = scene.describer(scene.pixels)
        found = scene.gallery.search(query.descriptor, candidates)
        contestants: dict[str, Work] = {ONE_PASS: lambda: scene.describer(scene.pixels)}
        for name, reranker in _rerankers(METHODS, scene, candidates).items():
            contestants[name] = lambda reranker=reranker: reranker(query, found)  # type: ignore[misc]
        return bench.compare(f"Re-rankers, {title}", contestants, ONE_PASS)


@contextmanager
def _scene(encoder: EncoderName, size: Size, candidates: int, bench: Bench) -> Iterator[tuple[Scene, str]]:
    """Yield a query with a temporary gallery, and the title of a comparison on them."""
    model, about = make_model(encoder, bench.weights)
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(model, size, candidates, Path(folder), bench.precision, bench.device, bench.runtime)
        how = f"{scene.describer.runtime}, {bench.precision}, {bench.device}"
        yield scene, f"{encoder}, {size}, P = {candidates}, {how} ({about})"


def _rerankers(methods: Sequence[Method], scene: Scene, candidates: int) -> dict[str, Reranker]:
    found: dict[str, Reranker] = {}
    for method in methods:
        for mode in ("exact", "gated", "fast") if method == "geowarp" else ("exact",):
            config = parse_config(LocalizerConfig, {"rerank": {"candidates": candidates, "mode": mode}})
            name = f"geowarp, {mode}" if method == "geowarp" else method
            found[name] = build_method(method, config, BaselinesConfig(), scene.gallery, scene.describer)
    return found


def _whole_way(scene: Scene, candidates: int) -> dict[str, Work]:
    describer, rerankers = scene.describer, _rerankers(["geowarp"], scene, candidates)
    listed = [Candidate(row, scene.gallery.places[row], float(row)) for row in range(candidates)]
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
