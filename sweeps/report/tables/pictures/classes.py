"""The best measured cell of a table that is no baseline against its own, class by class.

Legend: L labels that occur, R resamples of images.
"""

from collections.abc import Mapping

import numpy as np

from sweeps.evidence.seeds import LEVEL
from sweeps.report.document import (
    HTML,
    ON_PAGES,
    Block,
    Column,
    Grid,
    Heading,
    Only,
    Picture,
    Row,
    Text,
    in_one_group,
)
from sweeps.report.figures.rows import bars
from sweeps.report.tables.model import CellReport
from sweeps.report.tables.results import Results
from sweeps.report.words import interval, number, signed
from wsss.basics.printable import counted


def best_rival(cells: Mapping[str, CellReport]) -> CellReport | None:
    """Return the best measured cell with other trials than its baseline; None without one."""
    rivals = [c for c in cells.values() if c.values and c.run_ids != cells[c.baseline].run_ids]
    return max(rivals, key=lambda cell: cell.mean or 0.0, default=None)


def compare_classes(cells: Mapping[str, CellReport], results: Results) -> tuple[Block, ...]:
    """Compare the best cell with its baseline class by class, in a table and a figure.

    IoU in percent, over common seeds; empty without them, or if they scored different images.
    """
    best = best_rival(cells)
    if best is None:
        return ()
    base = cells[best.baseline]
    seeds = sorted(best.values.keys() & base.values.keys())
    best_ids, base_ids = [best.run_ids[s] for s in seeds], [base.run_ids[s] for s in seeds]
    if not seeds or results.resampled([*best_ids, *base_ids]) is None:
        return ()
    ours, theirs = results.class_ious(best_ids), results.class_ious(base_ids)  # [1 + R, L] each
    metrics = results.states[best_ids[0]].metrics or {}
    differences = ours - theirs
    occurs = np.isfinite(differences[0])
    ends = np.nanpercentile(differences[1:, occurs], [50 * (1 - LEVEL), 50 * (1 + LEVEL)], axis=0)
    intervals = list(zip(*ends.tolist(), strict=True))
    names = np.array(["background", *metrics["classes"]])
    rows, bars_shown = [], []
    for name, at, low_high in zip(names[occurs], np.flatnonzero(occurs), intervals, strict=True):
        change = interval(low_high, sign=True)
        figures = number(theirs[0, at]), number(ours[0, at]), signed(differences[0, at])
        rows.append(Row((str(name),), (*figures, change)))
        bars_shown.append((str(name), float(differences[0, at])))
    columns = tuple(map(Column, (base.reference, best.reference, "difference", "95 % over images")))
    title = f"IoU per class: {best.reference} against {base.reference}"
    grid = Grid(title, ("class",), columns, in_one_group(rows), style="numbers")
    absent = f"In no scored image: {', '.join(names[~occurs])}."
    axis = "difference in IoU (percentage points)"
    caption = (
        f"{best.reference}, the best measured, minus {base.reference}, in percentage points, mean "
        f"over {counted(len(seeds), 'seed')}; bars: 95 % over images."
    )
    svg = bars(bars_shown, axis=axis, intervals=intervals)
    return (
        Only(ON_PAGES, (Heading(title), grid, *(() if occurs.all() else (Text(absent, "soft"),)))),
        Only(HTML, (Picture("Differences by class", caption, svg),)),
    )
