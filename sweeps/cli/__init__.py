"""The `sweeps` command: what to run, and what came of it.

A command's module is imported when it is chosen, and heavy packages (torch, Ray, MLflow) by the
functions that need them, so that `--help` and `plan` answer at once.
"""

from wsss.lazy_cli import Lazy, lazy_app

COMMANDS = {
    "plan": Lazy(
        "sweeps.cli.sweep:plan",
        "Show cells, distinct configurations, what is finished, and what the rest will cost.",
    ),
    "run": Lazy(
        "sweeps.cli.sweep:run",
        "Run what is missing of the tables, then print them. Give it again to resume.",
    ),
    "calibrate": Lazy(
        "sweeps.cli.calibrate:calibrate",
        "Train IRN's plain CAM and say whether its published score comes out. Again: resumes.",
    ),
    "table": Lazy(
        "sweeps.cli.sweep:table",
        "Print a sweep's tables as far as they are filled: measured beside printed mIoU.",
    ),
    "sync": Lazy(
        "sweeps.cli.sweep:sync",
        "Log to MLflow whatever it still lacks of a sweep, after an outage or to another server.",
    ),
    "status": Lazy(
        "sweeps.cli.status:status",
        "Say how far a sweep is: its tables cell by cell, failures, and the time left.",
    ),
    "report": Lazy(
        "sweeps.cli.report:report",
        "Weigh a sweep's results against the paper: verdicts, intervals, figures, in five formats.",
    ),
    "ledger": Lazy(
        "sweeps.cli.ledger:ledger",
        "Show what a sweep's trials have cost: useful, repeated and lost GPU-hours.",
    ),
    "headline": Lazy(
        "sweeps.cli.headline:headline",
        "Train segmentation networks on refined pseudo-labels: Tables I and II.",
    ),
    "search": Lazy(
        "sweeps.cli.search:search",
        "Search alpha, beta and lambda; a search is no table. Give it again to resume.",
    ),
    "submit": Lazy(
        "sweeps.cli.jobs:submit",
        "Run tables on a cluster, and print the log. Ctrl-C or a lost connection leaves it "
        "running.",
    ),
    "attach": Lazy(
        "sweeps.cli.jobs:attach",
        "Follow a job's log to its end; the exit code is the job's.",
    ),
    "logs": Lazy("sweeps.cli.jobs:logs", "Print a job's log as far as it is, and end."),
    "stop": Lazy(
        "sweeps.cli.jobs:stop",
        "Ask a sweep to checkpoint and stop, wait until it has, and say how to resume it.",
    ),
    "jobs": Lazy(
        "sweeps.cli.jobs:jobs",
        "List the sweeps that were submitted to a cluster, the newest first.",
    ),
    "fetch": Lazy(
        "sweeps.cli.jobs:fetch",
        "Copy a cluster's results here, for `sweeps table`, `report` and `status`.",
    ),
    "doctor": Lazy(
        "sweeps.cli.doctor:doctor",
        "Say what is open, missing, unreachable or mismatched, with a remedy each.",
    ),
}

app = lazy_app(
    "Plan, run and read the tables of a weakly-supervised segmentation paper. "
    "The same `sweeps run` command starts, resumes and extends a sweep.",
    COMMANDS,
)
