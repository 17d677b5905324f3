"""The figures of a table: differences, maps and curves, drawn from the store."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeps.plan.trials import Plan
from sweeps.report.document import Picture
from sweeps.report.figures.heatmap import Map, heatmap
from sweeps.report.figures.lines import (
    SeedCurve,
    ThresholdCurve,
    dead_curves,
    loss_curves,
    oscillation,
    threshold_curves,
)
from sweeps.report.figures.parallel import Setting, parallel_coordinates
from sweeps.report.figures.rows import DotRow, bars, cell_dots, forest, oscillation_bars
from sweeps.report.figures.svg import slug
from sweeps.report.tables.findings import complete_grid, factor_shares, pooled_sd
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
    pictures = _differences(table, cells) if len(cells) <= MAX_DOT_ROWS else []
    if min(len(table.rows), len(table.columns)) > 1:
        pictures.append(_heatmap(table, cells))
        pictures += _factors(table, cells)
    if len(cells) <= MAX_DOT_ROWS:
        pictures.append(_dots(table, done))
    if len(done) <= MAX_CURVES:
        epochs = _epochs(done, plan, results)
        pictures += _losses(table, epochs)
        pictures += _dead_maps(table, epochs)
        pictures.append(_thresholds(table, done, results))
    return tuple(pictures)


def _differences(table: Table, cells: Cells) -> list[Picture]:
    rows = []
    for cell in cells.values():
        if cell.evidence is None:
            continue
        differences, paper = cell.evidence.differences, cell.evidence.paper_difference
        rows.append(DotRow(cell.reference, differences.values, paper, differences.interval))
    if not rows:
        return []
    title = f"Differences to the baseline, Table {table.name}"
    svg = forest(rows, baseline=table.baseline_name, name=_name(table, "forest"), title=title)
    caption = (
        "A dot per seed, the mean, its 95 % interval over seeds, and the paper's difference. An "
        "interval that contains 0 shows no difference; one that does not contain the paper's mark "
        "is evidence against the paper's number."
    )
    return [Picture("Differences to the baseline", caption, svg)]


def _factors(table: Table, cells: Cells) -> list[Picture]:
    """Draw a grid's cells as lines through its factors, and the variance each factor explains."""
    shown = [
        (row_at, column_at, cell.mean)
        for (row_at, column_at), cell in zip(
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
    svg = parallel_coordinates(
        settings, means, name=_name(table, "parallel"), title=f"Table {table.name} by factor"
    )
    caption = (
        "A line per cell, coloured by its mean mIoU: dark is low, yellow high; thick: highest."
    )
    pictures = [Picture("Cells by factor", caption, svg)]
    values = complete_grid(table, cells)
    if values is not None and len(values) > 1:
        svg = bars(
            factor_shares(table, values),
            axis="share of the variance (%)",
            name=_name(table, "importance"),
            title=f"What explains Table {table.name}",
        )
        caption = (
            "Sums of squares of the two-way analysis of variance, seeds as blocks. The first "
            "sentence under the table says which factors are significant."
        )
        pictures.append(Picture("What explains the spread", caption, svg))
    return pictures


def _heatmap(table: Table, cells: Cells) -> Picture:
    shape = len(table.rows), len(table.columns)
    measured = np.array([cell.mean for cell in cells.values()], np.float64).reshape(shape)
    paper = np.array([_printed(cell) for cell in cells.values()], np.float64).reshape(shape)
    pooled = pooled_sd(cells)
    # A cell is the mean over its seeds; the band is for the difference of two such means.
    num_seeds = min((len(cell.values) for cell in cells.values() if cell.values), default=1)
    noise = None if pooled is None else 1.96 * pooled[0] * np.sqrt(2 / num_seeds)
    grid = Map(
        measured,
        paper,
        row_labels=[", ".join(row.labels) for row in table.rows],
        column_labels=table.columns,
        row_name=", ".join(table.row_names),
        column_name=table.column_name,
        noise=noise,
    )
    svg = heatmap(grid, name=_name(table, "map"), title=f"Table {table.name} as a map")
    band = (
        "seed noise is unknown, so no band can be drawn"
        if noise is None
        else f"cells within {noise:.2f} points of the best (95 % of the difference of two equal "
        f"cells at the seed noise of this table, {counted(num_seeds, 'seed')}) are marked"
    )
    caption = f"Measured and printed mIoU, each on its own colour scale; {band}."
    return Picture("Map of the grid", caption, svg)


def _dots(table: Table, done: Sequence[CellReport]) -> Picture:
    rows = [
        DotRow(cell.reference, list(cell.values.values()), _printed(cell), cell.seed_interval)
        for cell in done
    ]
    svg = cell_dots(rows, name=_name(table, "dots"), title=f"Table {table.name}, seed by seed")
    caption = "A dot per seed, the mean, its 95 % interval over seeds, and the paper's number."
    return Picture("Every training", caption, svg)


def _epochs(done: Sequence[CellReport], plan: Plan, results: Results) -> Epochs:
    cams = {trial.run_id: trial.cam_id for trial in plan.trials}
    return {
        cell.reference: [
            results.store.cam(cams[cell.run_ids[seed]]).epochs() for seed in cell.values
        ]
        for cell in done
    }


def _losses(table: Table, epochs: Epochs) -> list[Picture]:
    """Draw L by step, as in the paper's Figures 6 to 8, and how much it oscillates."""
    kept = {
        name: [seed for seed in seeds if seed and all("step_losses" in e for e in seed)]
        for name, seeds in epochs.items()
    }
    kept = {name: seeds for name, seeds in kept.items() if seeds}
    if not kept:
        return []
    steps_per_epoch = max(len(s[0]["step_losses"]) for seeds in kept.values() for s in seeds)
    curves = [
        SeedCurve(name, [[loss for e in seed for loss in e["step_losses"]] for seed in seeds])
        for name, seeds in kept.items()
    ]
    as_figure = f" (as in {PAPER_FIGURES[table.name]})" if table.name in PAPER_FIGURES else ""
    caption = (
        "Total loss L per training step, mean over seeds; strong: moving average over an epoch. L "
        "has more terms with more views, so compare heights only between cells with the same views."
    )
    name, title = _name(table, "loss"), f"Loss, Table {table.name}"
    svg = loss_curves(curves, steps_per_epoch, name=name, title=title)
    picture = Picture(f"Loss curves{as_figure}", caption, svg)
    return [picture, *_oscillation(table, curves, steps_per_epoch)]


def _oscillation(table: Table, curves: Sequence[SeedCurve], window: int) -> list[Picture]:
    """Draw how much losses oscillate about their average over `window` steps, if long enough."""
    rows = [
        (curve.label, [oscillation(losses, window) for losses in curve.seeds])
        for curve in curves
        if window >= 3 and len(curve.seeds[0]) >= 2 * window
    ]
    if not rows:
        return []
    caption = (
        "Deviation (root mean square) of the step losses from their moving average over an epoch, "
        "in the second half of training, relative to the mean loss there; a dot per seed. Lower is "
        "smoother."
    )
    title = f"Oscillation of the loss, Table {table.name}"
    svg = oscillation_bars(rows, name=_name(table, "oscillation"), title=title)
    return [Picture("Oscillation of the loss", caption, svg)]


def _dead_maps(table: Table, epochs: Epochs) -> list[Picture]:
    """Draw the share of dead maps by epoch, in the view with most of them.

    Cells are left out if an older version, which did not record dead maps, trained them.
    """
    shares = {
        name: [
            [max(epoch["dead"].values()) for epoch in seed]
            for seed in seeds
            if seed and all(epoch.get("dead") for epoch in seed)
        ]
        for name, seeds in epochs.items()
    }
    curves = [SeedCurve(name, seeds) for name, seeds in shares.items() if seeds]
    if not curves:
        return []
    caption = (
        "Share of the maps of present classes without a positive value, mean over an epoch, in the "
        "view with most of them. Most maps are empty early in a training; later they should not "
        "be: an empty map labels nothing, and two empty maps agree, which lowers L_s for no gain."
    )
    name, title = _name(table, "dead"), f"Empty maps, Table {table.name}"
    return [Picture("Empty maps", caption, dead_curves(curves, name=name, title=title))]


def _thresholds(table: Table, done: Sequence[CellReport], results: Results) -> Picture:
    curves, fixed = [], 0.0
    for cell in done:
        seen = [results.by_id[cell.run_ids[seed]].metrics or {} for seed in cell.values]
        thresholds = [t for t, _ in seen[0]["curve"]]
        same = [m for m in seen if [t for t, _ in m["curve"]] == thresholds]
        mean = np.mean([[miou for _, miou in m["curve"]] for m in same], axis=0)
        fixed = float(seen[0]["fixed_threshold"])
        curves.append(ThresholdCurve(label=cell.reference, thresholds=thresholds, miou=list(mean)))
    svg = threshold_curves(
        curves,
        fixed=fixed,
        name=_name(table, "thresholds"),
        title=f"mIoU by background threshold, Table {table.name}",
    )
    caption = (
        "Mean over seeds of pseudo-label mIoU by background threshold. Where lines cross, the "
        "ranking depends on the threshold, which the paper does not state."
    )
    return Picture("Threshold curves", caption, svg)


def _name(table: Table, kind: str) -> str:
    return f"{kind}-{slug(table.name)}"


def _printed(cell: CellReport) -> float | None:
    """Return the paper's number if it can be compared with the measured one."""
    return cell.paper if cell.comparable else None
