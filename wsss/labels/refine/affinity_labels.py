"""What affinity training learns from: confident labels from CAMs, pairs of them, and the loss.

Legend: B batch, P present classes of one image, H W its size, h w feature size, M pairs.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wsss.data.classes import IGNORE_INDEX
from wsss.networks.affinity_net import Pairs

EPSILON = 1e-5
"""Bounds the loss of a negative pair with affinity 1, and divides by no pair at all (PSA)."""


def confident_labels(
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    *,
    foreground_score: float,
    background_score: float,
) -> NDArray[np.uint8]:
    """Return the label of each pixel whose CAMs leave little doubt, and 255 elsewhere.

    cams: [P, H, W] in [0, 1] of the P 0-based classes `labels`. Returns [H, W]: the strongest class
    k as k + 1 where it is above `foreground_score`, 0 where no CAM is above `background_score`,
    else 255 (IRN's rule). Without any class, all is background. Raises ValueError if the scores are
    out of order.

    It is PSA's rule, too: CAMs s against a background of (1 - s)^power, with powers 4 and 32, are
    the scores .276 and .077.
    """
    if background_score > foreground_score:
        raise ValueError(
            f"background score {background_score} is above foreground score {foreground_score}; "
            "swap them"
        )
    if not labels:
        return np.zeros(cams.shape[1:], dtype=np.uint8)
    values = np.array([k + 1 for k in labels], dtype=np.uint8)
    strongest = cams.max(0)
    confident = np.full(strongest.shape, IGNORE_INDEX, dtype=np.uint8)
    foreground = strongest > np.float32(foreground_score)
    confident[foreground] = values[cams.argmax(0)[foreground]]
    confident[strongest <= np.float32(background_score)] = 0
    return confident


class PairKinds(NamedTuple):
    """Which pairs teach what; a pair with an unsure pixel is in none. Each bool [B, M]."""

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
    """foreground / 4 + background / 4 + negative / 2: as many votes for 1 as for 0."""
    foreground: Tensor
    background: Tensor
    negative: Tensor


def affinity_losses(
    distances: Tensor, kinds: PairKinds, counts: Tensor | None = None
) -> AffinityLosses:
    """Return the cross entropy of the affinities exp(-distance), balanced over kinds (PSA, Eq. 6).

    distances: [B, M], 0 or more. counts: [3], the pairs of each kind over which the means are
    taken; None: those of these maps, which may be a part of a batch.
    """
    if counts is None:
        counts = torch.stack([kind.sum() for kind in kinds])
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


def labels_at(label_maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return label maps [B, H, W] at the centres of a feature map's pixels: [B, h, w]."""
    return F.interpolate(label_maps[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(
        label_maps.dtype
    )
