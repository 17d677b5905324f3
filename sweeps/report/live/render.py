"""A table in the terminal: the paper's layout, the measured mIoU beside the printed one."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.plan.scale import scale_of, scored_classes
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan, Trial
from sweeps.report.formats.terminal import Fitted
from sweeps.report.words import mean_and_sd, mean_sd
from sweeps.stages.guard import mixture_notes
from sweeps.store.store import Store
from sweeps.tables.table import Cell, Table
from wsss.basics.printable import printable
from wsss.evaluation.auc import area_under_curve
from wsss.training.diagnosis.learning import find_dead_maps

LEGEND = (
    "Each cell: pseudo-label mIoU in % at the fixed background score {score:g} (saw no pixel "
    "ground truth); * at the best threshold (its choice saw pixel ground truth); AUC: mean over "
    "all thresholds from {low:g} to {high:g}, none chosen; {printed}: the paper's number."
)


def result_table(table: Table, plan: Plan, store: Store, *, printed: str) -> Fitted:
    """Return one table with the results so far. printed: the word before the paper's numbers."""
    grid = RichTable(
        title=Text(f"Table {table.name}. {table.title}"), show_lines=True, title_style="bold"
    )
    for name in table.row_names:
        grid.add_column(Text(name), justify="center", style="bold")
    for column in table.columns:
        label = column if len(table.columns) == 1 else f"{table.column_name} {column}"
        grid.add_column(Text(label), justify="center")
    for row in table.rows:
        cells = [
            _cell(cell, plan.cell_trials[table.reference(row, column)], store, printed)
            for column, cell in zip(table.columns, row.cells, strict=True)
        ]
        grid.add_row(*map(Text, row.labels), *cells)
    return Fitted(grid, len(table.row_names))


def render_tables(sweep: Sweep, store: Store) -> str:
    """Return all tables of a sweep with their header as plain text."""
    console = Console(file=StringIO(), width=110, color_system=None)
    print_tables(console, sweep, store)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def print_tables(console: Console, sweep: Sweep, store: Store) -> None:
    """Print all tables of a sweep with their header."""
    plan, labels = sweep.plan, sweep.base.labels
    scale = scale_of(sweep, scored_classes(sweep, store))
    low, high = labels.threshold_range
    printed = "VOC" if scale.other_classes else "paper"
    legend = LEGEND.format(score=labels.background_score, low=low, high=high, printed=printed)
    for line in filter(None, (sweep.describe(), scale.warning, legend)):
        console.print(Text(line))
    for table in plan.tables:
        console.print(result_table(table, plan, store, printed=printed))
        for note in table.notes:
            console.print(Text(f"Note: {note}"))
    for note in mixture_notes(sweep, store):
        console.print(Text(note, style="yellow"))


def _cell(cell: Cell, trials: Sequence[Trial], store: Store, printed: str) -> Text:
    labels = trials[0].config.labels
    runs = [store.run(trial.run_id) for trial in trials]
    metrics = [found for found in (run.metrics() for run in runs) if found]
    failures = [found for found in (run.failure() for run in runs) if found]
    text = Text()
    if metrics:
        text.append(_mean([found["miou_fixed"] for found in metrics]), style="bold")
        text.append("  " + _mean([found["miou_best"] for found in metrics]) + "*")
        if len(metrics) < len(runs):
            text.append(f" (n={len(metrics)})")
        aucs = [area_under_curve(found["curve"], labels) for found in metrics]
        text.append(f"\nAUC {_mean(aucs)}")
        if any(store.cam(trial.cam_id).warning() for trial in trials):
            text.append("\nat the label prior", style="yellow")
        if any(find_dead_maps(store.cam(t.cam_id).epochs(), t.config) for t in trials):
            text.append("\nempty maps", style="yellow")
    if failures:
        text.append(("\n" if metrics else "") + printable(str(failures[0]["kind"])), style="red")
    elif not metrics:
        text.append("missing")
    if cell.paper is not None:
        text.append(f"\n{printed} {cell.paper:.2f}", style="dim")
    return text


def _mean(values: list[float]) -> str:
    """Return `12.34`, or `12.34±0.56` for two seeds or more."""
    return mean_and_sd(*mean_sd(values)).replace(" ± ", "±")
