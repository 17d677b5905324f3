"""`sweeps list`: a line for each sweep, search and headline of a store."""

import dataclasses
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.plan.contents import Entry
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.words import number
from wsss.printable import printable

HEADS = ("name", "data", "preset", "done", "best", "mIoU", "age")
LEGEND = (
    "mIoU in %: of a sweep, its best cell at the fixed background score, mean over seeds; of a "
    "search, the objective of its best trial; of a headline, its best segmentation network"
)


def as_json(entry: Entry) -> dict[str, object]:
    """Return what a script wants to know of an entry."""
    known = dataclasses.asdict(entry)
    del known["trainings"], known["scores"]
    return known | {"age_seconds": round(_age(entry))}


def _age(entry: Entry) -> float:
    """Return how many seconds ago an entry was changed; 0 where the clock has gone back since."""
    return max(0.0, time.time() - entry.changed)


def print_entries(console: Console, entries: Sequence[Entry]) -> None:
    """Print the entries in this order; no name is broken, so that it can be copied."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in HEADS:
        grid.add_column(head, no_wrap=head == "name", overflow="fold")
    for entry in entries:
        grid.add_row(*map(Text, _line(entry)))
    console.print(grid)
    console.print(Text(f"\n{LEGEND}", style="dim"))
    for entry in entries:
        if entry.problem:
            console.print(Text(printable(entry.problem), style="red"), soft_wrap=True)


def _line(entry: Entry) -> tuple[str, ...]:
    name = entry.name if entry.kind == "sweep" else entry.title
    age = format_seconds(_age(entry))
    if entry.problem:
        return printable(name), "", "", "unreadable", "", "", age
    recipe = "" if entry.recipe in ("", "default") else f" {entry.recipe}"
    done = f"{entry.done}" if entry.total is None else f"{entry.done}/{entry.total}"
    return (
        printable(name),
        entry.data,
        f"{entry.preset}{recipe}",
        done,
        entry.best,
        number(entry.best_miou),
        age,
    )
