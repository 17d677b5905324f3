"""The report as one self-contained HTML page: no script, no font, no picture from elsewhere."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sweeps.plan.scale import SMALL_SCALE
from sweeps.report.lines import (
    COLUMNS,
    MEASURES,
    evidence_row,
    level_word,
    measured,
    measures_row,
    remarks,
    verdict_reasons,
    verdict_word,
)
from sweeps.report.model import Report, TableReport
from sweeps.report.preamble import legend, scale_warning
from sweeps.report.words import number
from sweeps.tables.segmentation import TABLE_I, TABLE_II, TABLE_II_CLASSES
from wsss.printable import printable, web_address

_BADGES = {
    "reproduced": "good",
    "trend only": "fair",
    "not reproduced": "bad",
    "not resolvable": "open",
}


def html(report: Report) -> str:
    """Return the page. All text from outside is escaped; only our own SVG is not."""
    environment = Environment(
        loader=PackageLoader("sweeps.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["web_address"] = web_address
    return environment.get_template("report.html").render(
        report=report,
        warning=scale_warning(report),
        small_scale=SMALL_SCALE,
        legend=legend(report),
        columns=COLUMNS,
        measures=MEASURES,
        tables=[_table(table) for table in report.tables],
        table_i=TABLE_I,
        table_ii=TABLE_II,
        class_names=TABLE_II_CLASSES,
    )


def _shown(value: object) -> object:
    """Write out control characters; markup of our own stays as it is."""
    return printable(value) if type(value) is str else value


def _table(report: TableReport) -> dict[str, object]:
    """Prepare one table: its grid as printed, its evidence, its pictures."""
    table = report.table
    grid = [
        (row.labels, [report.cells[table.reference(row, column)] for column in table.columns])
        for row in table.rows
    ]
    words = {reference: verdict_word(report, cell) for reference, cell in report.cells.items()}
    return {
        "name": table.name,
        "anchor": f"table-{table.name}",
        "title": table.title,
        "headline": report.headline,
        "row_names": table.row_names,
        "column_name": table.column_name,
        "columns": table.columns,
        "grid": grid,
        "measured": {reference: measured(cell) for reference, cell in report.cells.items()},
        "words": words,
        "badges": {reference: _BADGES.get(word, "plain") for reference, word in words.items()},
        "evidence": [(cell, evidence_row(report, cell)) for cell in report.cells.values()],
        "levels": {ref: level_word(report, cell) for ref, cell in report.cells.items()},
        "measures": [
            (", ".join(cell.labels), measures_row(report, cell)) for cell in report.cells.values()
        ],
        "sentences": [*report.findings, *remarks(report)],
        "reasons": verdict_reasons(report),
        "notes": report.notes,
        "figures": [(p, Markup(p.svg)) for p in report.pictures if p.svg],
        "galleries": [p for p in report.pictures if p.image],
    }
