"""The command `sweeps status`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import (
    AsCsv,
    AsJson,
    StoreOption,
    SweepName,
    leave_memory_to_the_system,
    opened,
    print_cells,
    require_one_of,
)
from wsss.errors import explained


def status(
    ctx: typer.Context,
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
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="job server of a cluster: ask its head, about --store there; default: its "
            "WSSS_STORE"
        ),
    ] = None,
) -> None:
    """Say how far a sweep is: its tables cell by cell, failures, and the time left."""
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep
    from sweeps.report.live.status import show_status

    with explained():
        require_one_of(trials=by_trial, json=as_json, csv=as_csv)
        require_one_of(watch=watch, json=as_json, csv=as_csv)
        require_one_of(watch=watch, address=bool(address))
        if address:
            words = ["--sweep", sweep] if sweep else []
            shown = {"--trials": by_trial, "--json": as_json, "--csv": as_csv}
            words += [word for word, wanted in shown.items() if wanted]
            named = ctx.get_parameter_source("store")  # WSSS_STORE here is this machine's
            there = store if named and named.name == "COMMANDLINE" else None
            raise typer.Exit(_status_there(address, there, words))
        leave_memory_to_the_system()
        results = opened(store)
        found = load_sweep(results, sweep)
        if as_json or as_csv:
            print_cells(results, found, as_json=as_json)
            return
        show_status(Console(), results, found, by_trial=by_trial, every=every if watch else None)


def _status_there(address: str, store: str | None, words: list[str]) -> int:
    """Print what `sweeps status` prints on a cluster's head; return its exit code.

    store: None: the cluster's own. Raises ConfigError for a relative path.
    """
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import require_on_cluster, run_tool

    if store:
        require_on_cluster("--store", store)
    python, asked = os.environ.get("WSSS_CLUSTER_PYTHON", "python"), ["sweeps", "status", *words]
    done = run_tool(JobServer(address), asked, root=Path.cwd(), store=store, python=python)
    print(done.text, end="")
    return done.exit_code
