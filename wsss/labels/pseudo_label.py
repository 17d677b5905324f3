"""From normalised CAMs to a label map."""

import numpy as np
from numpy.typing import NDArray


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
