"""Ranking loss on the scores of warped pairs (eq. 4): same-place pairs above look-alike pairs.

Extends the paper, which trains the encoder for retrieval only: pairs are warped as in re-ranking (eq. 2, 9) and a
softmax over one same-place and several different-place scores is backpropagated to the encoder, not to the quads.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.data import Autocast
from geowarp_ros.lab.training.grounds import PLACES_PER_GROUP
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS, similarity

ROUNDS = 2
"""Image pairs per pair of places."""


@dataclass(frozen=True, slots=True)
class Contests:
    """Image pairs of a batch and the groups in which they are ranked.

    Attributes:
        first: (P,) batch rows.
        second: (P,) batch rows.
        same: (A,) indices of same-place pairs, one per contest.
        others: (A, 2·ROUNDS) indices of pairs with another place of the group.
        counts: (A, 2·ROUNDS) bool, whether that place is certainly different.
    """

    first: Tensor
    second: Tensor
    same: Tensor
    others: Tensor
    counts: Tensor


def draw_contests(different: Tensor, rng: np.random.Generator) -> Contests:
    """Pair every place of a batch with the two others of its group.

    Args:
        different: (B, B) bool, rows of certainly different places; B a multiple of six.
        rng: Chooses the image of each place.

    Returns:
        B / 2 contests over 3·B / 2 pairs.
    """
    number = np.arange(len(different) // 2).reshape(-1, PLACES_PER_GROUP)
    place = 2 * number  # first row
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
    autocast: Autocast = nullcontext,
) -> Tensor:
    """Warp each pair to a common viewpoint (eq. 2, 9).

    Args:
        model: Model in eval mode that predicts the quads.
        images: (B, 3, H, W), normalised.
        contests: Pairs to warp.
        autocast: Precision of the encoder; quads stay in float32.

    Returns:
        (2·P, 3, H, W): first images of all pairs, then second images.
    """
    with autocast():
        local = model.local_features(images).float()  # a projection is under autocast, too
    quad_1, quad_2 = model.regress(local[contests.first], local[contests.second])
    return warp(images[torch.cat([contests.first, contests.second])], torch.cat([quad_1, quad_2]))


def ranking_loss(local_features: Tensor, contests: Contests, temperature: float) -> Tensor:
    """Softmax loss over the scores (eq. 4) of a same-place pair and its rivals.

    Args:
        local_features: (2·P, C, 15, 15) of the warped pairs in the order of :func:`warped_pairs`.
        contests: Pairs to rank.
        temperature: Softmax temperature (mean cosine, score / 225).

    Returns:
        Scalar, the mean over contests with a valid rival; 0 if there is none.
    """
    score = similarity(*local_features.chunk(2)) / CELLS / temperature
    rivals = score[contests.others].masked_fill(~contests.counts, -1e4).logsumexp(dim=1)
    held = contests.counts.any(dim=1)
    return (F.softplus(rivals - score[contests.same]) * held).sum() / held.sum().clamp(min=1)
