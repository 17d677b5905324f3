"""The `sweeps` command: what to run, and what came of it.

A command's module imports heavy packages (torch, Ray, MLflow, pydantic) inside the functions that
need them, so that `--help` and `plan` answer at once.
"""

import typer

from sweeps.cli import (
    archive,
    calibrate,
    contents,
    diff,
    doctor,
    headline,
    jobs,
    ledger,
    report,
    search,
    slurm,
    status,
    sweep,
    tracking,
)
from sweeps.cli.program import HELP, Command, Program
from sweeps.cli.version import before_any_command

PANELS = {
    "Tables": (
        sweep.plan,
        sweep.run,
        calibrate.calibrate,
        status.status,
        sweep.table,
        report.report,
        diff.diff,
    ),
    "Search and headline": (search.search, headline.headline),
    "Store": (
        contents.list,
        contents.rm,
        archive.export,
        archive.verify,
        tracking.sync,
        tracking.mlflow,
        ledger.ledger,
    ),
    "Cluster": (
        jobs.submit,
        jobs.attach,
        jobs.logs,
        jobs.stop,
        jobs.jobs,
        jobs.fetch,
        doctor.doctor,
        slurm.slurm,
    ),
}
"""Heading in the help -> its commands, in this order."""

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    help="Plan, run and read the tables of a paper on weakly-supervised segmentation. First: "
    "`sweeps run V`, Table V on small drawn pictures, then `sweeps report`. The same `sweeps run` "
    "starts, resumes and extends a sweep.",
)
app.callback()(before_any_command)
for panel, commands in PANELS.items():
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)
