"""From normalised CAMs to a label map, and to the probabilities that refinements work on.

A refinement is a function `(image, cams, labels, background_score, config) -> label map`, such as
`crf_label` and `pamr_label`. Legend: P present classes, at least one; L' = P + 1 labels, H W image
size.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsss.data.classes import IGNORE_INDEX


def pseudo_label(
    cams: NDArray[np.float32], labels: tuple[int, ...], background_score: float
) -> NDArray[np.uint8]:
    """Return the label of each pixel: the strongest class above the background score, else 0.

    cams: [P, H, W] in [0, 1]; labels: the P 0-based classes. Returns [H, W], 0 background, class k
    as k + 1. A CAM equal to the score is background.
    """
    values = np.array([k + 1 for k in labels], dtype=np.uint8)
    strongest = cams.max(0)
    return np.where(strongest > np.float32(background_score), values[cams.argmax(0)], 0).astype(
        np.uint8
    )


def confident_label(
    label_at: Callable[[float], NDArray[np.uint8]], foreground_score: float, background_score: float
) -> NDArray[np.uint8]:
    """Return the label of each pixel that leaves little doubt, and 255 elsewhere (IRN): [H, W].

    label_at: the label map at a background score. A pixel is foreground if it is at the higher
    score, background if it is at the lower one. With plain CAMs s this is PSA's rule, too: its
    backgrounds (1 - s)^4 and (1 - s)^32 are the scores .276 and .077.
    """
    sure, maybe = label_at(foreground_score), label_at(background_score)
    doubtful = (sure == 0) & (maybe != 0)
    return np.where(doubtful, np.uint8(IGNORE_INDEX), sure)


def score_probs(cams: NDArray[np.float32], background_score: float) -> NDArray[np.float32]:
    """Return (background score, CAMs) divided by their sum: [L', H, W], background first.

    cams: [P, H, W], 0 or more. The first of the largest is the label that `pseudo_label` gives.
    Where all scores are 0, background gets 1.
    """
    scores = np.empty((len(cams) + 1, *cams.shape[1:]), np.float32)
    scores[0], scores[1:] = background_score, cams
    total = scores.sum(0)
    nothing = total == 0
    scores[0, nothing], total[nothing] = 1, 1
    scores /= total
    return scores


def most_probable(probs: NDArray[np.float32], labels: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the most probable label: [L', H, W] -> [H, W], 0 background, class k as k + 1."""
    return np.array([0, *(k + 1 for k in labels)], dtype=np.uint8)[probs.argmax(0)]
