"""The headline's tables as a LaTeX document, to compile or to copy from. Needs booktabs alone."""

from collections.abc import Sequence

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
from sweeps.report.latex import DOCUMENT, escape


def latex(report: HeadlineReport) -> str:
    """Return a document with one table environment per table."""
    lines = [report.warning or "", *report.findings, *legend(report.headline)]
    preamble = "\n\n".join(escape(line) for line in lines if line)
    tables = [
        _table(
            report, "I", "Segmentation mIoU in percent", TABLE_I_COLUMNS,
            [printed_i(), measured_i(report)], report.network_scale,
        ),
        _table(
            report, "II", f"IoU per class in percent, {report.split}", class_columns(report),
            [class_lines(report)[:-1], class_lines(report)[-1:]], report.network_scale,
        ),
    ]  # fmt: skip
    if report.labels:
        caption = "Labels of training images before and behind refinement, percent"
        tables.append(
            _table(report, "L", caption, LABEL_COLUMNS, [label_lines(report)], report.label_scale)
        )
    return DOCUMENT % (escape(report.title), preamble, "\n".join(tables))


def _table(
    report: HeadlineReport,
    number: str,
    caption: str,
    columns: Sequence[str],
    groups: Sequence[Sequence[Sequence[str]]],
    scale: str,
) -> str:
    """Return a table whose groups of lines are parted by a rule."""
    mark = r" \textbf{Small scale.}" if report.warning else ""
    rows = r"\midrule".join(
        "\n" + "".join(f"{' & '.join(escape(entry) for entry in line)} \\\\\n" for line in group)
        for group in groups
    )
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            rf"\renewcommand{{\thetable}}{{{number}}}",
            r"\centering",
            rf"\caption{{{escape(caption)}.{mark}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(escape(column) for column in columns) + r" \\",
            rf"\midrule{rows}\bottomrule",
            r"\end{tabular}}",
            rf"\par\smallskip\small {escape(scale)}",
            r"\end{table}",
        ]
    )
