"""How far cells that are equal lie apart by seed noise alone: the range of normal values.

Computed by sums over fixed points: importing and solving scipy's studentised range takes a second,
a fifth of a large report.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sweeps.evidence.power import over_sample_sds
from sweeps.evidence.seeds import FloatArray, check_share

WIDEST = 16.0
"""SDs; no number of cells in a table spans more by chance."""


class NoiseRange(NamedTuple):
    """Largest minus smallest of cells that differ by noise alone, percent."""

    expected: float
    upper: float
    """Exceeded with probability 1 - level only."""


def range_of_noise(sd: float, k: int, *, level: float = 0.95, df: float = math.inf) -> NoiseRange:
    """Return the range (max - min) that k equal cells span by independent normal noise.

    sd: percent, of one cell's number as printed (for a mean over n seeds: SD / √n). df: degrees of
    freedom behind an SD that was estimated; they widen the upper bound. A seed's effect on all
    cells alike is no part of this noise. (studentised range)
    """
    check_share(level, "level")
    if k < 1 or not (math.isfinite(sd) and sd >= 0) or not df > 0:
        raise ValueError(f"k {k}, SD {sd}, df {df}: need k >= 1, SD >= 0, df > 0")
    if k == 1 or sd == 0:
        return NoiseRange(0.0, 0.0)
    expected, upper = _range_in_sds(k, level, df)
    return NoiseRange(expected * sd, upper * sd)


@lru_cache(maxsize=64)
def _range_in_sds(k: int, level: float, df: float) -> tuple[float, float]:
    """Return expectation and upper bound of the range for an SD of 1."""
    widths = np.linspace(0, WIDEST, 1601)
    within = _within(widths, k)

    def share(upper: float) -> float:
        """P(range / estimated SD <= upper)."""
        if math.isinf(df):
            return float(np.interp(upper, widths, within))
        turn = WIDEST / upper  # of the sample SD, beyond which the range is always within
        return over_sample_sds(lambda s: np.interp(upper * s, widths, within), df, (turn,))

    low, high = 0.0, WIDEST
    while share(high) < level:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= level else (middle, high)
    return float(np.trapezoid(1 - within, widths)), high


def _within(widths: FloatArray, k: int) -> FloatArray:
    """Return the probability that k standard normal values lie within each width: [W] -> [W].

    The integral over x of k φ(x) (Φ(x + width) - Φ(x))^(k - 1), where x is the smallest value.
    """
    from scipy.special import ndtr

    x, step = np.linspace(-9, 9, 361, retstep=True)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    inside = ndtr(x + widths[:, None]) - ndtr(x)  # [W, points]
    return np.minimum(k * step * (inside ** (k - 1) @ density), 1.0)
