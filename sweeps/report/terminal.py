"""The report in a terminal: verdicts first, then one line per cell."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.report.lines import (
    MEASURES,
    measured,
    measures_row,
    remarks,
    seed_bounds,
    verdict_reasons,
    verdict_word,
)
from sweeps.report.model import Report, TableReport
from sweeps.report.preamble import legend, scale_warning
from sweeps.report.words import DASH, interval, number, signed
from wsss.printable import printable

MAX_REASONS = 8
GAP = (0, 1, 0, 0)
"""Padding of a table's cells: the least, so that one of four measures fits 80 columns."""
STYLES = {"reproduced": "green", "trend only": "yellow", "not reproduced": "red"}


def print_report(console: Console, report: Report) -> None:
    """Print a report; wide tables wrap at the terminal's width."""
    console.print(_text(report.title, style="bold"))
    console.print(_text(report.description))
    if warning := scale_warning(report):
        console.print(_text(warning, style="bold yellow"))
    for line in legend(report):
        console.print(_text(line, style="dim"))
    for table in report.tables:
        console.print(_table(table))
    for note in report.paper_notes:
        console.print(_text(f"Note on Table {', '.join(note.tables)}: {note.text}"))
    for title, rows in (
        ("Failures", report.failures), ("What the failures mean", report.failure_meanings),
        ("Warnings", report.warnings), ("Costs", report.costs), ("Provenance", report.provenance),
    ):  # fmt: skip
        if rows:
            console.print(_text(f"\n{title}", style="bold"))
            for name, value in rows:
                console.print(_text(f"  {name}: {value}"))


def _table(report: TableReport) -> RenderableType:
    grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=GAP)
    names = [*report.table.row_names]
    if len(report.table.columns) > 1:
        names.append(report.table.column_name)
    scores = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=GAP)
    for name in names:
        grid.add_column(_text(name), style="bold")
        scores.add_column(_text(name), style="bold")
    for name in MEASURES[:-1]:
        scores.add_column(name, justify="right", no_wrap=True)
    scores.add_column(MEASURES[-1], min_width=8)
    for name in ("paper", "measured", "n", "baseline: paper", "measured", "95 % seeds", "verdict"):
        grid.add_column(name, justify="left" if name == "verdict" else "right")
    for cell in report.cells.values():
        evidence, word = cell.evidence, verdict_word(report, cell)
        grid.add_row(
            *(_text(label) for label in cell.labels),
            number(cell.paper),
            _text(measured(cell)),
            f"{len(cell.values)}/{cell.num_planned}",
            signed(evidence.paper_difference) if evidence else DASH,
            signed(evidence.differences.mean) if evidence else DASH,
            _text(interval(seed_bounds(evidence), sign=True)),
            _text(word, style=STYLES.get(word, "")),
        )
        entries = [entry.replace(" ± ", "±") for entry in measures_row(report, cell)]
        scores.add_row(*map(_text, (*cell.labels, *entries)))
    reasons = verdict_reasons(report)
    if len(reasons) > MAX_REASONS:
        reasons = [f"The reasons of {len(reasons)} verdicts are in report.md and report.html."]
    sentences = [*report.findings, *reasons, *remarks(report)]
    sentences += [f"Note: {note}" for note in report.notes]
    return Group(
        _text(f"\nTable {report.table.name}. {report.table.title}", style="bold"),
        _text(report.headline, style="bold"),
        grid,
        scores,
        *(Padding(_text(sentence), (0, 0, 0, 2)) for sentence in sentences),
    )


def _text(text: str, style: str = "") -> Text:
    """Return text that is neither markup nor, by its control characters, a command."""
    return Text(printable(text), style=style)
