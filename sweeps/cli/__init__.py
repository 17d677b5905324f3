"""The `sweeps` command: what to run, and the results.

A command's module imports heavy packages (torch, Ray, MLflow, pydantic) inside the functions that
need them, so that `--help` and `plan` answer at once.
"""

import typer

from sweeps.cli.program import HELP, Command, Program, before_any_command
from sweeps.cli.service import calibrate, cluster, headline, results, search, store, sweep, tracking

PANELS = {
    "Tables": (
        sweep.plan,
        sweep.run,
        calibrate.calibrate,
        results.status,
        sweep.table,
        results.report,
        results.diff,
    ),
    "Search and headline": (search.search, headline.headline),
    "Store": (
        store.list_,
        store.rm,
        store.export,
        store.verify,
        tracking.sync,
        tracking.mlflow,
        store.ledger,
    ),
    "Cluster": (
        cluster.submit,
        cluster.attach,
        cluster.logs,
        cluster.stop,
        cluster.jobs,
        cluster.fetch,
        cluster.doctor,
        cluster.slurm,
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
        name = command.__name__.removesuffix("_")  # `list_` spares Python's own list
        app.command(name, cls=Command, rich_help_panel=panel)(command)
