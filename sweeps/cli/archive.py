"""The commands `sweeps export` and `sweeps verify`: a sweep as one file, and a check of it."""

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import StoreOption, SweepName, data_folder, opened
from wsss.errors import explained


def export(
    file: Annotated[Path, typer.Argument(help="the archive, e.g. V.zip", metavar="FILE")],
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="tables to export; default: those of the sweep", metavar="[TABLE...]"),
    ] = None,
    store: StoreOption = "results",
    sweep: SweepName = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also the networks, which are large")
    ] = False,
) -> None:
    """Write a sweep into one zip file: report, configurations, figures, counted pixels, versions.

    `sweeps verify FILE` checks it on another machine. Unpacked, it is a store that `sweeps report`
    and `sweeps table` read. It names folders and hosts as they were.
    """
    from sweeps.archive.write import export_sweep
    from sweeps.plan.sweep import load_sweep, with_tables
    from wsss.printable import counted

    with explained():
        results = opened(store)
        found = with_tables(load_sweep(results, sweep), tables or ())
        done = export_sweep(found, results, file, checkpoints=checkpoints)
        size = f"{counted(done.num_files, 'file')}, {done.num_bytes / 2**20:.1f} MiB"
        states = ", ".join(f"{count} {state}" for state, count in done.states.items())
        print(f"{file}: {found.name}: {size}; trials: {states}")


def verify(
    file: Annotated[Path, typer.Argument(help="what `sweeps export` wrote", metavar="FILE")],
    data: Annotated[
        str | None, typer.Option(help="folder of the data set, to see whether it is the same")
    ] = None,
) -> None:
    """Check an archive of `sweeps export`: files, ids, figures, tables, and with --data the data.

    Needs no store and trains nothing. Prints what was verified and what cannot be. Exit code 0: all
    that was checked is right; 1: something is wrong; 2: not such an archive.
    """
    from sweeps.archive.verify import verify

    with explained():
        wrong = 0
        for finding in verify(file, data_folder(data) if data else None):
            print(f"{finding.kind:<6}{finding.text}", flush=True)
            wrong += finding.kind == "wrong"
        raise typer.Exit(1 if wrong else 0)
