"""The score of warped pairs, trained to put a place's own photographs before those of its rivals.

Retrieval's first answers are look-alikes, and eq. 4 is what tells them apart. The paper trains the encoder for
retrieval alone and never shows it a warped image; here the encoder also learns from what re-ranking asks of it:
the pair is warped as it would be (eq. 2, 9), and a softmax over the scores (eq. 4) of one pair of the same place
and several of different ones is followed back into the encoder. The quads are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.grounds import PLACES_PER_GROUP
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS, similarity

ROUNDS = 2
"""Pairs of each two places of a group."""


@dataclass(frozen=True, slots=True)
class Contests:
    """Pairs of a batch's rows, and which are compared with which.

    Attributes:
        first: (P,) rows.
        second: (P,) rows.
        same: (A,) pairs that show one place, a contest each.
        others: (A, 2·ROUNDS) pairs of a photograph of that place with one of a rival.
        counts: (A, 2·ROUNDS) bool, whether the rival is surely another place.
    """

    first: Tensor
    second: Tensor
    same: Tensor
    others: Tensor
    counts: Tensor


def draw_contests(different: Tensor, rng: np.random.Generator) -> Contests:
    """Let every place of a batch compete with the two others of its group.

    Args:
        different: (B, B) bool, rows of surely different places; B a multiple of six.
        rng: Chooses which of a place's two photographs meet.

    Returns:
        B / 2 contests of 3·B / 2 pairs.
    """
    number = np.arange(len(different) // 2).reshape(-1, PLACES_PER_GROUP)
    place = 2 * number  # its first row
    first, second = [place], [place + 1]
    for _ in range(ROUNDS):
        one, other = rng.integers(0, 2, (2, *number.shape))
        first.append(place + one)
        second.append(np.roll(place, -1, axis=1) + other)
    rounds = [number + number.size * (1 + each) for each in range(ROUNDS)]
    others = np.stack(rounds + [np.roll(each, 1, axis=1) for each in rounds], axis=-1).reshape(-1, 2 * ROUNDS)
    rows_1, rows_2 = (
        torch.from_numpy(np.stack(rows).reshape(-1)).to(different.device) for rows in (first, second)
    )
    pairs = torch.from_numpy(others).to(different.device)
    same = torch.from_numpy(number.reshape(-1)).to(different.device)
    return Contests(rows_1, rows_2, same, pairs, different[rows_1[pairs], rows_2[pairs]])


@torch.no_grad()
def warped_pairs(
    model: GeoWarp,
    images: Tensor,
    contests: Contests,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Bring each pair to its common viewpoint (eq. 2, 9).

    Args:
        model: In eval mode; its encoder and regression make the quads.
        images: (B, 3, H, W), normalised.
        contests: Whose pairs.
        autocast: Makes the context in which the encoder runs; the quads are not rounded.

    Returns:
        (2·P, 3, H, W): the first images of all pairs, then the second.
    """
    with autocast():
        local = model.local_features(images)
    quad_1, quad_2 = model.regress(local[contests.first], local[contests.second])
    return warp(images[torch.cat([contests.first, contests.second])], torch.cat([quad_1, quad_2]))


def ranking_loss(local_features: Tensor, contests: Contests, temperature: float) -> Tensor:
    """Softmax over the scores (eq. 4) of one pair of a place and those with its rivals.

    Args:
        local_features: (2·P, C, 15, 15) of the warped pairs, as :func:`warped_pairs` orders them.
        contests: Which pairs compete.
        temperature: Mean cosine (score / 225) that a factor e is worth.

    Returns:
        Scalar, the mean over the contests with a rival that counts; 0 where none has.
    """
    score = similarity(*local_features.chunk(2)) / CELLS / temperature
    rivals = score[contests.others].masked_fill(~contests.counts, -1e4).logsumexp(dim=1)
    held = contests.counts.any(dim=1)
    return (F.softplus(rivals - score[contests.same]) * held).sum() / held.sum().clamp(min=1)
