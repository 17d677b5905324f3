"""The headline's tables on the terminal: the paper's own row and ours; the files have all rows."""

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.plan.headline import describe
from sweeps.report.headline.model import HeadlineReport
from sweeps.report.headline.words import (
    LABEL_COLUMNS,
    iou,
    label_lines,
    legend,
    test_entry,
    val_miou,
)
from sweeps.report.words import number
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II


def print_headline(console: Console, report: HeadlineReport) -> None:
    """Print what came out beside the paper's rows of Tables I and II."""
    console.print(Text(describe(report.headline)))
    if report.warning:
        console.print(Text(report.warning, style="bold yellow"))
    if report.labels:
        console.print(_labels(report))
    console.print(_table_i(report))
    console.print(_table_ii(report))
    for sentence in (*report.findings, *legend(report.headline)):
        console.print(Text(sentence))


def _labels(report: HeadlineReport) -> RichTable:
    split = report.headline.sweep.base.data.eval_split
    grid = RichTable(title=Text(f"Labels before and behind refinement, same CAMs ({split})"))
    for name in LABEL_COLUMNS[:-1]:
        grid.add_column(name, justify="left" if name == "labels" else "right")
    for line in label_lines(report):
        grid.add_row(*(Text(entry) for entry in line[:-1]))
    return grid


def _table_i(report: HeadlineReport) -> RichTable:
    grid = RichTable(title="Table I. Segmentation mIoU (%)")
    for name in ("labels", "label mIoU (train)", "val", "test"):
        grid.add_column(name, justify="left" if name == "labels" else "right")
    ours = next(row for row in TABLE_I if row.method == OURS)
    grid.add_row("paper, ours (printed)", "–", f"{ours.val:.1f}", f"{ours.test:.1f}")
    mious = {row.name: row.miou for row in report.labels}
    for row in report.networks:
        entries = number(mious.get(row.name)), val_miou(report, row), test_entry(row)
        grid.add_row(row.name, *(Text(entry) for entry in entries))
    return grid


def _table_ii(report: HeadlineReport) -> RichTable:
    grid = RichTable(title=Text(f"Table II. IoU per class (%), {report.split}"))
    grid.add_column("class")
    grid.add_column("paper", justify="right")
    for row in report.networks:
        grid.add_column(row.name, justify="right")
    printed = next(row for row in TABLE_II if row.method == OURS)
    for index, name in enumerate(report.class_names):
        paper = f"{printed.ious[index]:.1f}" if report.same_classes else "–"
        grid.add_row(Text(name), paper, *(iou(row, name) for row in report.networks))
    return grid
