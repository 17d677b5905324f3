"""`sweeps status`: the progress of a sweep, read from the store, wherever it runs.

A running sweep shows the same tables.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live

from sweeps.plan.cost import Measured, estimate_cost
from sweeps.plan.run_command import run_command
from sweeps.plan.states import (
    Metrics,
    TrialState,
    count_statuses,
    nothing_runs,
    read_metrics,
    read_states,
)
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan, Trial
from sweeps.report.document import (
    Badge,
    BadgeTone,
    Block,
    Column,
    Command,
    Grid,
    Heading,
    Text,
    in_one_group,
)
from sweeps.report.formats.terminal import print_blocks, renderables
from sweeps.report.live.cost_lines import time_left
from sweeps.report.words import mean_sd, table_rows
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from sweeps.tables.table import Table
from wsss.basics.printable import counted

MAX_WARNINGS = 3
"""No more trials than this are named in the warnings of one kind."""


def matrices(plan: Plan, states: Mapping[str, TrialState]) -> Iterator[Block]:
    """Yield each table of a plan with the state of its cells, tables with running trials first."""

    def rests(table: Table) -> bool:
        trials = (trial for cell, _ in table.cells() for trial in plan.cell_trials[cell])
        return all(states[trial.run_id].status != "running" for trial in trials)

    for table in sorted(plan.tables, key=rests):
        rows = table_rows(table, lambda name: cell_badge(plan.cell_trials[name], states))
        columns = tuple(Column(name, align="center") for name in table.columns)
        title = f"Table {table.name}. {table.title}"
        yield Heading(title)
        yield Grid(title, table.row_names, columns, in_one_group(rows))


def cell_badge(trials: Sequence[Trial], states: Mapping[str, TrialState]) -> Badge:
    """Return a cell: mean mIoU of its finished seeds (n/N), epochs of an unfinished one, failures.

    mIoU in percent at the fixed background score. "at the prior" and "empty maps" are warnings.
    """
    found = [(trial, states[trial.run_id]) for trial in trials]
    mious = [state.miou_fixed for _, state in found if state.miou_fixed is not None]
    mean, _ = mean_sd(mious)
    at_work, broken_off, failed = (
        [pair for pair in found if pair[1].status == status]
        for status in ("running", "started", "failed")
    )
    parts, marks = [], []
    if mean is not None:
        parts.append(f"{mean:.2f}" + (f" ({len(mious)}/{len(found)})" if len(found) > 1 else ""))
    if unfinished := at_work or broken_off:
        parts.append(_stage(*unfinished[0]))
    if any(state.warning for _, state in found):
        marks.append("at the prior")
    if any(state.dead for _, state in found):
        marks.append("empty maps")
    if failed:
        marks.append("failed" if len(failed) == 1 else f"{len(failed)} failed")
    tone: BadgeTone = "good" if mious else "plain"
    if at_work or marks:
        tone = "bad" if failed else "fair"
    return Badge(", ".join(filter(None, (" ".join(parts), *marks))) or "·", tone)


def _stage(trial: Trial, state: TrialState) -> str:
    """Return e.g. "37% ep 3/8"; the share only for a running trial."""
    epochs = trial.config.train.epochs
    stage = f"ep {state.epoch}/{epochs}" if state.epoch < epochs else "scoring"
    return f"{state.progress:.0%} {stage}" if state.status == "running" else stage


class Status:
    """A sweep's state in the store. Finished trials are read once."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep, self.plan = store, sweep, sweep.plan
        self.title = Text(f"sweep {sweep.name}\n{sweep.describe()}")
        self.metrics: Metrics = {}
        self.states: dict[str, TrialState] = {}
        self.measured: dict[str, Measured | None] = {}
        self.problem = ""
        """Why the store may hold more than this."""
        self.read()

    def read(self) -> None:
        """Read the store again."""
        self.metrics = read_metrics(self.store, self.metrics, self.plan.run_ids)
        known = {key: s for key, s in self.states.items() if s.metrics and key in self.metrics}
        others = (trial for trial in self.plan.trials if trial.run_id not in known)
        self.states = known | read_states(self.store, others, self.metrics)
        self.cost = estimate_cost(self.plan, self.store, self.states, self.metrics, self.measured)

    @property
    def is_over(self) -> bool:
        """Whether every trial is finished or failed."""
        return all(state.status in ("finished", "failed") for state in self.states.values())

    def totals(self) -> Iterator[Block]:
        """Yield warnings and failures, each with its message, then counts and the time left."""
        states, trials = self.states, self.plan.trials
        for kind in ("warning", "dead"):
            found = [(t.name, said) for t in trials if (said := getattr(states[t.run_id], kind))]
            for name, said in found[:MAX_WARNINGS]:
                yield Text(f"warning: {name}: {said}", "mark")
            if more := len(found[MAX_WARNINGS:]):
                yield Text(f"warning: and so of {counted(more, 'more trial')}", "mark")
        failed = [(t.name, why) for t in trials if (why := states[t.run_id].failure)]
        for name, why in failed:
            yield Text(f"failed: {name}: {why}", "mark")
        if failed:
            again = run_command(self.sweep, self.store, "--retry-failed")
            yield Command("run them again with", again)
        counts, num_trials = count_statuses(states.values()), counted(len(states), "trial")
        yield Text(f"{counts} of {num_trials}; {time_left(self.cost)}")
        if not self.is_over and nothing_runs(self.store, self.sweep.name):
            yield Command("nothing runs; resume with", run_command(self.sweep, self.store))
        if self.problem:
            yield Text(self.problem, "mark")

    def progress(self, *, by_trial: bool) -> Iterator[Block]:
        """Yield its tables, or a line per trial."""
        if not by_trial:
            yield from matrices(self.plan, self.states)
            return
        for trial in self.plan.trials:
            state = self.states[trial.run_id]
            done = f"{state.epoch}/{trial.config.train.epochs} epochs"
            yield Text(f"  {trial.run_id}  {state.status:9} {done:14} {trial.name}")

    def print(self, console: Console, *, by_trial: bool) -> None:
        """Print all of it."""
        print_blocks(console, (self.title, *self.progress(by_trial=by_trial), *self.totals()))


def show_status(
    console: Console, store: Store, sweep: Sweep, *, by_trial: bool, every: float | None
) -> None:
    """Print a sweep's progress; with `every` seconds, refresh it in place until the sweep is over.

    In a file, or on a terminal without cursor control, only the totals are printed again.
    """
    status = Status(store, sweep)
    if every is not None:
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not status.is_over:
                    if console.is_interactive:
                        # A view higher than the terminal is cut off at its end.
                        tables = status.progress(by_trial=by_trial)
                        parts = renderables((status.title, *status.totals(), *tables))
                        live.update(Group(*parts), refresh=True)
                    else:
                        for line in renderables(status.totals()):
                            console.print(line, soft_wrap=True)
                    time.sleep(every)
                    status.problem = ""
                    try:
                        store.pull_results()
                    except StoreError as error:  # the next refresh may succeed
                        status.problem = f"not up to date: {error}"
                    status.read()
        except KeyboardInterrupt:
            pass  # the last view is printed below
    status.print(console, by_trial=by_trial)


# For scripts

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
