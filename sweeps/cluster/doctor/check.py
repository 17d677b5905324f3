"""A check of `sweeps doctor`: what was found, its state and the remedy; as a table or as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

State = Literal["ok", "warning", "problem"]
STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """What to do; "" where nothing needs doing."""
    node: str = ""
    """The node it concerns; "" for this machine."""


def exit_code(checks: Iterable[Check]) -> int:
    """Return 1 if there is any problem; warnings do not count."""
    return int(any(check.state == "problem" for check in checks))


def to_json(checks: Iterable[Check]) -> str:
    """Return the checks as one line of JSON."""
    return json.dumps([asdict(check) for check in checks])


def from_json(text: str) -> list[Check]:
    """Read what `to_json` wrote."""
    return [Check(**check) for check in json.loads(text)]


def print_checks(console: Console, checks: list[Check]) -> None:
    """Print a row per check, and how many need attention."""
    table = Table()
    for heading in ("check", "state", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        name = f"{check.name} ({check.node})" if check.node else check.name
        state = Text(check.state, style=STYLES[check.state])
        table.add_row(Text(name), state, Text(check.found), Text(check.remedy))
    console.print(table)
    counts = {state: sum(check.state == state for check in checks) for state in STYLES}
    console.print(Text(", ".join(f"{count} {state}" for state, count in counts.items())))
