"""`sweeps list`: the name of each sweep, search and headline of a store, and how far it is."""

import dataclasses
import time
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sweeps.plan.contents import Entry
from sweeps.report.formats.terminal import as_rich
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.words import number

LEGEND = (
    "best, mIoU in %: of a sweep, its best cell at the fixed background score, mean over seeds; "
    "of a search, the objective of its best trial; of a headline, its best segmentation network"
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
    """Print the entries in this order; a name has a line of its own, so that it can be copied."""
    for entry in entries:
        name = entry.name if entry.kind == "sweep" else entry.title
        console.print(as_rich(name, "bold"), soft_wrap=True)
        console.print(Padding(_state(entry), (0, 0, 0, 2)))
    console.print(as_rich(f"\n{LEGEND}", "dim"))


def _state(entry: Entry) -> Text:
    """Return how far an entry is, its best, what it is about and how old it is."""
    age = f"{format_seconds(_age(entry))} ago"
    if entry.problem:
        return as_rich(f"unreadable: {entry.problem}; {age}", "red")
    recipe = "" if entry.recipe in ("", "default") else f" {entry.recipe}"
    done = f"{entry.done}" if entry.total is None else f"{entry.done}/{entry.total}"
    best = f", best {entry.best} {number(entry.best_miou)}" if entry.best else ""
    return as_rich(f"{done} done{best}; {entry.data}, {entry.preset}{recipe}; {age}")
