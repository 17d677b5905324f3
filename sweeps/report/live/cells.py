"""How far each cell of a sweep is, as records: what `status` and `table` print for scripts."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from sweeps.plan.states import TrialState, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.document import Records
from sweeps.store.store import Store

COLUMNS = (
    "table",
    "cell",
    "labels",
    "measure",
    "paper_miou",
    "mean_miou",
    "sd_over_seeds",
    "seeds",
    "planned_seeds",
    "state",
)
"""As the report's CSV file names them, and the state. mIoU in percent."""


def cell_records(sweep: Sweep, store: Store) -> Records:
    """Return a record per cell, with its mIoU at the fixed background score.

    state: finished or missing if all its trials are; failed if any is; else started.
    """
    plan = sweep.plan
    states = read_states(store, plan.trials)
    found = []
    for table in plan.tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                reference = table.reference(row, column)
                trials = [states[trial.run_id] for trial in plan.cell_trials[reference]]
                labels = ", ".join(table.labels(row, column))
                head = (table.name, reference, labels, "fixed", cell.paper)
                found.append((*head, *_outcome(trials)))
    return Records(COLUMNS, tuple(found))


def as_json(sweep: Sweep, records: Records) -> dict[str, Any]:
    """Return the sweep's name and description, and the records by column."""
    cells = [dict(zip(records.columns, row, strict=True)) for row in records.rows]
    return {"sweep": sweep.name, "description": sweep.describe(), "cells": cells}


def _outcome(trials: Sequence[TrialState]) -> tuple[object, ...]:
    """Return mean and sample SD over seeds, seeds finished and planned, and the state."""
    mious = [trial.miou_fixed for trial in trials if trial.miou_fixed is not None]
    return (
        fmean(mious) if mious else None,
        stdev(mious) if len(mious) > 1 else None,
        len(mious),
        len(trials),
        _state({trial.status for trial in trials}),
    )


def _state(statuses: set[str]) -> str:
    if "failed" in statuses or len(statuses) == 1:
        return "failed" if "failed" in statuses else statuses.pop()
    return "started"
