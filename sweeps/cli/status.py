"""The command `sweeps status`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import StoreOption, SweepName, leave_memory_to_the_system, opened
from wsss.errors import explained


def status(
    store: StoreOption = "results",
    sweep: SweepName = None,
    by_trial: Annotated[
        bool, typer.Option("--trials", help="a line per trial instead of the tables")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="show it again and again, until all is done or Ctrl-C")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.2, help="seconds between two looks of --watch")
    ] = 5.0,
    address: Annotated[
        str | None,
        typer.Option(help="job server of a cluster: ask its head, about the store there"),
    ] = None,
) -> None:
    """Say how far a sweep is: its tables cell by cell, failures, and the time left."""
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep
    from sweeps.report.live.status import show_status

    with explained():
        if address:
            raise typer.Exit(_status_there(address, sweep, by_trial=by_trial))
        leave_memory_to_the_system()
        results = opened(store)
        found = load_sweep(results, sweep)
        show_status(Console(), results, found, by_trial=by_trial, every=every if watch else None)


def _status_there(address: str, sweep: str | None, *, by_trial: bool) -> int:
    """Print what `sweeps status` prints on a cluster's head; return its exit code."""
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import run_tool

    words = ["sweeps", "status", *(["--sweep", sweep] if sweep else [])]
    words += ["--trials"] if by_trial else []
    python = os.environ.get("WSSS_CLUSTER_PYTHON", "python")
    done = run_tool(JobServer(address), words, root=Path.cwd(), store=None, python=python)
    print(done.text, end="")
    return done.exit_code
