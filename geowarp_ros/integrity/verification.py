"""Geometric verification: is there a homography between the query and a place that many matched points obey?

Two images of different places rarely agree on one, however alike their descriptors are: the classical filter of
false positives (Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007).
The matchers are the re-rankers' own, :mod:`geowarp_ros.rerank.verification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.rerank.verification import Matcher, build_matcher, inliers_of
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Query

CHANCE_INLIERS = 9
"""So many points agree on some homography by chance (four determine it): up to here the ranking stays as it is."""


class Verifier(Protocol):
    """Looks for points on which the query and a candidate agree."""

    def __call__(self, query: Query, ranked: Sequence[Candidate], /) -> list[Candidate]:
        """Return the same candidates, best first, with the inliers of those that were looked at."""

    @property
    def matcher(self) -> Matcher | None:
        """What finds the points; None where none are looked for."""


class NoVerification:
    """The null verifier: the inliers stay unknown."""

    matcher = None

    def __call__(self, query: Query, ranked: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates as they are."""
        return list(ranked)


class GeometricVerifier:
    """Counts the inliers of the first ``count`` candidates and puts those with more than chance first.

    Args:
        matcher: Where the points come from.
        threshold: Largest distance of an inlier, in the matcher's unit.
        count: How many candidates are verified.
    """

    def __init__(self, matcher: Matcher, threshold: float, count: int) -> None:
        self.matcher = matcher
        self._threshold = threshold
        self._count = count

    def __call__(self, query: Query, ranked: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates by their inliers, most first; without more than chance they keep their order."""
        head, tail = ranked[: self._count], ranked[self._count :]
        counts = inliers_of(self.matcher, query, head, self._threshold)
        verified = [replace(candidate, inliers=count) for candidate, count in zip(head, counts, strict=True)]
        rest = [replace(candidate, inliers=None) for candidate in tail]  # a re-ranker may have counted others'
        return sorted(verified, key=lambda c: -max(c.inliers or 0, CHANCE_INLIERS)) + rest


def build_verifier(config: LocalizerConfig, gallery: Gallery) -> Verifier:
    """Return the verifier that ``position.verify`` names.

    Raises:
        GalleryError: The gallery does not store the keypoints that it matches.
        ModelError: It is a network whose weights are absent or foreign.
    """
    position = config.position
    if position.verify == "none":
        return NoVerification()
    matcher = build_matcher(gallery, position.verify, config)
    return GeometricVerifier(matcher, position.verification.threshold_px, position.verify_candidates)
