"""The best measured cell of a table that is no baseline against its own, class by class.

Legend: L labels that occur, R resamples of images.
"""

import numpy as np

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
    Row,
    Text,
    in_one_group,
)
from sweeps.report.figures.rows import bars
from sweeps.report.tables.model import TableReport
from sweeps.report.words import interval, number, signed
from wsss.basics.printable import counted


def compare_classes(found: TableReport) -> tuple[Block, ...]:
    """Compare the best cell with its baseline class by class, in a table and a figure.

    IoU in percent, over common seeds; empty without them, or if they scored different images.
    """
    best, results = found.best_rival(), found.results
    if best is None:
        return ()
    base = found.cells[best.baseline]
    seeds = sorted(best.values.keys() & base.values.keys())
    best_ids, base_ids = ([cell.run_ids[seed] for seed in seeds] for cell in (best, base))
    if not seeds or results.resampled([*best_ids, *base_ids]) is None:
        return ()
    ours, theirs = results.class_ious(best_ids), results.class_ious(base_ids)  # [1 + R, L] each
    metrics = results.states[best_ids[0]].metrics or {}
    rows, bars_shown, intervals, absent = [], [], [], []
    for at, name in enumerate(["background", *metrics["classes"]]):
        differences = ours[:, at] - theirs[:, at]  # [1 + R]
        if np.isnan(differences[0]):
            absent.append(name)
            continue
        ends = percentiles(differences[1:][np.isfinite(differences[1:])])
        figures = number(theirs[0, at]), number(ours[0, at]), signed(differences[0])
        rows.append(Row((name,), (*figures, interval(ends, sign=True))))
        bars_shown.append((name, float(differences[0])))
        intervals.append(ends)
    columns = tuple(map(Column, (base.reference, best.reference, "difference", "95 % over images")))
    title = f"IoU per class: {best.reference} against {base.reference}"
    grid = Grid(title, ("class",), columns, in_one_group(rows), style="numbers")
    lacking = (Text(f"In no scored image: {', '.join(absent)}.", "soft"),) if absent else ()
    caption = (
        f"{best.reference}, the best measured, minus {base.reference}, in percentage points, mean "
        f"over {counted(len(seeds), 'seed')}; bars: 95 % over images."
    )
    svg = bars(bars_shown, axis="difference in IoU (percentage points)", intervals=intervals)
    return (
        Only(ON_PAGES, (Heading(title), grid, *lacking)),
        Only(HTML, (Picture("Differences by class", caption, svg),)),
    )
