"""The state of each cell of a sweep: what `status` and `table` print for scripts."""

from collections.abc import Sequence

from sweeps.plan.states import TrialState, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.words import mean_sd
from sweeps.store.store import Store

CellRow = dict[str, object]
"""A cell's values by column, named as in the report's CSV file. mIoU in percent."""


def cell_rows(sweep: Sweep, store: Store) -> list[CellRow]:
    """Return a row per cell, with its mIoU at the fixed background score.

    state: finished or missing if all its trials are; failed if any is; else started.
    """
    plan = sweep.plan
    states = read_states(store, plan.trials)
    return [
        {
            "table": table.name,
            "cell": name,
            "labels": ", ".join(labels[name]),
            "measure": "fixed",
            "paper_miou": cell.paper,
            **_outcome([states[trial.run_id] for trial in plan.cell_trials[name]]),
        }
        for table in plan.tables
        for labels in (table.cell_labels(),)
        for name, cell in table.cells()
    ]


def _outcome(trials: Sequence[TrialState]) -> CellRow:
    mious = [trial.miou_fixed for trial in trials if trial.miou_fixed is not None]
    mean, sd = mean_sd(mious)
    return {
        "mean_miou": mean,
        "sd_over_seeds": sd,
        "seeds": len(mious),
        "planned_seeds": len(trials),
        "state": _state({trial.status for trial in trials}),
    }


def _state(statuses: set[str]) -> str:
    if "failed" in statuses or len(statuses) == 1:
        return "failed" if "failed" in statuses else statuses.pop()
    return "started"
