"""`sweeps plan`: cells, distinct configurations, which are done and what the rest costs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console

from sweeps.plan.cost import CostEstimate
from sweeps.plan.states import STATUSES, TrialState, count_statuses
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Block, Column, Grid, Row, Text, in_one_group
from sweeps.report.formats.terminal import as_rich, print_blocks
from sweeps.report.live.cost_lines import cost_lines, format_seconds
from sweeps.report.live.status import Status
from sweeps.store.store import Store
from wsss.basics.printable import counted

MAX_CONFIGURATIONS = 60
"""More configurations are summarised by table, unless --all is given."""

MARKS = {"finished": "✓", "started": "▸", "missing": "–", "failed": "✗"}
LEGEND = (
    "seeds: ✓ finished, ▸ started, – missing, ✗ failed; time: what is left, one trial at a time"
)


class PlanView:
    """A sweep's plan and the state of its trials in the store."""

    def __init__(self, sweep: Sweep, store: Store) -> None:
        self.sweep, self.plan = sweep, sweep.plan
        status = Status(store, sweep)
        self.states, self.cost = status.states, status.cost

    def print(self, console: Console, *, concurrent: int, show_all: bool) -> None:
        """Print a line per configuration, or per table if there are many, then the totals."""
        print_blocks(console, [Text(self.sweep.describe())])
        more: tuple[Block, ...] = (Text(LEGEND, "soft"),)
        if show_all or self.plan.num_configs <= MAX_CONFIGURATIONS:
            for line in self.configuration_lines():
                console.print(as_rich(line), soft_wrap=True)
        else:
            hint = f"{self.plan.num_configs} configurations: list them with --all"
            more = (self.summary(), Text(hint))
        totals = (self.totals(), *cost_lines(self.cost, concurrent=concurrent))
        print_blocks(console, (*more, *map(Text, totals)))

    def configuration_lines(self) -> Iterator[str]:
        """Yield a line per configuration: its seeds' states, the time left, its cells."""
        for trials in self.plan.configs:
            marks = [f"{t.config.rng_seed}{MARKS[self.states[t.run_id].status]}" for t in trials]
            cells = dict.fromkeys(cell for trial in trials for cell in trial.cells)
            time = _time_left(trials, self.cost)
            yield f"  {' '.join(marks)}  {time:>10}  {' = '.join(cells)}"

    def summary(self) -> Grid:
        """Return a line per table: cells, configurations, trials by status, time left."""
        rows = []
        for table in self.plan.tables:
            cells = [self.plan.cell_trials[reference] for reference, _ in table.cells()]
            trials = {trial.run_id: trial for of_cell in cells for trial in of_cell}
            configs = {of_cell[0].run_id for of_cell in cells}
            counts = Counter(self.states[run_id].status for run_id in trials)
            entries = (
                *(str(len(cells)), str(len(configs))),
                *(str(counts[status] or "") for status in STATUSES),
                _time_left(trials.values(), self.cost),
            )
            rows.append(Row((table.name,), entries))
        columns = tuple(map(Column, ("cells", "configurations", *STATUSES, "time left")))
        return Grid("plan", ("table",), columns, in_one_group(rows))

    def totals(self) -> str:
        """Return the numbers of cells, configurations, seeds and trials, and of trials by state."""
        plan = self.plan
        up_to = "" if len(plan.seeds) == 1 else "up to "
        return (
            f"{counted(len(plan.cell_trials), 'cell')}, "
            f"{counted(plan.num_configs, 'distinct configuration')}, "
            f"{up_to}{counted(len(plan.seeds), 'seed')}: {counted(len(plan.trials), 'trial')}, "
            f"{count_statuses(self.states.values())}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return settings, trials with ids, states and estimates, and the totals."""
        counts = Counter(state.status for state in self.states.values())
        return {
            "sweep": self.sweep.name,
            "settings": self.sweep.base.flat(),
            "trials": [
                _trial_json(trial, self.states[trial.run_id], self.cost)
                for trial in self.plan.trials
            ],
            "totals": {
                "cells": len(self.plan.cell_trials),
                "configurations": self.plan.num_configs,
                "trials": len(self.plan.trials),
                **{s: counts[s] for s in STATUSES if s != "running"},
                "estimated_seconds": self.cost.seconds,
                "not_estimated": self.cost.num_unknown,
                "device": self.cost.device,
                "device_hours": self.cost.device_hours,
                "disk_gib": self.cost.gibibytes,
                "measured_trials": self.cost.num_measured,
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
