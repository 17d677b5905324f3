"""`sweeps plan`: cells, distinct configurations, which are done and what the rest costs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console

from sweeps.plan.cost import CostEstimate
from sweeps.plan.states import STATUSES, TrialState, count_statuses
from sweeps.plan.trials import Trial
from sweeps.report.document import Block, Column, Grid, Row, Text, in_one_group
from sweeps.report.formats.terminal import as_rich, print_blocks
from sweeps.report.live.cost_lines import cost_lines, format_seconds
from sweeps.report.live.status import Status
from wsss.basics.printable import counted

MAX_CONFIGURATIONS = 60
"""More configurations are summarised by table, unless --all is given."""

MARKS = {"finished": "✓", "started": "▸", "missing": "–", "failed": "✗"}
LEGEND = (
    "seeds: ✓ finished, ▸ started, – missing, ✗ failed; time: what is left, one trial at a time"
)


def print_plan(console: Console, status: Status, *, concurrent: int, show_all: bool) -> None:
    """Print a line per configuration, or per table if there are many, then the totals."""
    plan = status.plan
    print_blocks(console, [Text(status.sweep.describe())])
    more: tuple[Block, ...] = (Text(LEGEND, "soft"),)
    if show_all or len(plan.configs) <= MAX_CONFIGURATIONS:
        for line in _configurations(status):
            console.print(as_rich(line), soft_wrap=True)
    else:
        hint = f"{len(plan.configs)} configurations: list them with --all"
        more = (_summary(status), Text(hint))
    totals = (_totals(status), *cost_lines(status.cost, concurrent=concurrent))
    print_blocks(console, (*more, *map(Text, totals)))


def _configurations(status: Status) -> Iterator[str]:
    """Yield a line per configuration: its seeds' states, the time left, its cells."""
    for trials in status.plan.configs:
        marks = [f"{t.config.rng_seed}{MARKS[status.states[t.run_id].status]}" for t in trials]
        cells = dict.fromkeys(cell for trial in trials for cell in trial.cells)
        time = _time_left(trials, status.cost)
        yield f"  {' '.join(marks)}  {time:>10}  {' = '.join(cells)}"


def _summary(status: Status) -> Grid:
    """Return a line per table: cells, configurations, trials by status, time left."""
    rows = []
    for table in status.plan.tables:
        cells = [status.plan.cell_trials[reference] for reference, _ in table.cells()]
        trials = {trial.run_id: trial for of_cell in cells for trial in of_cell}
        configs = {of_cell[0].run_id for of_cell in cells}
        counts = Counter(status.states[run_id].status for run_id in trials)
        entries = (
            *(str(len(cells)), str(len(configs))),
            *(str(counts[each] or "") for each in STATUSES),
            _time_left(trials.values(), status.cost),
        )
        rows.append(Row((table.name,), entries))
    columns = tuple(map(Column, ("cells", "configurations", *STATUSES, "time left")))
    return Grid("plan", ("table",), columns, in_one_group(rows))


def _totals(status: Status) -> str:
    """Return the numbers of cells, configurations, seeds and trials, and of trials by state."""
    plan = status.plan
    up_to = "" if len(plan.seeds) == 1 else "up to "
    return (
        f"{counted(len(plan.cell_trials), 'cell')}, "
        f"{counted(len(plan.configs), 'distinct configuration')}, "
        f"{up_to}{counted(len(plan.seeds), 'seed')}: {counted(len(plan.trials), 'trial')}, "
        f"{count_statuses(status.states.values())}"
    )


def plan_json(status: Status) -> dict[str, Any]:
    """Return settings, trials with ids, states and estimates, and the totals."""
    plan, states, cost = status.plan, status.states, status.cost
    counts = Counter(state.status for state in states.values())
    return {
        "sweep": status.sweep.name,
        "settings": status.sweep.base.flat(),
        "trials": [_trial_json(trial, states[trial.run_id], cost) for trial in plan.trials],
        "totals": {
            "cells": len(plan.cell_trials),
            "configurations": len(plan.configs),
            "trials": len(plan.trials),
            **{each: counts[each] for each in STATUSES if each != "running"},
            "estimated_seconds": cost.seconds,
            "not_estimated": cost.num_unknown,
            "device": cost.device,
            "device_hours": cost.device_hours,
            "disk_gib": cost.gibibytes,
            "measured_trials": cost.num_measured,
        },
    }


def _time_left(trials: Iterable[Trial], cost: CostEstimate) -> str:
    """Return the time left for some trials: "" if they are done, "?" if it is unknown."""
    left = [cost.trials[trial.run_id].seconds for trial in trials if trial.run_id in cost.trials]
    known = [seconds for seconds in left if seconds is not None]
    if not left:
        return ""
    if not known:
        return "?"
    return format_seconds(sum(known)) + (" + ?" if len(known) < len(left) else "")


def _trial_json(trial: Trial, state: TrialState, cost: CostEstimate) -> dict[str, Any]:
    left = cost.trials.get(trial.run_id)
    return {
        "run_id": trial.run_id,
        "cam_id": trial.cam_id,
        "cells": list(trial.cells),
        "seed": trial.config.rng_seed,
        "status": state.status,
        "epochs": state.epoch,
        "estimated_seconds": left.seconds if left else None,
        "estimated_from": left.basis if left else "",
    }
