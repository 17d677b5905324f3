"""Seed noise: how far a mIoU moves with another training on the same images.

Every value here is the mIoU (percent) of one training, or the difference between two trainings with
the same seed. How far other images would move it is image noise, see `sweeps.evidence.images`; the
two are never added up or mixed.

Legend: S = n seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# scipy takes half a second to import, so that functions import it where they use it.

FloatArray = NDArray[np.float64]

ALPHA = 0.05
"""Significance level of all tests."""
LEVEL = 0.95
"""Probability of intervals, unless one says otherwise."""
ROUNDING = 1e-9
"""Percent mIoU: smaller differences and SDs are rounding errors of equal numbers."""


class Interval(NamedTuple):
    """An interval of a mean, percent; the function says which noise it covers."""

    low: float
    high: float


@dataclass(frozen=True)
class SeedDifferences:
    """Differences of two configurations trained with the same seeds (seed noise)."""

    seeds: tuple[int, ...]
    """The seeds both have, ascending."""
    values: tuple[float, ...]
    """[n] first minus second, percent mIoU, in the order of `seeds`."""
    mean: float | None
    """None without a common seed."""
    sd: float | None
    """Sample SD of the values; None for fewer than two seeds, like the next two."""
    interval: Interval | None
    """t interval of the mean."""
    p: float | None
    """Two-sided p of "the mean is 0", paired t-test, not adjusted for other comparisons."""

    @property
    def n(self) -> int:
        """Number of common seeds."""
        return len(self.values)

    @property
    def above(self) -> float | None:
        """Probability in [0, 1] that the mean over very many seeds is above 0; None as for `p`.

        From the t distribution, without a prior preference. Of equal configurations, one in ten is
        below .05 or above .95.
        """
        if self.p is None or self.mean is None:
            return None
        return 1 - self.p / 2 if self.mean > 0 else self.p / 2


def seed_interval(values: ArrayLike, *, level: float = LEVEL) -> Interval | None:
    """Return the t interval of the mean over seeds (seed noise); None for fewer than two.

    values: [S] percent. Equal values give an interval without width.
    """
    array = np.asarray(values, np.float64)
    return _t_interval(array, 1 / array.size, level) if array.size >= 2 else None


def prediction_interval(values: ArrayLike, num_new: int) -> Interval:
    """Return where the mean of `num_new` further trainings lies, with a probability of 95 %.

    values: [m] percent, m >= 2 trainings of one kind. mean ± t(m - 1) SD √(1/m + 1/n) for n new
    ones of the same kind, normal and independent (seed noise).
    """
    array = np.asarray(values, np.float64)
    return _t_interval(array, 1 / array.size + 1 / num_new, LEVEL)


def _t_interval(values: FloatArray, variances: float, level: float) -> Interval:
    """Return mean ± t SD √variances; variances: that of the error, in those of a value."""
    from scipy.special import stdtrit

    half = float(stdtrit(values.size - 1, (1 + level) / 2)) * _sd(values) * math.sqrt(variances)
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


def seed_differences(a: Mapping[int, float], b: Mapping[int, float]) -> SeedDifferences:
    """Return a minus b, paired by seed: mean, SD, 95 % t interval, p of the paired t-test.

    a, b: seed -> percent mIoU; a seed that only one of them has is left out. If all differences are
    equal, p is the t-test's limit: 1 if they are 0, else 0.
    """
    seeds = tuple(sorted(a.keys() & b.keys()))
    values = np.array([a[seed] - b[seed] for seed in seeds])
    p = None
    if values.size >= 2:
        p = 2 * _upper_tail(abs(float(values.mean())), values)
    return SeedDifferences(
        seeds,
        tuple(values.tolist()),
        float(values.mean()) if values.size else None,
        _sd(values) if values.size >= 2 else None,
        seed_interval(values),
        p,
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted for their number (Holm 1979), in the order given.

    None (no test was possible) stays None and does not count. The adjustment is valid however the
    tests depend on each other, e.g. through a common baseline.
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[at] = largest
    return adjusted


def tost(differences: ArrayLike, *, centre: float, margin: float) -> float | None:
    """Return the p of "the mean difference is not within centre ± margin" (two one-sided t-tests).

    differences: [n] paired by seed (seed noise); margin: above 0. A p below alpha shows equivalence
    to the centre. None for fewer than two seeds. (Schuirmann 1987)
    """
    array = np.asarray(differences, np.float64)
    if array.size < 2:
        return None
    return _upper_tail(margin - abs(float(array.mean()) - centre), array)


def _sd(values: FloatArray) -> float:
    sd = float(values.std(ddof=1))
    return sd if sd > ROUNDING else 0.0


def _upper_tail(distance: float, values: FloatArray) -> float:
    """Return P(T > distance / standard error) for n - 1 degrees of freedom; its limit for SD 0."""
    from scipy.special import stdtr

    sd = _sd(values)
    if sd == 0:
        return 0.5 if abs(distance) <= ROUNDING else float(distance < 0)
    return float(stdtr(values.size - 1, -distance / sd * math.sqrt(values.size)))


class TwoWayAnova(NamedTuple):
    """The p of each effect in a grid of cells, by F-tests over seeds (seed noise)."""

    rows: float
    columns: float
    interaction: float


def two_way_anova(grid: FloatArray) -> TwoWayAnova:
    """Return the analysis of variance of a rows x columns grid, repeated over seeds (seed noise).

    grid: [S, rows, cols] percent, balanced, at least two of each. Trainings that share seed and row
    are more alike than others, so each effect is tested against its own interaction with the seed
    (repeated measures). A seed may favour high rows, or some cells vary more than others: its
    degrees of freedom are reduced accordingly. (Greenhouse and Geisser 1959)
    """
    from scipy.special import fdtrc

    centred = grid - grid.mean()
    row = centred.mean((0, 2), keepdims=True)  # [1, rows, 1]
    column = centred.mean((0, 1), keepdims=True)  # [1, 1, cols]
    both = centred.mean(0, keepdims=True) - row - column  # [1, rows, cols]
    left = centred - centred.mean((1, 2), keepdims=True) - row - column - both
    left_row, left_column = left.mean(2, keepdims=True), left.mean(1, keepdims=True)
    num_seeds, *sides = grid.shape

    def p_of(deviation: FloatArray, error: FloatArray, df: int) -> float:
        """error: the effect's interaction with the seed, of (S - 1) df degrees of freedom."""
        if np.abs(error).max() <= ROUNDING:
            return float(np.abs(deviation).max() <= ROUNDING)
        products = error.reshape(num_seeds, -1) @ error.reshape(num_seeds, -1).T  # [S, S]
        f = num_seeds * (num_seeds - 1) * (deviation**2).sum() / products.trace()
        share = products.trace() ** 2 / (df * (products**2).sum())  # of the degrees of freedom
        return float(fdtrc(share * df, share * df * (num_seeds - 1), f))

    dfs = [side - 1 for side in sides]
    return TwoWayAnova(
        p_of(row, left_row, dfs[0]),
        p_of(column, left_column, dfs[1]),
        p_of(both, left - left_row - left_column, math.prod(dfs)),
    )
