"""How many seeds a difference takes, and what seed noise alone does (percent mIoU).

All tests are paired by seed. Powers are integrals over the sample SD, because the noncentral t of
scipy and statsmodels is NaN for some large effects over few seeds. The range of noise is summed
over fixed points, because scipy's studentised range takes a second, a fifth of a large report.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from sweeps.evidence.seeds import ALPHA, LEVEL, ROUNDING, FloatArray

POWER = 0.8
"""Share of experiments that shall find a true difference."""
MAX_SEEDS = 1_000_000
"""No more seeds than this are considered."""
WIDEST = 16.0
"""SDs; the cells of no table span more by chance."""


def t_test_power(effect: float, sd: float, n: int) -> float:
    """Return the power of a paired two-sided t-test over n >= 2 seeds for a true mean difference.

    sd: the SD of the paired differences, above 0.
    """
    from scipy.special import ndtr, stdtrit

    shift = abs(effect) / sd * math.sqrt(n)
    critical = float(stdtrit(n - 1, 1 - ALPHA / 2))
    turn, width = shift / critical, 9 / critical  # rejected nearly always below, never above
    return over_sample_sds(
        lambda s: ndtr(shift - critical * s) + ndtr(-shift - critical * s),
        n - 1,
        (turn - width, turn, turn + width),
    )


def minimum_detectable(sd_of_difference: float, n: int) -> float:
    """Return the smallest true difference that a paired two-sided t-test resolves.

    sd_of_difference: of the seed-paired differences, percent (seed noise). n: seeds, at least two.
    For a single comparison; Holm's correction over a table takes more.
    """
    return sd_of_difference * _least(lambda effect: t_test_power(effect, 1.0, n) >= POWER)


def seeds_needed(effect: float, sd_of_difference: float) -> int | None:
    """Return the number of seeds with which a paired two-sided t-test finds a true difference.

    effect, sd_of_difference: percent (seed noise). At least 2. None if MAX_SEEDS are too few, as
    for effect 0. An SD from few seeds is uncertain, and so is the answer.
    """
    return _num_seeds(t_test_power, effect, sd_of_difference)


def seeds_for_equivalence(margin: float, sd_of_difference: float) -> int | None:
    """Return the number of seeds with which `tost` shows equivalence of a mean at the centre.

    margin, sd_of_difference: percent (seed noise). At least 2; None above MAX_SEEDS.
    """
    return _num_seeds(tost_power, margin, sd_of_difference)


def _num_seeds(power: Callable[[float, float, int], float], size: float, sd: float) -> int | None:
    """Return the smallest number of seeds with enough power, by bisection; None for too many."""
    if abs(size) <= ROUNDING:
        return None
    if sd <= ROUNDING:
        return 2
    numbers = range(2, MAX_SEEDS + 1)
    at = bisect_left(numbers, POWER, key=lambda n: power(size, sd, n))
    return numbers[at] if at < len(numbers) else None


def tost_power(margin: float, sd: float, n: int) -> float:
    """Return how often `tost` over n >= 2 seeds gives p < ALPHA if the true mean is the centre."""
    from scipy.special import ndtr, stdtrit

    reach = margin / sd * math.sqrt(n)
    critical = float(stdtrit(n - 1, 1 - ALPHA))
    turn, width = reach / critical, 9 / critical
    return over_sample_sds(
        lambda s: np.maximum(2 * ndtr(reach - critical * s) - 1, 0), n - 1, (turn - width, turn)
    )


def over_sample_sds(
    share: Callable[[FloatArray], FloatArray], df: float, breaks: tuple[float, ...]
) -> float:
    """Return the expectation of share(s) over the sample SD s, in units of the true SD.

    df s^2 is chi-square with df degrees of freedom. breaks: where share(s) bends.
    """
    from scipy.special import gammaln

    spread = 8 / math.sqrt(2 * df)  # eight SDs of s on either side of 1
    edges = np.clip([-np.inf, *breaks, np.inf], max(0.0, 1 - spread), 1 + spread)
    half = np.diff(edges)[:, None] / 2  # [panels, 1]
    nodes, weights = _legendre()
    s = edges[:-1, None] + half * (nodes + 1)  # [panels, nodes]
    constant = math.log(2) + df / 2 * math.log(df / 2) - gammaln(df / 2)
    density = np.exp(constant + (df - 1) * np.log(np.maximum(s, 1e-300)) - df / 2 * s**2)
    return float((half * weights * share(s) * density).sum())


@lru_cache(maxsize=1)
def _legendre() -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on [-1, 1], more than enough for the smooth densities here."""
    return np.polynomial.legendre.leggauss(128)


def _least(enough: Callable[[float], bool]) -> float:
    """Return the smallest number above 0 that is enough, by doubling and bisection."""
    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class NoiseRange(NamedTuple):
    """Largest minus smallest of cells that differ by noise alone, percent."""

    lower: float
    """Exceeded with a probability of 95 %."""
    expected: float
    upper: float
    """Exceeded with a probability of 5 %."""


def range_of_noise(sd: float, k: int, *, df: int) -> NoiseRange:
    """Return the range (max - min) that k >= 1 equal cells span by independent normal noise.

    sd: percent, of one cell's value (for a mean over n seeds: SD / √n). df: its degrees of freedom,
    as it is estimated; few of them move the bounds apart. What a seed adds to all cells alike is
    not part of this noise. All cells are taken to be equally noisy. (studentised range)
    """
    if k == 1 or sd == 0:
        return NoiseRange(0.0, 0.0, 0.0)
    return NoiseRange(*(sd * value for value in _range_in_sds(k, df)))


@lru_cache(maxsize=64)
def _range_in_sds(k: int, df: int) -> NoiseRange:
    """Return the range for an SD of 1."""
    widths = np.linspace(0, WIDEST, 1601)
    within = _within(widths, k)

    def share(width: float) -> float:
        """Return P(range / estimated SD <= width)."""
        turn = WIDEST / width  # of the sample SD, beyond which the range is always within
        return over_sample_sds(lambda s: np.interp(width * s, widths, within), df, (turn,))

    lower, upper = _least(lambda w: share(w) > 1 - LEVEL), _least(lambda w: share(w) >= LEVEL)
    return NoiseRange(lower, float(np.trapezoid(1 - within, widths)), upper)


def _within(widths: FloatArray, k: int) -> FloatArray:
    """Return the probability that k standard normal values lie within each width: [W] -> [W].

    The integral over x of k φ(x) (Φ(x + width) - Φ(x))^(k - 1), where x is the smallest value.
    """
    from scipy.special import ndtr

    x, step = np.linspace(-9, 9, 361, retstep=True)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    inside = ndtr(x + widths[:, None]) - ndtr(x)  # [W, points]
    return np.minimum(k * step * (inside ** (k - 1) @ density), 1.0)
