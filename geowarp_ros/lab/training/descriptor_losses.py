"""Metric-learning losses on global descriptors."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M) squared Euclidean distances, as used by retrieval."""
    products = first @ second.T
    squares = first.square().sum(dim=1)[:, None] + second.square().sum(dim=1)
    return (squares - 2 * products).clamp(min=0)


def triplet_loss(query: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.1) -> Tensor:
    """Triplet loss on squared distances (paper sec. 3.1; Arandjelović et al., CVPR 2016, eq. 7).

    Mean over queries and negatives of max(0, d²(q, p) + margin − d²(q, n)).

    Args:
        query: (B, D).
        positive: (B, D).
        negatives: (B, N, D).
        margin: Margin on squared distances.

    Returns:
        Scalar.
    """
    near = (query - positive).square().sum(dim=1, keepdim=True)
    far = (query[:, None] - negatives).square().sum(dim=2)
    return F.relu(near + margin - far).mean()


def multi_similarity_loss(
    descriptors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Tensor:
    """Multi-similarity loss with pair mining (Wang et al., CVPR 2019, eq. 9-11).

    The similarity is 1 − d²/2, the cosine for unit descriptors (NetVLAD). Mining keeps negatives more similar than
    the least similar positive minus ``epsilon`` and positives less similar than the most similar negative plus
    ``epsilon``.

    Args:
        descriptors: (B, D).
        positives: (B, B) bool mask of same-place pairs; the diagonal is ignored.
        negatives: (B, B) bool mask of different-place pairs; a pair may be neither.
        alpha: Scale for positives.
        beta: Scale for negatives.
        base: Similarity threshold λ.
        epsilon: Mining margin.

    Returns:
        Scalar, the mean over the batch.
    """
    alike = 1 - squared_distances(descriptors, descriptors) / 2
    positives = positives & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
    least = alike.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
    most = alike.masked_fill(~negatives, -torch.inf).amax(dim=1, keepdim=True)
    hard_positives = positives & (alike - epsilon < most)
    hard_negatives = negatives & (alike + epsilon > least)
    pull = torch.where(hard_positives, torch.exp(-alpha * (alike - base)), 0.0).sum(dim=1)
    push = torch.where(hard_negatives, torch.exp(beta * (alike - base)), 0.0).sum(dim=1)
    return (torch.log1p(pull) / alpha + torch.log1p(push) / beta).mean()


def contrastive_loss(
    descriptors: Tensor, others: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 0.03
) -> Tensor:
    """Softmax over squared distances, each positive against all negatives (InfoNCE, van den Oord et al., 2018).

    Args:
        descriptors: (B, D).
        others: (M, D), e.g. the batch itself.
        positives: (B, M) bool, excluding the descriptor itself.
        negatives: (B, M) bool.
        temperature: Softmax temperature (squared distance).

    Returns:
        Scalar, the mean over descriptors with a positive; 0 if there is none.
    """
    logits = -squared_distances(descriptors, others) / temperature
    rivals = logits.masked_fill(~negatives, -1e4).logsumexp(dim=1, keepdim=True)
    each = (F.softplus(rivals - logits) * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    with_positive = positives.any(dim=1)
    return (each * with_positive).sum() / with_positive.sum().clamp(min=1)
