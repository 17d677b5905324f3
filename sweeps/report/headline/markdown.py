"""The headline's report as GitHub-flavoured Markdown."""

from sweeps.report.headline.model import HeadlineReport
from sweeps.report.headline.words import (
    LABEL_COLUMNS,
    TABLE_I_COLUMNS,
    class_columns,
    class_lines,
    label_lines,
    legend,
    measured_i,
    printed_i,
)
from sweeps.report.markdown import bullets, escape, grid


def markdown(report: HeadlineReport) -> str:
    """Return the report as Markdown text; the gallery is the file beside it."""
    parts = [f"# {escape(report.title)}"]
    if report.warning:
        parts.append(f"**{escape(report.warning)}**")
    if report.findings:
        parts.append(bullets(report.findings))
    parts += [escape(line) for line in legend(report.headline)]
    tables = [
        (
            "Table I. Segmentation mIoU (%)", TABLE_I_COLUMNS,
            [*printed_i(), *measured_i(report)], report.network_scale,
        ),
        (
            f"Table II. IoU per class (%), {report.split}", class_columns(report),
            class_lines(report), report.network_scale,
        ),
    ]  # fmt: skip
    if report.labels:
        title = "Labels of training images, before and behind refinement"
        tables.append((title, LABEL_COLUMNS, label_lines(report), report.label_scale))
    for title, columns, lines, scale in tables:
        parts += [f"## {escape(title)}", grid(columns, lines), escape(scale)]
        if report.warning:
            parts.append(f"**{escape(report.warning)}**")
    if report.gallery:
        parts += [
            f"## {escape(report.gallery.title)}", "![gallery](gallery.png)",
            escape(report.gallery.caption),
        ]  # fmt: skip
    notes = [f"Table {', '.join(note.tables)}: {note.text}" for note in report.paper_notes]
    parts += ["## The paper's own figures", bullets(notes)]
    provenance = [*report.provenance, ("report written", report.created)]
    parts += ["## Provenance", grid(("what", "value"), provenance)]
    return "\n\n".join(parts) + "\n"
