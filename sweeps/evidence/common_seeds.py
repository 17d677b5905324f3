"""A table's mIoU over the seeds that all of its cells have, and the seed noise in it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sweeps.evidence.power import NoiseRange, range_of_noise
from sweeps.evidence.seeds import FloatArray, two_way_anova
from sweeps.tables.table import Table
from wsss.basics.printable import counted


class Noise(NamedTuple):
    """Spread of one training, percent, as estimated with some degrees of freedom."""

    sd: float
    df: int


@dataclass(frozen=True, eq=False)
class CommonSeeds:
    """The mIoU of a table's distinct cells over the seeds that all of them have."""

    table: Table
    values: FloatArray
    """[S, rows, columns] percent; [S, cells, 1] if some cells share their trials."""
    some_have_more: bool = False
    """Whether some cells have other seeds, too, so that their means differ from those here."""

    @classmethod
    def of(cls, table: Table, cells: Mapping[str, Mapping[int, float]]) -> "CommonSeeds | None":
        """Return those of distinct cells (seed -> percent); None without a common seed."""
        seeds = sorted(set.intersection(*map(set, cells.values())))
        if not seeds:
            return None
        values = np.array([[cell[seed] for cell in cells.values()] for seed in seeds])
        rows, columns = len(table.rows), len(table.columns)
        shape = (rows, columns) if len(cells) == rows * columns else (len(cells), 1)
        more = any(len(cell) > len(seeds) for cell in cells.values())
        return cls(table, values.reshape(len(seeds), *shape), more)

    @property
    def num_seeds(self) -> int:
        """S."""
        return len(self.values)

    @property
    def means(self) -> FloatArray:
        """[cells] mean over seeds."""
        return self.values.mean(0).ravel()

    @property
    def name(self) -> str:
        """`3 seeds`, or that all cells have these if some have more."""
        seeds = counted(self.num_seeds, "seed")
        return f"the {seeds} that all cells have" if self.some_have_more else seeds

    @cached_property
    def effects(self) -> dict[str, float]:
        """The p of rows, columns and their interaction, by name.

        Empty for one seed, row or column, or if cells share their trials.
        """
        if min(self.values.shape) < 2:
            return {}
        names = " with ".join(self.table.row_names), self.table.column_name, "their interaction"
        return dict(zip(names, two_way_anova(self.values), strict=True))

    def residual(self) -> Noise:
        """Return the noise of one training among those of its seed, for two seeds and cells.

        What a seed adds to all cells alike does not change their differences, and is left out.
        """
        grid = self.values.reshape(self.num_seeds, -1)  # [S, cells]
        left = grid - grid.mean(0) - grid.mean(1, keepdims=True) + grid.mean()
        df = (grid.shape[0] - 1) * (grid.shape[1] - 1)
        return Noise(float(np.sqrt((left**2).sum() / df)), df)

    def span_by_chance(self, noise: Noise | None = None) -> NoiseRange:
        """Return how far as many cells without any effect span. noise: default, the residual."""
        sd, df = noise or self.residual()
        return range_of_noise(sd / math.sqrt(self.num_seeds), self.means.size, df=df)
