"""Recall of retrieval and of re-rankers on a set of geotagged images (paper sec. 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from geowarp_ros.config import LocalizerConfig, Section
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.asking import Asked, LeaveOut, Question, Way, ask
from geowarp_ros.evaluation.sets import Distances, Neighbours
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.integrity.verification import NoVerification
from geowarp_ros.lab.baselines import SECOND_SEARCHES, BaselinesConfig, Method, build_method
from geowarp_ros.lab.studies.memory import PeakMemory
from geowarp_ros.localizer import Localizer, Ranked
from geowarp_ros.model.describer import Describer, Query
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.rerank.verification import KIND_OF
from geowarp_ros.types import Candidate, Fix, FloatArray, NoFix, Place

DEEPEST = 1000
"""Number of candidates that qe-dba and diffusion compare with, and the largest N of Recall@N."""


class DatasetConfig(Section):
    """Thresholds, methods and options of an evaluation."""

    thresholds_m: tuple[Annotated[float, Field(gt=0.0)], ...] = Field(
        (10.0, 25.0, 50.0), min_length=1, description="Maximum distance of a right candidate from the truth (m)."
    )
    recalls: tuple[Annotated[int, Field(ge=1, le=DEEPEST)], ...] = Field(
        (1, 5, 10, 20), min_length=1, description="N of Recall@N."
    )
    rerank: tuple[Method, ...] = Field(("none", "geowarp"), min_length=1, description="Methods to compare.")
    exclude_neighbours: int = Field(
        0,
        ge=0,
        description="Ignore gallery images of the query's own sequence whose number (in the file name) differs by "
        "at most this; 0: ignore none.",
    )
    limit_queries: int = Field(0, ge=0, description="Maximum number of queries, evenly spread; 0: all.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
    localizer: LocalizerConfig = LocalizerConfig()
    baselines: BaselinesConfig = BaselinesConfig()


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to be measured.

    Attributes:
        label: Name in the tables, unique in an evaluation.
        backbone: Encoder, as the paper's tables call it.
        aggregation: Aggregation, likewise.
        describer: The model at work.
    """

    label: str
    backbone: str
    aggregation: str
    describer: Describer


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers of one method and one model to Q queries.

    Attributes:
        contender: The model.
        method: The re-ranker.
        queries: True places of the queries.
        ranked: For each query at most K candidates, best first.
        error_m: (Q, K) distances of the candidates from the truth; infinite where there is no candidate.
        nearest_m: (Q,) distance of the nearest gallery image that was searched.
        describe_ms: (Q,) duration of describing the query.
        search_ms: (Q,) duration of retrieval.
        rerank_ms: (Q,) duration of re-ranking.
        peak_mib: (Q,) peak memory of search and re-ranking, beyond what was held before; NaN if unknown.
        place_bytes: Number of bytes that the method reads of one gallery place.
        fixes: For each query the answer with a minimum confidence of 0; empty if none was asked for.
    """

    contender: Contender
    method: Method
    queries: tuple[Place, ...]
    ranked: tuple[tuple[Candidate, ...], ...]
    error_m: FloatArray
    nearest_m: FloatArray
    describe_ms: FloatArray
    search_ms: FloatArray
    rerank_ms: FloatArray
    peak_mib: FloatArray
    place_bytes: int
    fixes: tuple[Fix | NoFix, ...] = ()

    @property
    def total_ms(self) -> FloatArray:
        """(Q,) duration from the image to the ranking."""
        return self.describe_ms + self.search_ms + self.rerank_ms


def evaluate_model(
    contender: Contender,
    gallery: Gallery,
    queries: Sequence[SourceImage],
    config: DatasetConfig,
    progress: Progress = silent,
    leave_out: LeaveOut | None = None,
) -> tuple[list[Outcome], list[str]]:
    """Ask retrieval and each re-ranker about each query.

    Args:
        contender: Model that describes the queries as it described the gallery.
        gallery: Gallery to search.
        queries: Images of known position.
        config: Methods and their options.
        progress: Shows the queries.
        leave_out: Places to ignore; None: the query's neighbours in its sequence, ``config.exclude_neighbours``.

    Returns:
        One outcome per method, in the order of ``config.rerank``; and the names of queries that cannot be decoded.

    Raises:
        SourceError: No query can be decoded; or a name has no number and neighbours are to be left out.
        ModelError: A method needs a regression or weights that are absent.
    """
    leave_out = leave_out or Neighbours(gallery.places, config.exclude_neighbours)
    memory = PeakMemory(contender.describer.device)
    trials = [_Trial(method, contender, gallery, leave_out, config, memory) for method in config.rerank]
    questions = [Question.of(image) for image in queries]
    distances = Distances(gallery.places)
    unreadable: list[str] = []
    for asked in _after_warming_up(contender, questions, [trial.rank for trial in trials], progress):
        if asked.question.truth is None or asked.refusal:
            unreadable.append(asked.question.name)
            continue
        distance_m = distances(asked.question.truth)
        distance_m[list(leave_out(asked.question.truth))] = np.inf
        for trial, ranked in zip(trials, asked.ranked, strict=True):
            trial.record(asked, ranked, distance_m)
    if len(unreadable) == len(queries):
        raise SourceError(f"no query can be read: {len(unreadable)} of {len(queries)} are no images")
    return [trial.outcome() for trial in trials], unreadable


def _after_warming_up(
    contender: Contender, questions: Sequence[Question], ways: Sequence[Way], progress: Progress
) -> Iterator[Asked]:
    """Ask, after the first readable question was asked once: first passes are slower than all that follow."""
    next((a for a in ask(contender.describer, questions, ways) if not a.refusal), None)
    yield from ask(contender.describer, questions, ways, progress=progress, label=f"{contender.label}: queries")


class _Trial:
    """One method and its answers."""

    def __init__(
        self,
        method: Method,
        contender: Contender,
        gallery: Gallery,
        leave_out: LeaveOut,
        config: DatasetConfig,
        memory: PeakMemory,
    ) -> None:
        self._method: Method = method
        self._contender = contender
        self._gallery = gallery
        self._leave_out = leave_out
        self._baselines = config.baselines
        self._first = max(config.recalls)
        self._all = method in SECOND_SEARCHES
        retrieval, rerank = config.localizer.retrieval, config.localizer.rerank
        depth = DEEPEST if self._all else max(self._first, rerank.candidates, retrieval.candidates)
        # the pose is matched as the method matches, where it matches stored keypoints
        verify = method if method in KIND_OF else config.localizer.position.verify
        # validated where they were given: a second search looks at more candidates than a robot may
        self._config = config.localizer.model_copy(
            update={
                "retrieval": retrieval.model_copy(update={"candidates": depth}),
                "rerank": rerank.model_copy(update={"candidates": depth if self._all else rerank.candidates}),
                "position": config.localizer.position.model_copy(update={"verify": verify}),
            }
        )
        self._localizer = self._without(frozenset())
        self._memory = memory
        self._peak_mib = 0.0
        self._answers: list[tuple[Place | None, tuple[Candidate, ...], FloatArray]] = []
        self._numbers: list[tuple[float, ...]] = []
        self._fixes: list[Fix | NoFix] = []

    def rank(self, query: Query, truth: Place | None) -> Ranked:
        """Rank the gallery as if it lacked what is left out for this query."""
        left_out = frozenset() if truth is None else self._leave_out(truth)
        # what is left out must not help a second search through its neighbours either
        localizer = self._without(left_out) if left_out and self._all else self._localizer
        self._memory.start()
        ranked = localizer.rank(query, without=left_out)
        self._peak_mib = self._memory.peak_mib()
        return ranked

    def record(self, asked: Asked, ranked: Ranked, distance_m: FloatArray) -> None:
        """Keep of an answer what the tables need.

        Args:
            asked: The question.
            ranked: The method's answer, the latest of :meth:`rank`.
            distance_m: (N,) distance of every gallery place from the truth; infinite if left out.
        """
        first = ranked.candidates[: self._first]
        error_m = np.full(self._first, np.inf)
        error_m[: len(first)] = distance_m[[candidate.index for candidate in first]]
        times_ms = (asked.describe_ms, ranked.timing_ms["search"], ranked.timing_ms["rerank"])
        self._answers.append((asked.question.truth, first, error_m))
        self._numbers.append((distance_m.min(), *times_ms, self._peak_mib))
        self._fixes.append(self._localizer.judge(ranked, min_confidence=0.0))

    def outcome(self) -> Outcome:
        """Return all answers, in the order of the queries."""
        queries, ranked, errors_m = zip(*self._answers, strict=True)
        nearest_m, describe_ms, search_ms, rerank_ms, peak_mib = np.array(self._numbers).T
        return Outcome(
            contender=self._contender,
            method=self._method,
            queries=queries,
            ranked=ranked,
            error_m=np.stack(errors_m),
            nearest_m=nearest_m,
            describe_ms=describe_ms,
            search_ms=search_ms,
            rerank_ms=rerank_ms,
            peak_mib=peak_mib,
            place_bytes=place_bytes(self._method, self._gallery),
            fixes=tuple(self._fixes),
        )

    def _without(self, left_out: frozenset[int]) -> Localizer:
        describer = self._contender.describer
        reranker = build_method(self._method, self._config, self._baselines, self._gallery, describer, left_out)
        return Localizer(describer, self._gallery, reranker, NoVerification(), self._config)


def place_bytes(method: Method, gallery: Gallery) -> int:
    """Return the bytes that retrieval and a method read of one place: descriptor, local features, image."""
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
