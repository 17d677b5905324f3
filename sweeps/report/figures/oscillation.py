"""How smooth a training was: the moving average of its losses, and how much they oscillate.

Legend: T training steps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def moving_average(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Centred moving average of a series [T] -> [T].

    Step i is averaged over i - window // 2 to i + window // 2, so an even window counts as the
    next odd one; at both ends over those of these steps that exist. A value that is not finite
    spreads to its window only. Raises ValueError for a window below 1.
    """
    if window < 1:
        raise ValueError(f"moving average over {window} steps; give at least 1")
    series = np.asarray(values, dtype=np.float64)
    size = len(series)
    half = min(window // 2, max(size - 1, 0))
    kernel = np.ones(2 * half + 1)
    bad = ~np.isfinite(series)

    def sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.convolve(terms, kernel, mode="full")[half : half + size]

    if size == 0:
        return series
    averages = sums(np.where(bad, 0.0, series)) / sums(np.ones(size))
    return np.where(sums(bad.astype(np.float64)) > 0, np.nan, averages)


def oscillation(step_losses: Sequence[float], window: int) -> float:
    """How much a loss oscillates late in training, as a share of its mean there (0.1 = 10 %).

    The root mean square deviation of the step losses from their `moving_average` over `window`
    steps, taken over the last half of the steps (from T // 2), divided by the mean step loss of
    that half. The average follows the trend, so a loss that falls steadily does not oscillate.
    nan if a loss there is not finite or their mean is 0. Raises ValueError for a window below 3
    or fewer than 2 * window steps: such an average would follow the oscillation itself, or have
    no full window in the half.
    """
    if window < 3:
        raise ValueError(f"oscillation about an average over {window} steps; give at least 3")
    losses = np.asarray(step_losses, dtype=np.float64)
    if len(losses) < 2 * window:
        raise ValueError(
            f"oscillation of {len(losses)} steps about an average over {window}; give at least "
            f"{2 * window} steps or a window of at most {len(losses) // 2}"
        )
    late = slice(len(losses) // 2, None)
    mean = float(losses[late].mean())
    if not np.isfinite(mean) or mean == 0:
        return float("nan")
    deviations = (losses - moving_average(losses, window))[late]
    return float(np.sqrt(np.mean(deviations**2))) / mean
