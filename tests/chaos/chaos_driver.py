"""Drives a small sweep of cells given on the command line, as `sweeps run` drives a table.

    python chaos_driver.py --store S --data D --cells 0.05 0.04

A cell is a learning rate; above 1, gradients are not clipped, so that it diverges. What `drive`
does is the product's; only the table is made up here.
"""

import argparse
import sys
from pathlib import Path

from sweeps.plan.sweep import BaseOptions, make_sweep
from sweeps.run.driver import drive
from sweeps.run.ray.resources import Resources
from sweeps.run.subjects.tables import DrivenSweep
from sweeps.stages.guard import HANG_AFTER_SECONDS
from sweeps.stages.stage import Conduct
from sweeps.store.store import Store
from sweeps.tables.paper import row
from sweeps.tables.studies import TABLES
from sweeps.tables.table import Table
from wsss.basics.errors import explained
from wsss.overrides import parse_assignments


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--address")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--max-concurrent", type=int, default=1)
    parser.add_argument("--hang-after", type=float, default=HANG_AFTER_SECONDS)
    parser.add_argument("--accept-changes", action="store_true")
    parser.add_argument("--retry-failed", action="store_true")
    parser.add_argument("--budget", type=float)
    given = parser.parse_args()
    TABLES["chaos"] = Table(
        name="chaos",
        title="Learning rates",
        row_names=("lr",),
        rows=tuple(row((rate,), _settings(float(rate)), None) for rate in given.cells),
    )
    sweep, _ = make_sweep(
        ["chaos"], BaseOptions("tiny", given.data, settings=parse_assignments(given.set))
    )
    resources = Resources(given.address, given.workers, max_concurrent=given.max_concurrent)
    conduct = Conduct(given.hang_after, given.accept_changes)
    wishes = {"retry_failed": given.retry_failed, "budget_hours": given.budget}
    return drive(DrivenSweep(sweep, Store(given.store), conduct, **wishes), resources)


def _settings(rate: float) -> dict[str, float | None]:
    return {"train.lr": rate} | ({"train.clip_norm": None} if rate > 1 else {})


if __name__ == "__main__":
    with explained():
        sys.exit(main())
