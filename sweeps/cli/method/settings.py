"""The command `wsss settings`: what can be set, and what it means."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import AllAsJson
from wsss.basics.printable import as_word

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.report.document import Grid
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

    from wsss.settings_list import find_settings

    found = find_settings(name)
    if as_json:
        print(json.dumps([dataclasses.asdict(setting) for setting in found]))
    elif len(found) == 1:
        _print_one(Console(), found[0])
    else:
        _print_sections(Console(), found, with_meaning=name is not None)


def _print_one(console: "Console", setting: "Setting") -> None:
    from rich.table import Table
    from rich.text import Text

    from wsss.settings_list import sections

    section = setting.name.rpartition(".")[0]
    facts = [("meaning", setting.meaning or "as its name says")]
    facts += [("section", sections()[section])] if section else []
    facts += [("the paper", "leaves it open")] if setting.is_open else []
    facts += [("range", setting.range), ("default", as_word(setting.default))]
    facts += [(f"preset {name}", as_word(value)) for name, value in setting.presets.items()]
    facts += [(f"recipe {name}", as_word(value)) for name, value in setting.recipes.items()]
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for fact in facts:
        grid.add_row(*map(Text, fact))
    console.print(Text(setting.name, style="bold"), grid, sep="\n")


def _print_sections(console: "Console", found: "list[Setting]", *, with_meaning: bool) -> None:
    """Print settings by section: a line each, with their meaning if asked for."""
    from rich.padding import Padding
    from rich.text import Text

    from sweeps.report.formats.terminal import print_blocks
    from wsss.settings_list import sections

    about = sections()
    by_section: dict[str, list[Setting]] = {}
    for setting in found:
        by_section.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    for section, members in by_section.items():
        title = f"{section}: {about[section]}" if section else "In no section"
        console.print(Text(title, style="bold"))
        if not with_meaning:
            print_blocks(console, [_grid(members)])
            continue
        for setting in members:
            changes = f"; {_changes(setting)}" if _changes(setting) else ""
            console.print(Text(f"{setting.name} = {as_word(setting.default)}{changes}"))
            lines = [setting.meaning, f"{setting.range}{'; open' if setting.is_open else ''}"]
            text = Text("\n".join(filter(None, lines)), style="dim")
            console.print(Padding(text, (0, 0, 0, 4)))
        console.print()
    console.print(Text("open: the paper leaves it open. `wsss settings NAME` says more about one."))


def _grid(members: "list[Setting]") -> "Grid":
    from sweeps.report.document import Column, Grid, Row, in_one_group

    rows = [Row((s.name,), (as_word(s.default), s.range, _changes(s))) for s in members]
    columns = tuple(Column(name, align="left") for name in ("default", "range", "changed by"))
    return Grid("settings", ("setting",), columns, in_one_group(rows))


def _changes(setting: "Setting") -> str:
    """Return which presets and recipes change a setting, with their values."""
    changed = {**setting.changed, **{f"recipe {n}": v for n, v in setting.recipes.items()}}
    return ", ".join(f"{name} {as_word(value)}" for name, value in changed.items())
