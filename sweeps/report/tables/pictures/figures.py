"""The figures of a table: differences, maps and curves, drawn from the store."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sweeps.report.document import Picture
from sweeps.report.figures.heatmap import heatmap
from sweeps.report.figures.lines import dead_curves, loss_curves, threshold_curves
from sweeps.report.figures.rows import DotRow, dots
from sweeps.report.tables.model import CellReport, TableReport
from wsss.basics.printable import counted

MAX_CURVES = 8
"""More lines than this in one plot cannot be told apart."""
MAX_DOT_ROWS = 40
PAPER_FIGURES = {"III": "Figure 6", "IV": "Figure 7", "VI": "Figure 8"}

Epochs = dict[str, list[list[dict[str, Any]]]]
"""Reference -> a list per seed -> the training's records, one per epoch."""


def table_figures(found: TableReport) -> Iterator[Picture]:
    """Draw the figures that a table's finished trials allow."""
    table, done = found.table, [cell for cell in found.cells.values() if cell.values]
    if not done:
        return
    few = len(found.cells) <= MAX_DOT_ROWS
    if few and any(cell.evidence.differences.n for cell in done):
        yield _differences(found)
    if min(len(table.rows), len(table.columns)) > 1:
        yield _heatmap(found)
    if few:
        yield _dots(done)
    if len(done) <= MAX_CURVES:
        epochs = {
            cell.reference: [found.results.epochs(cell.run_ids[seed]) for seed in cell.values]
            for cell in done
        }
        yield from _losses(table.name, epochs)
        yield from _dead_maps(epochs)
        yield _thresholds(done)


def _differences(found: TableReport) -> Picture:
    rows = [
        DotRow(
            cell.reference,
            cell.evidence.differences.values,
            cell.evidence.differences.interval,
            cell.evidence.paper_difference,
        )
        for cell in found.cells.values()
        if cell.evidence.differences.n
    ]
    caption = (
        "A dot per seed, the mean, its 95 % interval over seeds, and the paper's difference. An "
        "interval that contains 0 shows no difference; one that does not contain the paper's mark "
        "is evidence against the paper's number. The intervals, unlike the verdicts, are not "
        "adjusted for the number of cells."
    )
    axis = f"difference to {found.table.baseline_name} (percentage points)"
    svg = dots(rows, axis=axis, line_at=0)
    return Picture("Differences to the baseline", caption, svg)


def _heatmap(found: TableReport) -> Picture:
    table, common = found.table, found.common
    numbers = [(cell.mean, cell.printed) for cell in found.cells.values()]
    shape = 2, len(table.rows), len(table.columns)
    measured, paper = np.array(numbers, np.float64).T.reshape(shape)
    noise, band = None, "seed noise is unknown, so no band can be drawn"
    if common and common.num_seeds > 1:
        noise = common.span_by_chance().upper
        band = (
            f"cells within {noise:.2f} points of the best have a dashed frame: as many equal cells "
            f"span no more in 95 % of tables ({counted(common.num_seeds, 'seed')})"
        )
    svg = heatmap(
        measured,
        paper,
        rows=(", ".join(table.row_names), [", ".join(row.labels) for row in table.rows]),
        columns=(table.column_name, table.columns),
        noise=noise,
    )
    caption = (
        "Measured and printed mIoU, each on its own colour scale: dark is low, yellow high, bold "
        f"highest; {band}."
    )
    return Picture("Map of the grid", caption, svg)


def _dots(done: list[CellReport]) -> Picture:
    rows = [DotRow(cell.reference, cell.scores, cell.seed_interval) for cell in done]
    caption = "A dot per seed, the mean, and its 95 % interval over seeds."
    return Picture("Every training", caption, dots(rows, axis="pseudo-label mIoU (%)"))


def _series(epochs: Epochs, key: str) -> Epochs:
    """Return the seeds that recorded this in every epoch; an older version may not have."""
    kept = {
        name: [seed for seed in seeds if seed and all(epoch.get(key) for epoch in seed)]
        for name, seeds in epochs.items()
    }
    return {name: seeds for name, seeds in kept.items() if seeds}


def _losses(table: str, epochs: Epochs) -> Iterator[Picture]:
    """Draw L by step, as in the paper's Figures 6 to 8."""
    kept = _series(epochs, "step_losses")
    if not kept:
        return
    window = max(len(seed[0]["step_losses"]) for seeds in kept.values() for seed in seeds)
    curves = {
        name: [[loss for e in seed for loss in e["step_losses"]] for seed in seeds]
        for name, seeds in kept.items()
    }
    as_figure = f" (as in {PAPER_FIGURES[table]})" if table in PAPER_FIGURES else ""
    caption = (
        "Total loss L per training step, mean over seeds; strong: moving average over an epoch. L "
        "has more terms with more views, so compare heights only between cells with the same views."
    )
    yield Picture(f"Loss curves{as_figure}", caption, loss_curves(curves, window))


def _dead_maps(epochs: Epochs) -> Iterator[Picture]:
    """Draw the share of dead maps by epoch, in the view with most of them."""
    curves = {
        name: [[max(epoch["dead"].values()) for epoch in seed] for seed in seeds]
        for name, seeds in _series(epochs, "dead").items()
    }
    caption = (
        "Share of the maps of present classes without a positive value, mean over an epoch, in the "
        "view with most of them. Most maps are empty early in a training; later they should not "
        "be: an empty map labels nothing, and two empty maps agree, which lowers L_s for no gain."
    )
    if curves:
        yield Picture("Empty maps", caption, dead_curves(curves))


def _thresholds(done: list[CellReport]) -> Picture:
    curves, fixed = {}, set[float]()
    for cell in done:
        first, *others = (cell.states[seed].metrics or {} for seed in cell.values)
        thresholds = [threshold for threshold, _ in first["curve"]]
        same = [m for m in others if [t for t, _ in m["curve"]] == thresholds]
        mean = np.mean([[miou for _, miou in m["curve"]] for m in (first, *same)], axis=0)
        fixed.add(first["fixed_threshold"])
        curves[cell.reference] = (thresholds, mean.tolist())
    caption = (
        "Mean over seeds of pseudo-label mIoU by background threshold. Where lines cross, the "
        "ranking depends on the threshold, which the paper does not state."
    )
    limits = done[0].trials[0].config.labels.threshold_range
    svg = threshold_curves(curves, fixed.pop() if len(fixed) == 1 else None, limits)
    return Picture("Threshold curves", caption, svg)
