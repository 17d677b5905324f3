"""What a page draws of a table: differences, maps and curves, and the best cells side by side.

Legend: L labels that occur, R resamples of images.
"""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sweeps.evidence.images import percentiles
from sweeps.report.document import (
    HTML,
    ON_PAGES,
    Block,
    Column,
    Grid,
    Heading,
    Only,
    Picture,
    Pictures,
    Row,
    Text,
    in_one_group,
)
from sweeps.report.figures.heatmap import heatmap
from sweeps.report.figures.lines import dead_curves, loss_curves, threshold_curves
from sweeps.report.figures.rows import DotRow, bars, dots
from sweeps.report.tables.model import CellReport, TableReport
from sweeps.report.words import interval, listed, number, signed
from sweeps.store.errors import StoreError
from wsss.basics.printable import counted
from wsss.data.errors import DataError
from wsss.data.pictures.image import opened

MAX_CURVES = 8
"""More lines than this in one plot cannot be told apart."""
MAX_DOT_ROWS = 40
PAPER_FIGURES = {"III": "Figure 6", "IV": "Figure 7", "VI": "Figure 8"}

Epochs = dict[str, list[list[dict[str, Any]]]]
"""Reference -> a list per seed -> the training's records, one per epoch."""

FILE = "cam_gallery.png"
COLUMNS = ("image", "M_o", "M_e", "M_d", "merged M^o", "pseudo-label", "ground truth")
"""Columns of that file, all equally wide."""
OF_IMAGES = ("image", "ground truth")
OF_A_CELL = ("merged M^o", "pseudo-label")
COLUMN_WIDTH = 168
"""Pixels."""
MAX_NAMED = 12
"""No more cells than this are named among those that are not shown."""


def table_figures(found: TableReport) -> Iterator[Picture]:
    """Draw the figures that a table's finished trials allow."""
    table, done = found.table, [cell for cell in found.cells.values() if cell.values]
    if not done:
        return
    if len(found.cells) <= MAX_DOT_ROWS and any(cell.evidence.differences.n for cell in done):
        yield _differences(found)
    if min(len(table.rows), len(table.columns)) > 1:
        yield _heatmap(found)
    if len(done) <= MAX_CURVES:
        epochs = {
            cell.reference: [cell.results.epochs(cell.run_ids[seed]) for seed in cell.values]
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
        "A dot per seed, the mean, and its 95 % interval over seeds. An interval that contains 0 "
        "shows no difference; one that does not contain the paper's mark, where it has one, is "
        "evidence against the paper's number. The intervals, unlike the verdicts, are not adjusted "
        "for the number of cells."
    )
    axis = f"difference to {found.table.baseline_name} (percentage points)"
    svg = dots(rows, axis=axis)
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


def compare_classes(found: TableReport) -> tuple[Block, ...]:
    """Compare the best cell that is no baseline with its own, class by class: a table, a figure.

    IoU in percent, over common seeds; empty without them, or if they scored different images.
    """
    best = found.best_rival()
    if best is None:
        return ()
    base, results = found.cells[best.baseline], best.results
    seeds = sorted(best.values.keys() & base.values.keys())
    best_ids, base_ids = ([cell.run_ids[seed] for seed in seeds] for cell in (best, base))
    if not seeds or results.resampled([*best_ids, *base_ids]) is None:
        return ()
    ours, theirs = results.class_ious(best_ids), results.class_ious(base_ids)  # [1 + R, L] each
    metrics = results.states[best_ids[0]].metrics or {}
    gains, names = (ours - theirs).T, ["background", *metrics["classes"]]
    ends = {
        name: percentiles(gain[1:][np.isfinite(gain[1:])])
        for name, gain in zip(names, gains, strict=True)
        if np.isfinite(gain[0])
    }
    figures = dict(zip(names, zip(theirs[0], ours[0], gains[:, 0], strict=True), strict=True))
    rows = [
        Row((name,), (number(a), number(b), signed(lead), interval(ends[name], sign=True)))
        for name, (a, b, lead) in figures.items()
        if name in ends
    ]
    columns = tuple(map(Column, (base.reference, best.reference, "difference", "95 % over images")))
    title = f"IoU per class: {best.reference} against {base.reference}"
    grid = Grid(title, ("class",), columns, in_one_group(rows), style="numbers")
    absent = ", ".join(name for name in names if name not in ends)
    lacking = (Text(f"In no scored image: {absent}.", "soft"),) if absent else ()
    caption = (
        f"{best.reference}, the best measured, minus {base.reference}, in percentage points, mean "
        f"over {counted(len(seeds), 'seed')}; bars: 95 % over images."
    )
    drawn = [(name, float(figures[name][2])) for name in ends]
    axis = "difference in IoU (percentage points)"
    svg = bars(drawn, axis=axis, intervals=list(ends.values()))
    return (
        Only(ON_PAGES, (Heading(title), grid, *lacking)),
        Only(HTML, (Picture("Differences by class", caption, svg),)),
    )


def gallery(found: TableReport) -> tuple[Block, ...]:
    """Return the cells' pictures of the same images; nothing if the baseline has none."""
    cells, roles = found.cells, _roles(found)
    baseline = next(iter(roles))
    shown = {
        name: path
        for name in roles
        if (path := _path(cells[name])) and cells[name].eval_split == cells[baseline].eval_split
    }
    if baseline not in shown:
        return ()
    pictures = [Picture("Images and their masks", "", image=_cut(shown[baseline], OF_IMAGES))]
    for name, path in shown.items():
        seed, miou = min(cells[name].values.items())
        title = f"{listed(roles[name]).capitalize()}: {name}, seed {seed}: mIoU {number(miou)}"
        pictures.append(Picture(title, "", image=_cut(path, OF_A_CELL)))
    others = [name for name, cell in cells.items() if cell.values and name not in shown]
    left_out = f"Not shown: {listed(others, MAX_NAMED)}; their pictures are in runs/<id>/{FILE}."
    return (
        Heading("The same images under the baseline and the best cells"),
        Pictures(tuple(pictures), in_a_row=True),
        *((Text(left_out, "soft"),) if others else ()),
    )


def _roles(found: TableReport) -> dict[str, list[str]]:
    """Return the cells to show, each with its roles; the baseline first."""
    cells, best = list(found.cells.values()), found.best_rival()
    roles = {(best or cells[0]).baseline: ["baseline"]}
    if best:
        roles[best.reference] = ["best measured beside the baseline"]
    if printed := {cell.reference: cell.printed for cell in cells if cell.printed is not None}:
        papers = max(printed, key=printed.__getitem__)
        roles.setdefault(papers, []).append("the paper's best")
    return roles


def _path(cell: CellReport) -> Path | None:
    if not cell.values:
        return None
    path = cell.results.store.run(cell.run_ids[min(cell.values)]).path / FILE
    return path if path.exists() else None


def _cut(path: Path, names: tuple[str, ...]) -> str:
    """Return columns of a gallery side by side as a data URI. Raises StoreError if it is broken."""
    try:
        with opened(path, ("PNG",)) as image:
            whole = image.convert("RGB")
    except DataError:
        raise StoreError(
            f"{path}: cannot be decoded; delete {path.parent} and run its table again"
        ) from None
    width = whole.width / len(COLUMNS)
    height = max(1, round(whole.height * COLUMN_WIDTH / width))
    canvas = Image.new("RGB", (COLUMN_WIDTH * len(names), height), "white")
    for place, name in enumerate(names):
        left = COLUMNS.index(name) * width
        part = whole.crop((round(left), 0, round(left + width), whole.height))
        scaled = part.resize((COLUMN_WIDTH, height), Image.Resampling.LANCZOS)
        canvas.paste(scaled, (place * COLUMN_WIDTH, 0))
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
