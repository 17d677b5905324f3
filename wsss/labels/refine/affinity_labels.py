"""What affinity training learns from: pairs of confident labels, and the loss over them.

Legend: B batch, h w feature size, M pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wsss.data.classes import IGNORE_INDEX
from wsss.networks.affinity_net import Pairs

EPSILON = 1e-5
"""Bounds the loss of a negative pair with affinity 1 (PSA)."""


class PairKinds(NamedTuple):
    """Pairs by what they teach; a pair with an unsure pixel is in none. Each bool [B, M]."""

    foreground: Tensor
    """Both of one foreground class: affinity should be 1."""
    background: Tensor
    """Both background: affinity should be 1."""
    negative: Tensor
    """Of different labels: affinity should be 0."""


def pair_kinds(label_maps: Tensor, pairs: Pairs) -> PairKinds:
    """Sort the pairs of confident label maps [B, h, w] (0, 1..K, 255 unsure) by what they teach."""
    flat = label_maps.flatten(1).long()
    first, second = flat[:, pairs.first], flat[:, pairs.second]  # [B, M]
    sure = (first != IGNORE_INDEX) & (second != IGNORE_INDEX)
    same = first == second
    return PairKinds(sure & same & (first > 0), sure & same & (first == 0), sure & ~same)


class AffinityLosses(NamedTuple):
    """The loss and its three means over pairs; a kind without pairs is 0. Scalars."""

    total: Tensor
    """foreground / 4 + background / 4 + negative / 2: affinities 1 and 0 weigh the same."""
    foreground: Tensor
    background: Tensor
    negative: Tensor


def affinity_losses(distances: Tensor, kinds: PairKinds, counts: Tensor) -> AffinityLosses:
    """Return the cross entropy of the affinities exp(-distance), balanced over kinds (PSA, Eq. 6).

    distances: [B, M], 0 or more. counts: [3], the pairs of each kind to divide by, of the whole
    batch if `kinds` are of a part of it.
    """
    away = torch.log(-torch.expm1(-distances) + EPSILON)  # log(1 - affinity)
    # -log(affinity) is the distance
    foreground, background, negative = (
        torch.where(chosen, values, 0).sum() / count
        for values, chosen, count in zip(
            (distances, distances, -away), kinds, counts.clamp(min=1), strict=True
        )
    )
    return AffinityLosses(
        foreground / 4 + background / 4 + negative / 2, foreground, background, negative
    )
