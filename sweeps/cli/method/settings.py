"""The command `wsss settings`: what can be set, and what it means."""

import dataclasses
import json
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import AllAsJson
from sweeps.report.document import Column, Grid, Row, in_one_group
from wsss.basics.printable import as_word

if TYPE_CHECKING:
    from wsss.settings_list import Setting


def settings(
    name: Annotated[
        str | None,
        typer.Argument(
            help="a section, e.g. transfer, or a setting, e.g. transfer.lambda_s; default: all"
        ),
    ] = None,
    as_json: AllAsJson = False,
) -> None:
    """Show the meaning, range and default of each setting, and what changes it.

    Change one with --set: wsss train-cam --set train.lr=0.01.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from sweeps.report.formats.terminal import print_blocks
    from wsss.settings_list import find_settings, sections

    found, about, console = find_settings(name), sections(), Console()
    if as_json:
        print(json.dumps([dataclasses.asdict(setting) for setting in found]))
        return
    for section, members in groupby(found, lambda setting: setting.name.rpartition(".")[0]):
        title = f"{section}: {about[section]}" if section else "In no section"
        console.print(Text(title, style="bold"))
        if name is None:
            print_blocks(console, [_grid(list(members))])
            continue
        for setting in members:
            changes = f"; {_changes(setting)}" if _changes(setting) else ""
            console.print(Text(f"{setting.name} = {as_word(setting.default)}{changes}"))
            lines = [setting.meaning, f"{setting.range}{'; open' if setting.is_open else ''}"]
            text = Text("\n".join(filter(None, lines)), style="dim")
            console.print(Padding(text, (0, 0, 0, 4)))
        console.print()
    if name is None:
        console.print(Text("`wsss settings NAME` says more about one."))
    elif any(setting.is_open for setting in found):
        console.print(Text("open: the paper leaves it open."))


def _grid(members: "list[Setting]") -> Grid:
    rows = [Row((s.name,), (as_word(s.default), s.range, _changes(s))) for s in members]
    columns = tuple(Column(name, align="left") for name in ("default", "range", "changed by"))
    return Grid("settings", ("setting",), columns, in_one_group(rows))


def _changes(setting: "Setting") -> str:
    """Return which presets and recipes change a setting, with their values."""
    return ", ".join(f"{name} {as_word(value)}" for name, value in setting.changes.items())
