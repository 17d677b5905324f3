"""A check of `sweeps doctor`: what was found, its state and the remedy; as a table or as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console

from sweeps.report.document import Badge, BadgeTone, Column, Grid, Row, Text, in_one_group
from sweeps.report.formats.terminal import print_blocks
from wsss.basics.errors import ForeseenError
from wsss.basics.printable import counted

State = Literal["ok", "warning", "problem"]
TONES: dict[State, BadgeTone] = {"ok": "good", "warning": "fair", "problem": "bad"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """What to do unless it is ok."""
    node: str = ""
    """The node it concerns; "" for this machine."""

    @property
    def advice(self) -> str:
        """The remedy; "" where nothing needs doing."""
        return "" if self.state == "ok" else self.remedy

    @classmethod
    def of(cls, error: ForeseenError, name: str) -> "Check":
        """Return the problem that an error tells of; its message ends with the remedy."""
        found, _, remedy = str(error).partition("; ")
        return cls(name, "problem", found, remedy)


def to_json(checks: Iterable[Check]) -> str:
    """Return the checks as one line of JSON."""
    return json.dumps([asdict(check) | {"remedy": check.advice} for check in checks])


def from_json(text: str) -> list[Check]:
    """Read what `to_json` wrote."""
    return [Check(**check) for check in json.loads(text)]


def print_checks(console: Console, checks: list[Check]) -> None:
    """Print a row per check, and how many need attention."""
    rows = []
    for check in checks:
        name = f"{check.name} ({check.node})" if check.node else check.name
        said = "\n".join(filter(None, (check.found, check.advice)))
        rows.append(Row((name,), (Badge(check.state, TONES[check.state]), said)))
    columns = tuple(
        Column(head, align="left", wraps=True) for head in ("state", "found, and the remedy")
    )
    found = {state: sum(check.state == state for check in checks) for state in TONES}
    warnings, problems = counted(found["warning"], "warning"), counted(found["problem"], "problem")
    grid = Grid("checks", ("check",), columns, in_one_group(rows))
    print_blocks(console, (grid, Text(f"{found['ok']} ok, {warnings}, {problems}")))
