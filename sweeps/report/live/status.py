"""`sweeps status`: the progress of a sweep, read from the store, wherever it runs.

A running sweep shows the same tables.
"""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

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
from sweeps.report.document import Badge, BadgeTone, Block, Column, Grid, Heading, in_one_group
from sweeps.report.formats.terminal import as_rich, renderables
from sweeps.report.live.cost_lines import time_left
from sweeps.report.words import table_rows
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from sweeps.tables.table import Table
from wsss.basics.printable import counted

MAX_WARNINGS = 3
"""No more trials than this are named in the warnings of one kind."""


def matrices(plan: Plan, states: Mapping[str, TrialState]) -> list[RenderableType]:
    """Return each table of a plan with the state of its cells, tables with running trials first."""

    def rests(table: Table) -> bool:
        trials = (trial for cell, _ in table.cells() for trial in plan.cell_trials[cell])
        return all(states[trial.run_id].status != "running" for trial in trials)

    ordered = sorted(plan.tables, key=rests)
    return [part for table in ordered for part in renderables(_matrix(table, plan, states))]


def _matrix(table: Table, plan: Plan, states: Mapping[str, TrialState]) -> tuple[Block, ...]:
    rows = table_rows(table, lambda name: cell_badge(plan.cell_trials[name], states))
    columns = tuple(Column(name, align="center") for name in table.columns)
    title = f"Table {table.name}. {table.title}"
    return Heading(title), Grid(title, table.row_names, columns, in_one_group(rows))


def cell_badge(trials: Sequence[Trial], states: Mapping[str, TrialState]) -> Badge:
    """Return a cell: mean mIoU of its finished seeds (n/N), epochs of an unfinished one, failures.

    mIoU in percent at the fixed background score. "at the prior" and "empty maps" are warnings.
    """
    pairs = [(trial, states[trial.run_id]) for trial in trials]
    mious = [state.miou_fixed for _, state in pairs if state.miou_fixed is not None]
    at_work = [pair for pair in pairs if pair[1].status == "running"]
    broken_off = [pair for pair in pairs if pair[1].status == "started"]
    failed = sum(state.status == "failed" for _, state in pairs)
    marks = []
    if any(state.warning for _, state in pairs):
        marks.append("at the prior")
    if any(state.dead for _, state in pairs):
        marks.append("empty maps")
    parts = []
    if mious:
        count = f" ({len(mious)}/{len(pairs)})" if len(pairs) > 1 else ""
        parts.append(f"{sum(mious) / len(mious):.2f}{count}")
    if at_work or broken_off:
        parts.append(_stage(*(at_work or broken_off)[0]))
    if failed:
        marks.append("failed" if failed == 1 else f"{failed} failed")
    tone: BadgeTone = "good" if mious else "plain"
    if failed or at_work or marks:
        tone = "bad" if failed else "fair"
    return Badge(", ".join(filter(None, (" ".join(parts), *marks))) or "·", tone)


def _stage(trial: Trial, state: TrialState) -> str:
    """Return e.g. "37% ep 3/8"; the share only for a running trial."""
    epochs = trial.config.train.epochs
    stage = f"ep {state.epoch}/{epochs}" if state.epoch < epochs else "scoring"
    return f"{state.progress:.0%} {stage}" if state.status == "running" else stage


def _with_command(lead: str, command: str) -> Text:
    line = as_rich(f"{lead}: {command}")
    line.no_wrap = True
    return line


class Status:
    """A sweep's state in the store. Finished trials are read once."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep, self.plan = store, sweep, sweep.plan
        self.metrics: Metrics = {}
        self.measured: dict[str, Measured | None] = {}
        self.problem = ""
        """Why the store may hold more than this."""
        self.read()

    def read(self) -> None:
        """Read the store again."""
        self.metrics = read_metrics(self.store, self.metrics, self.plan.run_ids)
        self.states = read_states(self.store, self.plan.trials, self.metrics)
        self.cost = estimate_cost(self.plan, self.store, self.states, self.metrics, self.measured)

    @property
    def is_over(self) -> bool:
        """Whether every trial is finished or failed."""
        return all(state.status in ("finished", "failed") for state in self.states.values())

    def totals(self) -> list[Text]:
        """Return warnings and failures, each with its message, then counts and the time left.

        A line with a command is `no_wrap`, so that the command can be copied.
        """
        states, trials = self.states, self.plan.trials
        lines: list[Text] = []
        for kind in ("warning", "dead"):
            found = [(t.name, said) for t in trials if (said := getattr(states[t.run_id], kind))]
            named = found[:MAX_WARNINGS]
            lines += [as_rich(f"warning: {name}: {said}", "yellow") for name, said in named]
            if more := len(found[MAX_WARNINGS:]):
                lines.append(as_rich(f"warning: and so of {counted(more, 'more trial')}", "yellow"))
        failed = [(t.name, why) for t in trials if (why := states[t.run_id].failure)]
        lines += [as_rich(f"failed: {name}: {why}", "red") for name, why in failed]
        if failed:
            again = run_command(self.sweep, self.store, "--retry-failed")
            lines.append(_with_command("run them again with", again))
        counts, num_trials = count_statuses(states.values()), counted(len(states), "trial")
        lines.append(as_rich(f"{counts} of {num_trials}; {time_left(self.cost)}"))
        if not self.is_over and nothing_runs(self.store, self.sweep.name):
            resume = run_command(self.sweep, self.store)
            lines.append(_with_command("nothing runs; resume with", resume))
        if self.problem:
            lines.append(as_rich(self.problem, "yellow"))
        return lines

    def title(self) -> Text:
        """Return what sweep it is."""
        return as_rich(f"sweep {self.sweep.name}\n{self.sweep.describe()}")

    def progress(self, *, by_trial: bool) -> Sequence[RenderableType]:
        """Return its tables, or a line per trial."""
        return self._trial_lines() if by_trial else matrices(self.plan, self.states)

    def print(self, console: Console, *, by_trial: bool) -> None:
        """Print all of it."""
        console.print(Group(self.title(), *self.progress(by_trial=by_trial)))
        for line in self.totals():
            console.print(line, soft_wrap=bool(line.no_wrap))

    def _trial_lines(self) -> list[Text]:
        lines = []
        for trial in self.plan.trials:
            state = self.states[trial.run_id]
            done = f"{state.epoch}/{trial.config.train.epochs} epochs"
            lines.append(as_rich(f"  {trial.run_id}  {state.status:9} {done:14} {trial.name}"))
        return lines


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
                        totals = Text("\n").join(status.totals())
                        parts = (status.title(), totals, *status.progress(by_trial=by_trial))
                        live.update(Group(*parts), refresh=True)
                    else:
                        console.print(Text("\n").join(status.totals()), soft_wrap=True)
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
