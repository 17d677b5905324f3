"""The results of a sweep so far: the commands status, report and diff."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweeps.cli import options
from sweeps.store.errors import FORBIDDEN
from sweeps.tables.table import MAX_SEEDS

if TYPE_CHECKING:
    from sweeps.report.tables.model import Report
    from sweeps.store.store import Store

WATCH_SECONDS = 5.0
"""Between two refreshes of a status."""


def status(
    ctx: typer.Context,
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    by_trial: Annotated[
        bool, typer.Option("--trials", help="a line per trial instead of the tables")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="refresh until all is done or Ctrl-C")
    ] = False,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
    address: Annotated[
        str | None,
        typer.Option(
            help="job server of a cluster, to ask about its --store; default: its WSSS_STORE"
        ),
    ] = None,
) -> None:
    """Show the progress of a sweep: its tables cell by cell, failures, and the time left."""
    from rich.console import Console

    from sweeps.report.live.status import show_status

    options.require_one_of(trials=by_trial, json=as_json, csv=as_csv)
    options.require_one_of(watch=watch, json=as_json, csv=as_csv)
    options.require_one_of(watch=watch, address=bool(address))
    if address:
        asked = {"sweep": sweep, "by_trial": by_trial, "as_json": as_json, "as_csv": as_csv}
        words = options.words_of(ctx.command, asked)
        raise typer.Exit(_status_there(address, options.store_there(ctx, store), words))
    options.leave_memory_to_the_system()
    results, found = options.opened_sweep(store, sweep)
    if as_json or as_csv:
        options.print_cells(results, found, as_json=as_json)
        return
    show_status(
        Console(), results, found, by_trial=by_trial, every=WATCH_SECONDS if watch else None
    )


def _status_there(address: str, store: str | None, words: list[str]) -> int:
    """Print what `sweeps status` prints on a cluster's head; return its exit code.

    store: None for the cluster's own. Raises ConfigError for a relative path.
    """
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import require_on_cluster, run_tool

    if store:
        require_on_cluster("--store", store)
    python, asked = os.environ.get("WSSS_CLUSTER_PYTHON", "python"), ["sweeps", "status", *words]
    server, root = JobServer(address), Path.cwd()
    exit_code, text = run_tool(server, asked, root=root, store=store, python=python)
    print(text, end="")
    return exit_code


def report(
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="tables to report; default: those of the sweep", metavar="TABLE"),
    ] = None,
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=MAX_SEEDS, help="seeds per cell; default: the sweep's")
    ] = None,
    measure: Annotated[
        Literal["fixed", "held-out", "best", "auc"],
        typer.Option(
            help="fixed (background score; saw no pixel ground truth) | held-out (threshold chosen "
            "on other images) | best (threshold chosen on the scored images) | auc (mean over all "
            "thresholds)"
        ),
    ] = "fixed",
    margin: Annotated[
        float,
        typer.Option(min=0, help="points of mIoU by which a reproduced difference may be off"),
    ] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="folder to write to; default: report/ in the sweep's folder")
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="do not attach the report to the sweep's MLflow run")
    ] = False,
) -> None:
    """Does the table hold? Compare a sweep's results with the paper's.

    Prints the report and writes report.html (self-contained), .md, .tex, .csv and .txt, and
    table.tex with the tables alone. Needs no data set, trains nothing, and can be run during the
    sweep. Tables of other sweeps with the same settings can be named, too.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for many small products: 4.6 s, not 6.6

    from rich.console import Console

    from sweeps.plan.sweep import report_folder, with_tables
    from sweeps.report.formats.terminal import print_document
    from sweeps.report.formats.write import write_document
    from sweeps.report.tables.document import sweep_document
    from sweeps.report.tables.model import build_report
    from sweeps.report.tables.results import Measure

    results, found = options.opened_sweep(store, sweep)
    chosen = with_tables(found, tables or (), seeds)
    built = build_report(chosen, results, measure=Measure(measure), margin=margin)
    document, folder = sweep_document(built), out or report_folder(results, chosen)
    refused = ""
    try:
        written = write_document(document, folder, "report")
    except OSError as error:
        if out or error.errno not in FORBIDDEN:
            raise
        refused = error.strerror or ""
    print_document(Console(), document)  # last, as `| head` may end it
    if refused:
        options.say(f"{folder}: cannot be written ({refused}); name another folder with --out")
        return
    print("\n".join(map(str, written)))
    if not no_log and chosen.name == found.name:
        _log(results, built, written)


def _log(store: "Store", report: "Report", files: list[Path]) -> None:
    from sweeps.track.runs.sweep import SweepRuns, verdict_counts
    from sweeps.track.tracker import Tracker

    tracker = Tracker(store, SweepRuns(store, report.sweep))
    tracker.log_report(files, verdict_counts(report))
    for line in tracker.remarks("the report", "the same command"):
        print(line)


def diff(
    a: Annotated[str, typer.Argument(help="a cell of the sweep, e.g. 'V[0.5,0.1]', or a run id")],
    b: Annotated[str, typer.Argument(help="the same")],
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    as_json: options.AllAsJson = False,
) -> None:
    """Compare two cells or runs: settings, mIoU by the four measures, and classes.

    sweeps diff 'V[0.5,0.1]' 'V[0.5,0.5]'

    B - A is the mean over the finished seeds that both have, with an interval over seeds (from two
    on), and one over images where each run has counts per image: at the fixed and at the best
    threshold. `sweeps status --trials` shows run ids; quote a cell, as a shell reads brackets.
    """
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep
    from sweeps.report.diff import compare, difference_blocks, find_trials
    from sweeps.report.formats.terminal import print_blocks

    results = options.opened(store)
    asked = sweep is not None or results.sweep_names()
    found = load_sweep(results, sweep) if asked else None
    sides = [(name, find_trials(results, found, name)) for name in (a, b)]
    difference = compare(results, *sides)
    if as_json:
        print(json.dumps(dataclasses.asdict(difference)))
    else:
        print_blocks(Console(), list(difference_blocks(difference)))
