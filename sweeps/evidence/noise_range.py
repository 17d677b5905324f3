"""How far apart equal cells are by seed noise alone: the range of normal values.

It is summed over fixed points: scipy's studentised range takes a second, a fifth of a large report.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sweeps.evidence.power import over_sample_sds
from sweeps.evidence.seeds import FloatArray

WIDEST = 16.0
"""SDs; the cells of no table span more by chance."""
LEVEL = 0.95


class NoiseRange(NamedTuple):
    """Largest minus smallest of cells that differ by noise alone, percent."""

    expected: float
    upper: float
    """Exceeded with a probability of 5 %."""


def range_of_noise(sd: float, k: int, *, df: float = math.inf) -> NoiseRange:
    """Return the range (max - min) that k >= 1 equal cells span by independent normal noise.

    sd: percent, of one cell's value (for a mean over n seeds: SD / √n). df: degrees of freedom of
    an estimated SD, which widen the upper bound. What a seed adds to all cells alike is not part of
    this noise. (studentised range)
    """
    if k == 1 or sd == 0:
        return NoiseRange(0.0, 0.0)
    expected, upper = _range_in_sds(k, df)
    return NoiseRange(expected * sd, upper * sd)


@lru_cache(maxsize=64)
def _range_in_sds(k: int, df: float) -> tuple[float, float]:
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
    while share(high) < LEVEL:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= LEVEL else (middle, high)
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
