"""Two-way analysis of variance of a grid of cells, seeds as blocks (seed noise, percent mIoU)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sweeps.evidence.seeds import ROUNDING, FloatArray


class Effect(NamedTuple):
    """One line of an analysis of variance."""

    sum_of_squares: float
    df: int
    f: float
    """Mean square over the residual one; infinite if only the residual is 0."""
    p: float
    eta_squared: float
    """Share of the total sum of squares, in [0, 1]; 0 if all values are equal."""


@dataclass(frozen=True)
class TwoWayAnova:
    """Variance of a grid of cells by rows, columns and seeds (seed noise as the residual)."""

    rows: Effect
    columns: Effect
    interaction: Effect | None
    """None for one seed: it cannot be told from noise, and serves as the residual."""
    seed: Effect | None
    """Seeds as a block: what a seed adds to all cells alike. None for one seed."""
    residual_sum_of_squares: float
    residual_df: int


def two_way_anova(values: ArrayLike) -> TwoWayAnova:
    """Return the analysis of variance of a rows x columns grid, seeds as blocks (seed noise).

    values: [S, rows, cols] percent, balanced, at least two rows and two columns. With S = 1 the
    model is additive, and p is too large where rows and columns interact. Raises ValueError for a
    missing cell (NaN). (fixed effects, randomised complete blocks)
    """
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 3 or grid.shape[0] < 1 or min(grid.shape[1:]) < 2:
        raise ValueError(f"values of shape {grid.shape}; give [seeds, >= 2 rows, >= 2 columns]")
    for seed, row, column in np.argwhere(~np.isfinite(grid)):
        raise ValueError(
            f"seed {seed}, row {row}, column {column} (counted from 0) is missing; the analysis "
            "needs each cell with each seed: train it, or leave out its seed, row or column"
        )
    num_seeds, num_rows, num_columns = grid.shape
    mean = grid.mean()
    row = grid.mean((0, 2), keepdims=True) - mean  # [1, rows, 1]
    column = grid.mean((0, 1), keepdims=True) - mean  # [1, 1, cols]
    both = grid.mean(0, keepdims=True) - mean - row - column  # [1, rows, cols]
    block = grid.mean((1, 2), keepdims=True) - mean  # [S, 1, 1]
    interaction_df = (num_rows - 1) * (num_columns - 1)
    if num_seeds == 1:
        residual, residual_df = both, interaction_df
    else:
        residual = grid - mean - row - column - both - block
        residual_df = (num_seeds - 1) * (num_rows * num_columns - 1)
    residual_ss = _sum_of_squares(residual, grid.shape)
    total_ss = _sum_of_squares(grid - mean, grid.shape)

    def effect(deviation: FloatArray, df: int) -> Effect:
        ss = _sum_of_squares(deviation, grid.shape)
        return _effect(ss, df, residual_ss, residual_df, total_ss)

    return TwoWayAnova(
        effect(row, num_rows - 1),
        effect(column, num_columns - 1),
        effect(both, interaction_df) if num_seeds > 1 else None,
        effect(block, num_seeds - 1) if num_seeds > 1 else None,
        residual_ss,
        residual_df,
    )


def _sum_of_squares(deviation: FloatArray, shape: tuple[int, ...]) -> float:
    """Sum over all values of a grid; 0 if it is rounding error of equal numbers."""
    deviation = np.broadcast_to(deviation, shape)
    return float((deviation**2).sum()) if np.abs(deviation).max() > ROUNDING else 0.0


def _effect(ss: float, df: int, residual_ss: float, residual_df: int, total_ss: float) -> Effect:
    from scipy.special import fdtrc

    eta_squared = ss / total_ss if total_ss > 0 else 0.0
    if residual_ss == 0:
        return Effect(ss, df, math.inf if ss > 0 else 0.0, float(ss == 0), eta_squared)
    f = ss / df / (residual_ss / residual_df)
    return Effect(ss, df, f, float(fdtrc(df, residual_df, f)), eta_squared)
