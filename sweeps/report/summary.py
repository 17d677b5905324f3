"""What a table shows, in one sentence: its span against the noise of seeds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sweeps.evidence.seeds import holm, range_of_noise, two_way_anova
from sweeps.report.words import counted, listed, number, p_value
from sweeps.tables.table import Table

ALPHA = 0.05


def table_summary(
    table: Table,
    values: NDArray[np.float64],
    pooled: tuple[float, int] | None,
    differing: Sequence[str],
) -> str:
    """Return in one sentence whether the cells of a table differ by more than seeds do.

    values: [S, rows, columns] mIoU in percent, over the seeds which all cells have. pooled: SD of
    one training over seeds and its degrees of freedom; None: no cell has two seeds. differing:
    cells shown to differ from the baseline. In a grid measured with two seeds or more, the factors
    are judged by its analysis of variance, Holm's correction over its effects; else, and where no
    factor shows, the span is, by the range of noise (studentised range).
    """
    means = values.mean(0).ravel()  # [cells]
    span = float(np.ptp(means))
    if pooled is None:
        return (
            f"Seed noise is unknown, as no cell has two seeds: that the {means.size} cells span "
            f"{number(span)} mIoU may be chance; run more seeds, e.g. with SEEDS=3."
        )
    in_sds = f", {span / pooled[0]:.1f} SD of one training" if pooled[0] > 0 else ""
    sd, df = _residual(values) if len(values) > 1 else pooled
    noise = range_of_noise(sd / np.sqrt(len(values)), means.size, df=df)
    start = (
        f"The {means.size} cells span {number(span)} mIoU over {counted(len(values), 'seed')}"
        f"{in_sds}; without any effect they would span {number(noise.expected)} on average and up "
        f"to {number(noise.upper)} (95 %)"
    )
    is_grid = len(values) > 1 and min(values.shape[1:]) > 1
    if is_grid and (effects := _effects(table, values)):
        return f"{start}: {listed(effects)}."
    if span > noise.upper:
        return f"{start}: the cells differ by more than seeds do."
    if differing:
        return (
            f"{start}: within noise as a whole, but {listed(differing)} differs from the baseline."
        )
    names = (*table.row_names, table.column_name) if is_grid else ("cell",)
    return f"{start}: no {' or '.join(names)} can be told from another here."


def _effects(table: Table, values: NDArray[np.float64]) -> list[str]:
    """Return `name matters (Holm p ...)` of each factor, and of their interaction, that does."""
    anova = two_way_anova(values)
    found = {" with ".join(table.row_names): anova.rows, table.column_name: anova.columns}
    if anova.interaction:
        found["their interaction"] = anova.interaction
    adjusted = holm([effect.p for effect in found.values()])
    return [
        f"{name} matters (Holm p {p_value(p)})"
        for name, p in zip(found, adjusted, strict=True)
        if p is not None and p < ALPHA
    ]


def _residual(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return the SD of one training, seeds taken out as blocks, and its degrees of freedom.

    values: [S, ...] percent, S >= 2. What a seed adds to all cells alike moves no span.
    """
    grid = values.reshape(len(values), -1)  # [S, cells]
    left = grid - grid.mean(0) - grid.mean(1, keepdims=True) + grid.mean()
    df = (grid.shape[0] - 1) * (grid.shape[1] - 1)
    return float(np.sqrt((left**2).sum() / df)), df
