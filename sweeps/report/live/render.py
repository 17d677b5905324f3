"""`sweeps table`: a row per cell, the measured mIoU beside the printed one."""

from collections.abc import Iterator, Mapping
from io import StringIO

from rich.console import Console

from sweeps.plan.scale import scale_of, scored_classes
from sweeps.plan.states import TrialState, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.document import DASH, Block, Column, Grid, Heading, Row, Text, in_one_group
from sweeps.report.formats.terminal import print_blocks
from sweeps.report.words import fixed_score, mean_and_sd, number
from sweeps.stages.guard import mixture_notes
from sweeps.store.store import Store
from sweeps.tables.table import Table
from wsss.evaluation.auc import area_under_curve

LEGEND = (
    "Pseudo-label mIoU in %, mean ± SD over seeds. Fixed: at the background score {score} (saw no "
    "pixel ground truth); best: at the best threshold (its choice saw pixel ground truth); AUC: "
    "mean over all thresholds from {low:g} to {high:g}, none chosen."
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
    legend = LEGEND.format(score=fixed_score(sweep), low=low, high=high)
    yield from map(Text, filter(None, (sweep.describe(), scale.warning, legend)))
    for table in sweep.plan.tables:
        yield Heading(f"Table {table.name}. {table.title}")
        yield _grid(table, sweep, states, "paper (VOC)" if scale.other_classes else "paper")
        yield from (Text(f"Note: {note}") for note in table.notes)
    yield from (Text(note, "mark") for note in mixture_notes(sweep, store))


def _grid(table: Table, sweep: Sweep, states: Mapping[str, TrialState], paper: str) -> Grid:
    """Return a table with the results so far. paper: heading of the printed numbers."""
    rows = []
    for name, cell in table.cells():
        planned = sweep.plan.cell_trials[name]
        trials = [states[trial.run_id] for trial in planned]
        found = [trial.metrics for trial in trials if trial.metrics]
        labels = planned[0].config.labels
        measures = (
            [metrics["miou_fixed"] for metrics in found],
            [metrics["miou_best"] for metrics in found],
            [area_under_curve(metrics["curve"], labels) for metrics in found],
        )
        notes = [trial.failure.partition(":")[0] for trial in trials if trial.failure][:1]
        notes += ["at the label prior"] if any(trial.warning for trial in trials) else []
        notes += ["empty maps"] if any(trial.dead for trial in trials) else []
        known = (mean_and_sd(values) if found else DASH for values in measures)
        seeds = f"{len(found)} of {len(trials)}"
        entries = (number(cell.paper), *known, seeds, ", ".join(notes))
        rows.append(Row(table.cell_labels()[name], entries))
    columns = map(Column, (paper, "fixed", "best", "AUC", "seeds"))
    noted = Column("notes", align="left")
    return Grid(table.name, table.label_names, (*columns, noted), in_one_group(rows))
