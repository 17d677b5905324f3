"""A paper's table as data: each cell's configuration, and the number that the paper printed."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_SEEDS = 1000
"""Trainings per configuration; more are a slip."""


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    overrides: Mapping[str, Any]
    """Dotted settings on top of the preset, e.g. {"transfer.lambda_s": 0.1}."""
    paper: float | None
    """mIoU in percent as printed in the paper; None if the paper lacks the cell."""
    seeds: tuple[int, ...] | None = None
    """Run it with these of the sweep's seeds only; None: with all."""

    def wants(self, rng_seed: int) -> bool:
        """Whether to run the cell with this seed."""
        return self.seeds is None or rng_seed in self.seeds


@dataclass(frozen=True)
class Row:
    """One line of a table: its labels, then its cells from left to right."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table as printed: row labels on the left, one cell per column."""

    name: str
    """Short name on the command line and in cell references, e.g. "V"."""
    title: str
    row_names: tuple[str, ...]
    """What each row label is, e.g. ("lambda_s",)."""
    rows: tuple[Row, ...]
    column_name: str = "mIoU"
    """What the columns are, e.g. "lambda_bs"; "mIoU" for a table with one column of numbers."""
    columns: tuple[str, ...] = ("mIoU",)
    notes: tuple[str, ...] = ()
    baseline: str = ""
    """Reference of the cell that the others are compared with, e.g. "V[0.5,0.5]"; default: the
    first. Or that of a row, e.g. "recipes[no,no]": each column has its own baseline there."""
    source: str = field(default="", compare=False)
    """The file or option that defines a table from outside the project, for messages."""

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise ValueError(f"table {self.name} has no cells; give it rows and columns")
        for row in self.rows:
            if len(row.cells) != len(self.columns) or len(row.labels) != len(self.row_names):
                raise ValueError(
                    f"table {self.name}, row {row.labels}: {len(row.labels)} labels and "
                    f"{len(row.cells)} cells, expected {len(self.row_names)} and "
                    f"{len(self.columns)}"
                )
        references = [reference for reference, _ in self.cells()]
        twice = next((name for name, count in Counter(references).items() if count > 1), None)
        if twice:
            raise ValueError(f"two cells are called {twice}; give rows and columns unique labels")
        if not self.baseline:
            object.__setattr__(self, "baseline", references[0])
        elif self.baseline not in references and self._baseline_row is None:
            raise ValueError(
                f"table {self.name}: baseline {self.baseline} is not one of its cells or rows"
            )

    def cells(self) -> Iterator[tuple[str, Cell]]:
        """Yield (reference, cell) row by row, e.g. ("V[0.1,0.5]", cell)."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                yield self.reference(row, column), cell

    @property
    def _baseline_row(self) -> Row | None:
        rows = {f"{self.name}[{','.join(row.labels)}]": row for row in self.rows}
        return rows.get(self.baseline)

    def baselines(self) -> dict[str, str]:
        """Return the reference of each cell -> that of the cell it is compared with."""
        row = self._baseline_row
        if row is None:
            return {reference: self.baseline for reference, _ in self.cells()}
        return {
            self.reference(each, column): self.reference(row, column)
            for each in self.rows
            for column in self.columns
        }

    @property
    def baseline_name(self) -> str:
        """The baseline for a person: a cell, or a row with one for each column."""
        if len(set(self.baselines().values())) == 1:
            return self.baseline
        return f"{self.baseline} of the same {self.column_name}"

    def cell_labels(self) -> dict[str, tuple[str, ...]]:
        """Return the reference of each cell -> its labels."""
        return {
            self.reference(row, column): self.labels(row, column)
            for row in self.rows
            for column in self.columns
        }

    def labels(self, row: Row, column: str) -> tuple[str, ...]:
        """Return a cell's labels: the row's, and the column's unless there is only one."""
        return row.labels if len(self.columns) == 1 else (*row.labels, column)

    def reference(self, row: Row, column: str) -> str:
        """Return a cell's name, unique within the table."""
        return f"{self.name}[{','.join(self.labels(row, column))}]"
