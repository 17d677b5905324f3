"""The command `sweeps diff`."""

import dataclasses
import json
from typing import Annotated

import typer

from sweeps.cli.options import StoreOption, SweepName, opened
from wsss.errors import explained


def diff(
    a: Annotated[
        str, typer.Argument(help="a cell of the sweep, e.g. 'V[0.5,0.1]', or a run id", metavar="A")
    ],
    b: Annotated[str, typer.Argument(help="the same", metavar="B")],
    store: StoreOption = "results",
    sweep: SweepName = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Compare two cells or runs: settings, mIoU under the four measures, and classes.

    B - A is the mean over the finished seeds that both have, with an interval over images where
    each run has counts per image: at the fixed and at the best threshold. `sweeps status --trials`
    shows run ids; quote a cell, as a shell reads brackets.
    """
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep
    from sweeps.report.diff import compare, find_trials, print_difference

    with explained():
        results = opened(store)
        asked = sweep is not None or results.sweep_names()
        found = load_sweep(results, sweep) if asked else None
        sides = [(name, find_trials(results, found, name)) for name in (a, b)]
        difference = compare(results, *sides)
        if as_json:
            print(json.dumps(dataclasses.asdict(difference)))
        else:
            print_difference(Console(), difference)
