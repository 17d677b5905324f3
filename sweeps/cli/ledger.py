"""The command `sweeps ledger`."""

import json
from typing import Annotated

import typer

from sweeps.cli.options import StoreOption, SweepName, opened
from wsss.errors import explained


def ledger(
    store: StoreOption = "results",
    sweep: SweepName = None,
    as_json_: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """Show what a sweep's trials have cost: useful, repeated and lost GPU-hours."""
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep
    from sweeps.report.live.account import as_json, print_account
    from sweeps.store.attempts import read_book

    with explained():
        results = opened(store)
        name = load_sweep(results, sweep).name
        book = read_book(results, name)
        if as_json_:
            print(json.dumps({"sweep": name} | as_json(book)))
        elif not book.attempts:
            print(f"sweep {name}: no attempt is in its ledger yet")
        else:
            print_account(Console(), name, book)
