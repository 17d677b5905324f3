"""The report as GitHub-flavoured Markdown."""

import re
from collections.abc import Sequence

from sweeps.report.lines import (
    COLUMNS,
    MEASURES,
    evidence_row,
    measures_row,
    remarks,
    verdict_reasons,
)
from sweeps.report.model import Report, TableReport
from sweeps.report.preamble import legend, scale_warning
from wsss.printable import printable, web_address

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$])")


def markdown(report: Report) -> str:
    """Return the report as Markdown text."""
    parts = [f"# {escape(report.title)}", escape(report.description)]
    if warning := scale_warning(report):
        parts.append(f"**{escape(warning)}**")
    parts += [escape(line) for line in legend(report)]
    parts += [_table(table) for table in report.tables]
    if report.paper_notes:
        parts.append("## The paper's own figures")
        parts.append(
            bullets([f"Table {', '.join(n.tables)}: {n.text}" for n in report.paper_notes])
        )
    for title, rows, header in (
        ("Failures", report.failures, ("trial", "reason")),
        ("What the failures mean", report.failure_meanings, ("failure", "meaning")),
        ("Warnings", report.warnings, ("trial", "warning")),
        ("Costs", report.costs, ("what", "how much")),
        ("Open points of the paper, as decided here", report.readings, ("setting", "value", "why")),
        (
            "Settings that differ from the paper preset",
            report.changes,
            ("setting", "paper preset", "here"),
        ),
        ("Provenance", report.provenance, ("what", "value")),
    ):
        if rows:
            parts += [f"## {title}", grid(header, rows)]
    return "\n\n".join(parts) + "\n"


def _table(report: TableReport) -> str:
    rows = [evidence_row(report, cell) for cell in report.cells.values()]
    measures = [
        (", ".join(cell.labels), *measures_row(report, cell)) for cell in report.cells.values()
    ]
    parts = [
        f"## Table {escape(report.table.name)}. {escape(report.table.title)}",
        f"**{escape(report.headline)}**",
        grid((", ".join(_axes(report)), *COLUMNS[1:]), rows),
        grid((", ".join(_axes(report)), *MEASURES), measures),
        bullets([*report.findings, *verdict_reasons(report), *remarks(report)]),
    ]
    if report.notes:
        parts.append(bullets([f"Note: {note}" for note in report.notes]))
    links = [
        f"[{escape(cell.reference)} {label}](<{web_address(url)}>)"
        for cell in report.cells.values()
        for label, url in cell.links
    ]
    if links:
        parts.append(f"MLflow runs: {', '.join(links)}")
    return "\n\n".join(parts)


def _axes(report: TableReport) -> tuple[str, ...]:
    table = report.table
    return table.row_names if len(table.columns) == 1 else (*table.row_names, table.column_name)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a pipe table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(escape(c) for c in line) + " |" for line in lines)


def bullets(lines: Sequence[str]) -> str:
    """Return a bulleted list."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def escape(text: str) -> str:
    """Return text in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())).replace("&", "&amp;"))
