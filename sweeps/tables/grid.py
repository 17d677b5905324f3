"""A table from the command line: every combination of some values of some settings."""

import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

from sweeps.tables.own import MAX_CELLS, define_tables
from sweeps.tables.studies import F3
from sweeps.tables.table import Table
from wsss.overrides import ConfigError, parse_assignments
from wsss.printable import as_word, quoted

NOTE = (
    "All cells have the full module and both views (as III[yes,yes]), except for what the grid or "
    "--set says otherwise."
)
EXAMPLE = "write it as transfer.lambda_s=.1,.5"


def parse_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """Return setting -> values of `setting=value,value,...` words. Raises ConfigError."""
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, separator, values = word.partition("=")
        key = key.strip()
        if not separator or not values.strip(", "):
            raise ConfigError(f"--grid {quoted(word)} names no values; {EXAMPLE}")
        if key in axes:
            raise ConfigError(f"--grid gives {quoted(key)} twice; put all its values into one")
        axes[key] = parse_assignments([f"{key}=[{values}]"], option="--grid")[key]
        labels = [as_word(value) for value in axes[key]]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"--grid {quoted(word)} gives {label} twice; give it once")
    return axes


def grid_table(axes: dict[str, list[Any]], asked: Collection[str]) -> Table:
    """Return the table of all combinations: two axes as rows and columns, else a row for each.

    axes: setting -> values. asked: the settings that the user has set for all cells. Raises
    ConfigError.
    """
    common = {key: v for key, v in F3.items() if key not in asked and key not in axes}
    names = _short_names(axes)
    as_matrix = len(axes) == 2
    num_cells = math.prod(len(values) for values in axes.values())
    if num_cells > MAX_CELLS:
        raise ConfigError(f"--grid: {num_cells:,} cells; at most {MAX_CELLS:,}, give fewer values")
    *row_keys, last = axes
    if not as_matrix:
        row_keys.append(last)
    columns = {as_word(v): {last: v} for v in axes[last]} if as_matrix else {"mIoU": {}}
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
        "column_name": names[last] if as_matrix else "mIoU",
        "columns": columns, "rows": rows, "settings": common,
        "notes": [NOTE] if common else [],
    }  # fmt: skip
    return define_tables([table], "--grid")[0]


def _short_names(axes: Collection[str]) -> dict[str, str]:
    """Return setting -> its name without the section, unless another has the same."""
    short = [key.rpartition(".")[2] for key in axes]
    return {
        key: name if short.count(name) == 1 else key for key, name in zip(axes, short, strict=True)
    }
