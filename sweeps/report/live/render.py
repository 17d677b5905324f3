"""A table in the terminal: the paper's layout, the measured mIoU beside the printed one."""

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO

from rich.console import Console

from sweeps.plan.scale import scale_of, scored_classes
from sweeps.plan.states import TrialState, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.document import Badge, Block, Column, Grid, Heading, Measured, RowGroup, Text
from sweeps.report.formats.terminal import print_blocks
from sweeps.report.words import fixed_score, mean_and_sd, table_rows
from sweeps.stages.guard import mixture_notes
from sweeps.store.store import Store
from sweeps.tables.table import Table
from wsss.config import LabelsConfig
from wsss.evaluation.auc import area_under_curve

LEGEND = (
    "Each cell: pseudo-label mIoU in % at the fixed background score {score} (saw no pixel "
    "ground truth); * at the best threshold (its choice saw pixel ground truth); AUC: mean over "
    "all thresholds from {low:g} to {high:g}, none chosen{printed}."
)


def render_tables(sweep: Sweep, store: Store) -> str:
    """Return all tables of a sweep with their header as plain text."""
    file = StringIO()
    print_tables(Console(file=file, width=110, color_system=None), sweep, store)
    return file.getvalue()


def print_tables(console: Console, sweep: Sweep, store: Store) -> None:
    """Print all tables of a sweep with their header."""
    print_blocks(console, list(_blocks(sweep, store)))  # all is read before any is printed


def _blocks(sweep: Sweep, store: Store) -> Iterator[Block]:
    states = read_states(store, sweep.plan.trials)
    scale, (low, high) = scale_of(sweep, scored_classes(states)), sweep.base.labels.threshold_range
    printed = "VOC" if scale.other_classes else "paper"
    has_printed = any(cell.paper for table in sweep.plan.tables for _, cell in table.cells())
    told = f"; {printed}: the paper's number" if has_printed else ""
    legend = LEGEND.format(score=fixed_score(sweep), low=low, high=high, printed=told)
    yield from map(Text, filter(None, (sweep.describe(), scale.warning, legend)))
    for table in sweep.plan.tables:
        yield Heading(f"Table {table.name}. {table.title}")
        yield _grid(table, sweep, states, printed)
        yield from (Text(f"Note: {note}") for note in table.notes)
    yield from (Text(note, "mark") for note in mixture_notes(sweep, store))


def _grid(table: Table, sweep: Sweep, states: Mapping[str, TrialState], printed: str) -> Grid:
    """Return a table with the results so far. printed: the word before the paper's numbers."""
    printed_numbers = {reference: cell.paper for reference, cell in table.cells()}

    def entry(name: str) -> Measured:
        paper = printed_numbers[name]
        shown = "" if paper is None else f"{printed} {paper:.2f}"
        trials = sweep.plan.cell_trials[name]
        return _cell([states[trial.run_id] for trial in trials], trials[0].config.labels, shown)

    rows = (RowGroup("", (row,)) for row in table_rows(table, entry))
    prefix = "" if len(table.columns) == 1 else f"{table.column_name} "
    columns = tuple(Column(f"{prefix}{column}", align="center") for column in table.columns)
    return Grid(table.name, table.row_names, columns, tuple(rows))


def _cell(trials: Sequence[TrialState], labels: LabelsConfig, printed: str) -> Measured:
    found = [trial.metrics for trial in trials if trial.metrics]
    failures = [trial.failure.partition(":")[0] for trial in trials if trial.failure]
    if found:
        lacking = f" (n={len(found)})" if len(found) < len(trials) else ""
        lines = [
            mean_and_sd([metrics["miou_fixed"] for metrics in found]) + lacking,
            mean_and_sd([metrics["miou_best"] for metrics in found]) + "*",
            "AUC " + mean_and_sd([area_under_curve(m["curve"], labels) for m in found]),
        ]
    else:
        lines = [] if failures else ["missing"]
    badges = []
    if found and any(trial.warning for trial in trials):
        badges.append(Badge("at the label prior", "fair"))
    if found and any(trial.dead for trial in trials):
        badges.append(Badge("empty maps", "fair"))
    badges += [Badge(kind, "bad") for kind in failures[:1]]
    return Measured("\n".join(lines), printed, tuple(badges))
