"""How often is the first candidate right? Retrieval and re-rankers on a set of geotagged images (paper sec. 4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
import torch
from pydantic import Field

from geowarp_ros.config import LocalizerConfig, RerankMethod, RetrievalConfig, Section
from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.evaluation.memory import PeakMemory
from geowarp_ros.evaluation.sets import Distances, Neighbours
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Describer, Query
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.rerank import SECOND_SEARCHES, Reranker, build_reranker
from geowarp_ros.types import Candidate, FloatArray, Image, Place

T = TypeVar("T")

DEEPEST = 1000
"""Most candidates of one search; qe-dba and diffusion compare with as many."""


class DatasetConfig(Section):
    """What is measured, and with which options."""

    thresholds_m: tuple[Annotated[float, Field(gt=0.0)], ...] = Field(
        (10.0, 25.0, 50.0), min_length=1, description="A candidate this near to the truth is right, in m."
    )
    recalls: tuple[Annotated[int, Field(ge=1, le=DEEPEST)], ...] = Field(
        (1, 5, 10, 20), min_length=1, description="N of Recall@N."
    )
    rerank: tuple[RerankMethod, ...] = Field(("none", "geowarp"), min_length=1, description="Methods compared.")
    exclude_neighbours: int = Field(
        0,
        ge=0,
        le=400,
        description="Gallery images of the query's own sequence whose number in the file name is within this of "
        "the query's are left out of its search; 0 keeps all.",
    )
    limit_queries: int = Field(0, ge=0, description="Only this many queries, evenly spread; 0: all.")
    seed: int = Field(0, ge=0, description="Of the bootstrap.")
    localizer: LocalizerConfig = LocalizerConfig()


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to be measured.

    Attributes:
        label: Unique in an evaluation.
        backbone: Encoder, in the paper's words.
        aggregation: Likewise.
        describer: At work.
    """

    label: str
    backbone: str
    aggregation: str
    describer: Describer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one method answered to Q queries with one model.

    Attributes:
        contender: The model.
        method: The re-ranker.
        queries: The places asked about.
        ranked: Q times at most K candidates, best first.
        error_m: (Q, K) their distances from the truth; infinite where there is none.
        nearest_m: (Q,) distance of the nearest gallery image that was searched.
        describe_ms: (Q,) describing the query.
        search_ms: (Q,) retrieval.
        rerank_ms: (Q,) re-ranking.
        peak_mib: (Q,) memory that re-ranking took beyond what was held before; NaN where the system does not tell.
        place_bytes: What the method reads of one gallery place.
    """

    contender: Contender
    method: RerankMethod
    queries: tuple[Place, ...]
    ranked: tuple[tuple[Candidate, ...], ...]
    error_m: FloatArray
    nearest_m: FloatArray
    describe_ms: FloatArray
    search_ms: FloatArray
    rerank_ms: FloatArray
    peak_mib: FloatArray
    place_bytes: int

    @property
    def total_ms(self) -> FloatArray:
        """(Q,) from the image to the ranking."""
        return self.describe_ms + self.search_ms + self.rerank_ms


@dataclass(frozen=True, slots=True)
class Asked:
    """One query described and searched for, before any re-ranking.

    Attributes:
        place: The truth.
        query: Described.
        candidates: What retrieval found.
        left_out: Rows of the gallery that do not count for this query.
        distance_m: (N,) of every gallery place from the truth; infinite for those left out.
        describe_ms: What describing took.
        search_ms: What retrieval took.
    """

    place: Place
    query: Query
    candidates: list[Candidate]
    left_out: frozenset[int]
    distance_m: FloatArray
    describe_ms: float
    search_ms: float


def evaluate_model(
    contender: Contender,
    gallery: Gallery,
    queries: Sequence[SourceImage],
    config: DatasetConfig,
    progress: Progress = silent,
) -> tuple[list[Outcome], list[str]]:
    """Ask retrieval and each re-ranker about each query.

    Args:
        contender: What made the gallery.
        gallery: Searched.
        queries: Images of known position.
        config: Methods and their options.
        progress: Shows the queries.

    Returns:
        One outcome a method, in the order of ``config.rerank``; and the names of queries that cannot be read.

    Raises:
        SourceError: No query can be read; or a name has no number and neighbours are to be left out.
        ModelError: A method needs a regression or weights that are absent.
    """
    trials = [_Trial(method, contender, gallery, config) for method in config.rerank]
    desk = _Desk(contender.describer, gallery, config)
    unreadable: list[str] = []
    warm = False
    for item in progress(queries, len(queries), f"{contender.label}: queries"):
        try:
            image = item.read()
        except ImageError:
            unreadable.append(item.place.name)
            continue
        if not warm:  # the first pass through each network is slower than all that follow
            for trial in trials:
                trial.answer(desk.ask(item.place, image))
            warm = True
        asked = desk.ask(item.place, image)
        for trial in trials:
            trial.record(asked)
    if not warm:
        raise SourceError(f"no query can be read: {len(unreadable)} of {len(queries)} are no images")
    return [trial.outcome() for trial in trials], unreadable


class _Desk:
    """Describes and searches, once for all methods."""

    def __init__(self, describer: Describer, gallery: Gallery, config: DatasetConfig) -> None:
        self._describer = describer
        self._gallery = gallery
        self._neighbours = Neighbours(gallery.places, config.exclude_neighbours)
        self._distances = Distances(gallery.places)
        localizer = config.localizer
        self._depth = max(*config.recalls, localizer.rerank.candidates, localizer.retrieval.candidates)

    def ask(self, place: Place, image: Image) -> Asked:
        left_out = self._neighbours(place)
        query, describe_ms = _timed(lambda: self._describer(image))
        candidates, search_ms = _timed(lambda: search_without(self._gallery, query, self._depth, left_out))
        distance_m = self._distances(place)
        distance_m[list(left_out)] = np.inf
        return Asked(place, query, candidates, left_out, distance_m, describe_ms, search_ms)


class _Trial:
    """One re-ranker at work, and what it answered."""

    def __init__(
        self, method: RerankMethod, contender: Contender, gallery: Gallery, config: DatasetConfig
    ) -> None:
        self._method: RerankMethod = method
        self._contender = contender
        self._gallery = gallery
        self._first = max(config.recalls)
        rerank = config.localizer.rerank.model_copy(update={"method": method})
        self._config = config.localizer.model_copy(update={"rerank": rerank})
        self._reranker = build_reranker(self._config, gallery, contender.describer)
        self._memory = PeakMemory(contender.describer.device)
        self._asked: list[tuple[Place, float, float, float]] = []
        self._ranked: list[tuple[Candidate, ...]] = []
        self._errors: list[FloatArray] = []
        self._spent: list[tuple[float, float]] = []

    def answer(self, asked: Asked) -> tuple[list[Candidate], float, float]:
        """Rank the candidates; returns them, the milliseconds and the MiB that it took."""
        candidates, reranker = asked.candidates, self._reranker
        if self._method in SECOND_SEARCHES:
            candidates = search_without(self._gallery, asked.query, DEEPEST, asked.left_out)
            if asked.left_out:  # what is left out must not help through its neighbours either
                reranker = self._without(asked.left_out)
        self._memory.start()
        ranked, elapsed_ms = _timed(lambda: reranker(asked.query, candidates))
        return ranked[: self._first], elapsed_ms, self._memory.peak_mib()

    def record(self, asked: Asked) -> None:
        """Answer one query and keep the answer."""
        ranked, elapsed_ms, peak_mib = self.answer(asked)
        error_m = np.full(self._first, np.inf)
        error_m[: len(ranked)] = asked.distance_m[[candidate.index for candidate in ranked]]
        self._asked.append((asked.place, float(asked.distance_m.min()), asked.describe_ms, asked.search_ms))
        self._ranked.append(tuple(ranked))
        self._errors.append(error_m)
        self._spent.append((elapsed_ms, peak_mib))

    def outcome(self) -> Outcome:
        """All answers, in the queries' order."""
        places, nearest_m, describe_ms, search_ms = zip(*self._asked, strict=True)
        rerank_ms, peak_mib = np.array(self._spent).T
        return Outcome(
            contender=self._contender,
            method=self._method,
            queries=tuple(places),
            ranked=tuple(self._ranked),
            error_m=np.array(self._errors),
            nearest_m=np.array(nearest_m),
            describe_ms=np.array(describe_ms),
            search_ms=np.array(search_ms),
            rerank_ms=rerank_ms,
            peak_mib=peak_mib,
            place_bytes=place_bytes(self._method, self._gallery),
        )

    def _without(self, left_out: frozenset[int]) -> Reranker:
        return build_reranker(self._config, self._gallery, self._contender.describer, left_out)


def search_without(gallery: Gallery, query: Query, depth: int, left_out: frozenset[int]) -> list[Candidate]:
    """Retrieve at most ``depth`` candidates from a gallery as if it lacked some rows."""
    wanted = RetrievalConfig(candidates=min(depth + len(left_out), DEEPEST))
    found = gallery.search(query.descriptor, wanted)
    return [candidate for candidate in found if candidate.index not in left_out][:depth]


def place_bytes(method: RerankMethod, gallery: Gallery) -> int:
    """Bytes that retrieval and a method read of one place: descriptor, local features, decoded image."""
    descriptor = 4 * int(gallery.descriptors.shape[1])
    local_features, image = int(gallery.local_features([0]).nbytes), int(gallery.image(0).nbytes)
    read = {
        "none": 0,
        "geowarp": local_features + image,
        "geowarp-unwarped": local_features,
        "one-way": local_features + image,
        "qe-dba": descriptor,
        "diffusion": len(gallery) * 4,  # one column of the inverse
        "dense-ransac": local_features,
    }
    return descriptor + read.get(method, image)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return the result and the milliseconds it took."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, (time.perf_counter() - start) * 1e3
