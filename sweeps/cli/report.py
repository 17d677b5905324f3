"""The command `sweeps report`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import StoreOption, SweepName, opened, say
from wsss.errors import explained

if TYPE_CHECKING:
    from sweeps.report.tables.model import Report
    from sweeps.store.store import Store


def report(
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="tables to report; default: those of the sweep", metavar="TABLE"),
    ] = None,
    store: StoreOption = "results",
    sweep: SweepName = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="seeds per cell; default: the sweep's")
    ] = None,
    measure: Annotated[
        str,
        typer.Option(
            help="fixed (background score; saw no pixel ground truth) | held-out (threshold chosen "
            "on other images) | best (threshold chosen on the scored images) | auc (mean over all "
            "thresholds)"
        ),
    ] = "fixed",
    margin: Annotated[
        float, typer.Option(min=0.0, help="points of mIoU within which a difference is the paper's")
    ] = 0.5,
    out: Annotated[
        Path | None, typer.Option(help="folder to write to; default: report/ in the sweep's folder")
    ] = None,
    mlflow_url: Annotated[
        str | None,
        typer.Option(
            help="address of the MLflow server, for links; default: where runs were logged"
        ),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="do not attach the report to the sweep's MLflow run")
    ] = False,
) -> None:
    """Does the table hold? Weigh a sweep's results against the paper.

    Prints the report and writes report.html (self-contained), .md, .tex, .csv and .txt, and
    table.tex with the tables alone. Needs no data set, trains nothing, and may be given while the
    sweep runs. Tables of other sweeps with the same settings can be named: what the store holds of
    them is shown.
    """
    from rich.console import Console

    from sweeps.plan.sweep import load_sweep, report_folder, with_tables
    from sweeps.report.formats.terminal import print_document
    from sweeps.report.formats.write import write_document
    from sweeps.report.tables.build import build_report
    from sweeps.report.tables.document import sweep_document
    from sweeps.report.tables.model import Measure
    from sweeps.store.errors import FORBIDDEN
    from wsss.overrides import ConfigError

    with explained():
        if measure not in {m.value for m in Measure}:
            raise ConfigError(f"no measure {measure!r}; there are: {', '.join(Measure)}")
        results = opened(store)
        found = load_sweep(results, sweep)
        chosen = with_tables(found, tables or (), seeds)
        built = build_report(
            chosen, results, measure=Measure(measure), margin=margin, mlflow_url=mlflow_url
        )
        document, folder = sweep_document(built), out or report_folder(results, chosen)
        refused = ""
        try:
            written = write_document(document, folder, "report")
        except OSError as error:
            if out or error.errno not in FORBIDDEN:
                raise
            refused = error.strerror or ""
        print_document(Console(), document)  # after the files: `| head` may end it
        if refused:
            say(f"{folder}: not yours to write ({refused}); for files, name a folder: --out")
            return
        print("\n".join(map(str, written)))
        if not no_log and chosen.name == found.name:
            _log(results, built, folder)


def _log(store: "Store", report: "Report", folder: Path) -> None:
    from sweeps.track.sweep import SweepRuns, verdict_counts
    from sweeps.track.tracker import Tracker

    tracker = Tracker(store, SweepRuns(store, report.sweep))
    tracker.log_report(folder, verdict_counts(report))
    for line in tracker.remarks("the report", "the same command"):
        print(line)
