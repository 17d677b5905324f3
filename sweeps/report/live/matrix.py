"""The tables as a matrix of states: what is measured, running or failed in each cell."""

from collections.abc import Mapping, Sequence

from rich.table import Table as RichTable
from rich.text import Text

from sweeps.plan.states import TrialState
from sweeps.plan.trials import Plan, Trial
from sweeps.tables.table import Table


def matrices(plan: Plan, states: Mapping[str, TrialState]) -> list[RichTable]:
    """Return each table of a plan with the state of its cells."""
    return [_matrix(table, plan, states) for table in plan.tables]


def _matrix(table: Table, plan: Plan, states: Mapping[str, TrialState]) -> RichTable:
    grid = RichTable(title=Text(f"Table {table.name}. {table.title}"))
    for name in (*table.row_names, *table.columns):
        grid.add_column(Text(name), justify="center", min_width=8)
    for row in table.rows:
        references = [table.reference(row, column) for column in table.columns]
        cells = [cell_text(plan.cell_trials[reference], states) for reference in references]
        grid.add_row(*map(Text, row.labels), *cells)
    return grid


def cell_text(trials: Sequence[Trial], states: Mapping[str, TrialState]) -> Text:
    """Return a cell: mean mIoU of its finished seeds (n/N), epochs of an unfinished one, failures.

    mIoU in percent at the fixed background score. "at the prior", "empty maps": what a training is
    warned of.
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
    parts += marks
    if failed:
        parts.append("failed" if failed == 1 else f"{failed} failed")
    style = "red" if failed else "yellow" if at_work or marks else "green" if mious else "dim"
    return Text(" ".join(parts) or "·", style=style)


def _stage(trial: Trial, state: TrialState) -> str:
    """Return e.g. "37% ep 3/8"; only a running trial says its share."""
    epochs = trial.config.train.epochs
    stage = f"ep {state.epoch}/{epochs}" if state.epoch < epochs else "scoring"
    return f"{state.progress:.0%} {stage}" if state.status == "running" else stage
