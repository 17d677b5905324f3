"""Tables from outside the project: from a file, or from a grid on the command line.

A sweep keeps their definitions in the format of such a file, for everything that reads the sweep
later. docs/tables.md shows a file.
"""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from sweeps.tables.studies import ALIASES, F3, TABLES
from sweeps.tables.table import Cell, Row, Table
from wsss.basics.printable import as_word, counted, one_line, quoted
from wsss.basics.strict import Percent, Strict, first_problem
from wsss.overrides import ConfigError, parse_assignments, read_tree

MAX_CELLS = 1000
SWEEP_KEY = "own_tables"
"""In a sweep.json: the sweep's tables from outside the project."""
EXAMPLE = "docs/tables.md shows a table file"


def _as_label(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value) if isinstance(value, int | float) else value
    if isinstance(text, str) and text != one_line(text):
        raise ValueError("a label is one line without control characters")
    return text


def _as_columns(value: Any) -> Any:
    if not isinstance(value, list | tuple | dict):
        return value
    labels = [_as_label(label) for label in value]
    if len(set(labels)) < len(labels):
        raise ValueError("a column is named twice; give each a label of its own")
    changes = value.values() if isinstance(value, dict) else itertools.repeat({})
    return dict(zip(labels, changes, strict=False))


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | float) else value


Label = Annotated[str, Field(min_length=1, max_length=80), BeforeValidator(_as_label)]
Note = Annotated[str, Field(min_length=1, max_length=400), BeforeValidator(_as_label)]
Changes = dict[str, Any]
"""Dotted settings -> values."""
Columns = Annotated[dict[Label, Changes], Field(min_length=1), BeforeValidator(_as_columns)]


class _CellDefinition(Strict):
    settings: Changes = Field(default_factory=dict)
    paper: Percent | None = None


class _RowDefinition(Strict):
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]
    settings: Changes = Field(default_factory=dict)
    paper: Annotated[tuple[Percent | None, ...] | None, BeforeValidator(_as_list)] = None
    """A number or null per column."""
    cells: tuple[_CellDefinition, ...] | None = None
    """One per column, for what is set by neither the row nor the column."""


class _TableDefinition(Strict):
    """A table file. A cell combines the settings of the table, its row, its column and its own."""

    name: Annotated[str, Field(max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: Note
    row_names: Annotated[tuple[Label, ...], Field(min_length=1)]
    rows: Annotated[tuple[_RowDefinition, ...], Field(min_length=1)]
    column_name: Label = "mIoU"
    columns: Columns = Field(default_factory=lambda: dict[str, Changes](mIoU={}))
    settings: Changes = Field(default_factory=dict)
    baseline: str = ""
    """Labels of a cell, or of a row, joined by commas, as `0.5,0.5` or `V[0.5,0.5]`."""
    notes: tuple[Note, ...] = ()

    def table(self, source: str) -> Table:
        """Return the table, as a message names it by `source`.

        Raises ValueError if its parts do not fit together.
        """
        if self.name in TABLES or self.name in ALIASES:
            raise ValueError(f"name: {self.name} is a table of the project; choose another")
        if (num_cells := len(self.rows) * len(self.columns)) > MAX_CELLS:
            raise ValueError(f"{num_cells:,} cells; divide it into tables of {MAX_CELLS:,}")
        inside = f"{self.name}[{self.baseline}]"
        named = self.baseline.startswith(f"{self.name}[") or not self.baseline
        return Table(
            name=self.name,
            title=self.title,
            row_names=self.row_names,
            column_name=self.column_name,
            columns=tuple(self.columns),
            rows=tuple(Row(row.labels, tuple(self._cells(row))) for row in self.rows),
            notes=self.notes,
            baseline=self.baseline if named else inside,
            source=source,
        )

    def _cells(self, row: _RowDefinition) -> list[Cell]:
        cells = row.cells or tuple(_CellDefinition() for _ in self.columns)
        printed = row.paper or tuple(cell.paper for cell in cells)
        if not len(cells) == len(printed) == len(self.columns):
            raise ValueError(
                f"row {', '.join(row.labels)}: {counted(len(cells), 'cell')} and "
                f"{counted(len(printed), 'paper number')} for "
                f"{counted(len(self.columns), 'column')}; give one of each per column"
            )
        columns = zip(self.columns.values(), cells, printed, strict=True)
        return [
            Cell(_allowed(self.settings | row.settings | column | cell.settings), paper)
            for column, cell, paper in columns
        ]


def read_tables(path: Path) -> tuple[Table, ...]:
    """Return the table of a YAML or JSON file, or the own tables of a sweep.json.

    Raises ConfigError, which names the file and the field.
    """
    tree = read_tree(path, example="'name: my-table'")
    if isinstance(tree, Mapping) and SWEEP_KEY in tree:
        return define_tables(tree[SWEEP_KEY], str(path))
    return define_tables([tree], str(path))


def define_tables(definitions: Any, where: str) -> tuple[Table, ...]:
    """Return the tables that are defined. Raises ConfigError, which names `where`."""
    if not isinstance(definitions, list):
        raise ConfigError(f"{where}: {SWEEP_KEY} must be a list of tables; {EXAMPLE}")
    try:
        return tuple(_TableDefinition.model_validate(one).table(where) for one in definitions)
    except ValidationError as error:
        raise ConfigError(f"{where}: {first_problem(error)}; {EXAMPLE}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {one_line(str(error))}") from None


def definition(table: Table) -> dict[str, Any]:
    """Return a table as JSON, as `define_tables` reads it."""
    rows = [
        {
            "labels": list(row.labels),
            "cells": [{"settings": dict(c.overrides), "paper": c.paper} for c in row.cells],
        }
        for row in table.rows
    ]
    return {
        "name": table.name,
        "title": table.title,
        "row_names": list(table.row_names),
        "column_name": table.column_name,
        "columns": list(table.columns),
        "rows": rows,
        "baseline": table.baseline,
        "notes": list(table.notes),
    }


def _allowed(settings: Changes) -> Changes:
    """Return a cell's settings unchanged. Raises ValueError for one that a table cannot vary."""
    for key in settings:
        if key == "rng_seed":
            raise ValueError(
                "rng_seed: the seeds of a table are 0, 1, ...; give their number with "
                "--seeds instead"
            )
        if key.startswith("data."):
            raise ValueError(
                f"{quoted(key)}: a sweep has one data set; give it with --data, and "
                "its splits with --set"
            )
    return settings


GRID_NOTE = (
    "All cells have the full module and both views (as III[yes,yes]), except for what the grid or "
    "--set says otherwise."
)
GRID_EXAMPLE = "write it as transfer.lambda_s=.1,.5"


def parse_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """Return setting -> values of `setting=value,value,...` words. Raises ConfigError."""
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, separator, values = word.partition("=")
        key = key.strip()
        if not separator or not values.strip(", "):
            raise ConfigError(f"--grid {quoted(word)} names no values; {GRID_EXAMPLE}")
        if key in axes:
            raise ConfigError(
                f"--grid gives {quoted(key)} twice; put all its values into one --grid"
            )
        axes[key] = parse_assignments([f"{key}=[{values}]"], option="--grid")[key]
        if len({*map(as_word, axes[key])}) < len(axes[key]):
            raise ConfigError(f"--grid {quoted(word)} gives a value twice; give it once")
    return axes


def grid_table(axes: dict[str, list[Any]], asked: Collection[str]) -> Table:
    """Return the table of all combinations: two axes as rows and columns, else a row for each.

    axes: setting -> values. asked: the settings that the user set for all cells.
    Raises ConfigError.
    """
    common = {key: v for key, v in F3.items() if key not in asked and key not in axes}
    names = _short_names(axes)
    num_cells = math.prod(len(values) for values in axes.values())
    if num_cells > MAX_CELLS:
        raise ConfigError(f"--grid: {num_cells:,} cells; at most {MAX_CELLS:,}, give fewer values")
    row_keys, last = list(axes), list(axes)[-1]
    across: dict[str, Any] = {}
    if len(axes) == 2:
        row_keys.remove(last)
        columns = {as_word(value): {last: value} for value in axes[last]}
        across = {"column_name": names[last], "columns": columns}
    rows = [
        {
            "labels": [as_word(v) for v in values],
            "settings": dict(zip(row_keys, values, strict=True)),
        }
        for values in itertools.product(*(axes[key] for key in row_keys))
    ]
    table = {
        "name": f"grid-{'-'.join(names.values())}"[:60].rstrip("-._"),
        "title": f"Grid of {' and '.join(axes)}"[:400],
        "row_names": [names[key] for key in row_keys],
        "rows": rows,
        "settings": common,
        "notes": [GRID_NOTE] if common else [],
    }
    return define_tables([table | across], "--grid")[0]


def _short_names(axes: Collection[str]) -> dict[str, str]:
    """Return setting -> its name, without the section unless two would be equal."""
    short = [key.rpartition(".")[2] for key in axes]
    return {
        key: name if short.count(name) == 1 else key for key, name in zip(axes, short, strict=True)
    }
