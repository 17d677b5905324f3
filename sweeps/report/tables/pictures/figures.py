"""The figures of a table: differences, maps and curves, drawn from the store."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.plan.trials import Plan
from sweeps.report.document import Picture
from sweeps.report.figures.heatmap import heatmap
from sweeps.report.figures.lines import dead_curves, loss_curves, oscillation, threshold_curves
from sweeps.report.figures.parallel import Setting, parallel_coordinates
from sweeps.report.figures.rows import DotRow, bars, cell_dots, forest, oscillation_bars
from sweeps.report.tables.findings import complete_grid, factors, pooled_sd
from sweeps.report.tables.model import CellReport
from sweeps.report.tables.results import Results
from sweeps.tables.table import Table
from wsss.basics.printable import counted

MAX_CURVES = 8
"""More lines than this in one plot cannot be told apart."""
MAX_DOT_ROWS = 40
PAPER_FIGURES = {"III": "Figure 6", "IV": "Figure 7", "VI": "Figure 8"}

Cells = dict[str, CellReport]
Epochs = dict[str, list[list[dict[str, Any]]]]
"""Reference -> a list per seed -> the training's records, one per epoch."""


def table_figures(table: Table, cells: Cells, plan: Plan, results: Results) -> tuple[Picture, ...]:
    """Draw the figures that a table's finished trials allow."""
    done = [cell for cell in cells.values() if cell.values]
    if not done:
        return ()
    where = f"Table {table.name}"
    pictures = _differences(table, cells, where) if len(cells) <= MAX_DOT_ROWS else []
    if min(len(table.rows), len(table.columns)) > 1:
        pictures.append(_heatmap(table, cells, where))
        pictures += _factors(table, cells, where)
    if len(cells) <= MAX_DOT_ROWS:
        pictures.append(_dots(done, where))
    if len(done) <= MAX_CURVES:
        epochs = _epochs(done, plan, results)
        pictures += _losses(table, epochs, where)
        pictures += _dead_maps(epochs, where)
        pictures.append(_thresholds(done, results, where))
    return tuple(pictures)


def _differences(table: Table, cells: Cells, where: str) -> list[Picture]:
    rows = [
        DotRow(
            cell.reference,
            found.differences.values,
            found.paper_difference,
            found.differences.interval,
        )
        for cell in cells.values()
        if (found := cell.evidence)
    ]
    if not rows:
        return []
    title = "Differences to the baseline"
    caption = (
        "A dot per seed, the mean, its 95 % interval over seeds, and the paper's difference. An "
        "interval that contains 0 shows no difference; one that does not contain the paper's mark "
        "is evidence against the paper's number."
    )
    svg = forest(rows, baseline=table.baseline_name, title=f"{title}, {where}")
    return [Picture(title, caption, svg)]


def _factors(table: Table, cells: Cells, where: str) -> list[Picture]:
    """Draw a grid's cells as lines through its factors, and the variance each factor explains."""
    shown = [
        (*place, cell.mean)
        for place, cell in zip(
            np.ndindex(len(table.rows), len(table.columns)), cells.values(), strict=True
        )
        if cell.mean is not None
    ]
    if len(shown) < 3:
        return []
    rows, columns, means = zip(*shown, strict=True)
    settings = [
        Setting(", ".join(table.row_names), rows, [", ".join(r.labels) for r in table.rows]),
        Setting(table.column_name, columns, table.columns),
    ]
    title = "Cells by factor"
    svg = parallel_coordinates(settings, means, title=f"{title}, {where}")
    caption = (
        "A line per cell, coloured by its mean mIoU: dark is low, yellow high; thick: highest."
    )
    pictures = [Picture(title, caption, svg)]
    values = complete_grid(table, cells)
    if values is not None and len(values) > 1:
        title = "What explains the spread"
        shares = [(name, 100 * e.eta_squared) for name, e in factors(table, values).items()]
        svg = bars(shares, axis="share of the variance (%)", title=f"{title}, {where}")
        caption = (
            "Sums of squares of the two-way analysis of variance, seeds as blocks. The first "
            "sentence under the table says which factors are significant."
        )
        pictures.append(Picture(title, caption, svg))
    return pictures


def _heatmap(table: Table, cells: Cells, where: str) -> Picture:
    shape = len(table.rows), len(table.columns)
    measured = np.array([cell.mean for cell in cells.values()], np.float64).reshape(shape)
    paper = np.array([_printed(cell) for cell in cells.values()], np.float64).reshape(shape)
    pooled = pooled_sd(cells)
    # A cell is the mean over its seeds; the band is for the difference of two such means.
    num_seeds = min((len(cell.values) for cell in cells.values() if cell.values), default=1)
    noise = None if pooled is None else 1.96 * pooled[0] * np.sqrt(2 / num_seeds)
    title = "Map of the grid"
    svg = heatmap(
        measured,
        paper,
        rows=(", ".join(table.row_names), [", ".join(row.labels) for row in table.rows]),
        columns=(table.column_name, table.columns),
        noise=noise,
        title=f"{title}, {where}",
    )
    band = (
        "seed noise is unknown, so no band can be drawn"
        if noise is None
        else f"cells within {noise:.2f} points of the best (95 % of the difference of two equal "
        f"cells at the seed noise of this table, {counted(num_seeds, 'seed')}) are marked"
    )
    caption = f"Measured and printed mIoU, each on its own colour scale; {band}."
    return Picture(title, caption, svg)


def _dots(done: Sequence[CellReport], where: str) -> Picture:
    rows = [
        DotRow(cell.reference, list(cell.values.values()), _printed(cell), cell.seed_interval)
        for cell in done
    ]
    title = "Every training"
    caption = "A dot per seed, the mean, its 95 % interval over seeds, and the paper's number."
    return Picture(title, caption, cell_dots(rows, title=f"{title}, {where}"))


def _epochs(done: Sequence[CellReport], plan: Plan, results: Results) -> Epochs:
    cams = {trial.run_id: trial.cam_id for trial in plan.trials}
    return {
        cell.reference: [
            results.store.cam(cams[cell.run_ids[seed]]).epochs() for seed in cell.values
        ]
        for cell in done
    }


def _series(epochs: Epochs, key: str) -> Epochs:
    """Return the seeds that recorded this in every epoch; an older version may not have."""
    kept = {
        name: [seed for seed in seeds if seed and all(epoch.get(key) for epoch in seed)]
        for name, seeds in epochs.items()
    }
    return {name: seeds for name, seeds in kept.items() if seeds}


def _losses(table: Table, epochs: Epochs, where: str) -> list[Picture]:
    """Draw L by step, as in the paper's Figures 6 to 8, and how much it oscillates."""
    kept = _series(epochs, "step_losses")
    if not kept:
        return []
    window = max(len(seed[0]["step_losses"]) for seeds in kept.values() for seed in seeds)
    curves = {
        name: [[loss for e in seed for loss in e["step_losses"]] for seed in seeds]
        for name, seeds in kept.items()
    }
    as_figure = f" (as in {PAPER_FIGURES[table.name]})" if table.name in PAPER_FIGURES else ""
    title = f"Loss curves{as_figure}"
    caption = (
        "Total loss L per training step, mean over seeds; strong: moving average over an epoch. L "
        "has more terms with more views, so compare heights only between cells with the same views."
    )
    svg = loss_curves(curves, window, title=f"{title}, {where}")
    pictures = [Picture(title, caption, svg)]
    rows = [
        (name, [oscillation(losses, window) for losses in seeds])
        for name, seeds in curves.items()
        if window >= 3 and len(seeds[0]) >= 2 * window
    ]
    if rows:
        title = "Oscillation of the loss"
        caption = (
            "Deviation (root mean square) of the step losses from their moving average over an "
            "epoch, in the second half of training, relative to the mean loss there; a dot per "
            "seed. Lower is smoother."
        )
        svg = oscillation_bars(rows, title=f"{title}, {where}")
        pictures.append(Picture(title, caption, svg))
    return pictures


def _dead_maps(epochs: Epochs, where: str) -> list[Picture]:
    """Draw the share of dead maps by epoch, in the view with most of them."""
    curves = {
        name: [[max(epoch["dead"].values()) for epoch in seed] for seed in seeds]
        for name, seeds in _series(epochs, "dead").items()
    }
    if not curves:
        return []
    title = "Empty maps"
    caption = (
        "Share of the maps of present classes without a positive value, mean over an epoch, in the "
        "view with most of them. Most maps are empty early in a training; later they should not "
        "be: an empty map labels nothing, and two empty maps agree, which lowers L_s for no gain."
    )
    return [Picture(title, caption, dead_curves(curves, title=f"{title}, {where}"))]


def _thresholds(done: Sequence[CellReport], results: Results, where: str) -> Picture:
    curves, fixed = {}, 0.0
    for cell in done:
        seen = [results.by_id[cell.run_ids[seed]].metrics or {} for seed in cell.values]
        thresholds = [t for t, _ in seen[0]["curve"]]
        same = [m for m in seen if [t for t, _ in m["curve"]] == thresholds]
        mean = np.mean([[miou for _, miou in m["curve"]] for m in same], axis=0)
        fixed = float(seen[0]["fixed_threshold"])
        curves[cell.reference] = (thresholds, mean.tolist())
    title = "Threshold curves"
    caption = (
        "Mean over seeds of pseudo-label mIoU by background threshold. Where lines cross, the "
        "ranking depends on the threshold, which the paper does not state."
    )
    return Picture(title, caption, threshold_curves(curves, fixed, title=f"{title}, {where}"))


def _printed(cell: CellReport) -> float | None:
    """Return the paper's number if it can be compared with the measured one."""
    return cell.paper if cell.comparable else None
