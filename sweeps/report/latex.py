"""The report's tables as a LaTeX document, in the paper's layout, to compile or to copy from.

Needs the packages booktabs and amssymb, which every TeX distribution has.
"""

from sweeps.report.lines import MEASURES, measured, measures_row, verdict_word
from sweeps.report.model import CellReport, Report, TableReport
from sweeps.report.preamble import legend, scale_warning
from sweeps.report.words import DASH, number, signed
from sweeps.tables.paper import NO, YES

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "–": "--",
    "[": "{[}", "]": "{]}", "*": "{*}", '"': "''",
}  # fmt: skip
_SYMBOLS = {YES: r"\checkmark", NO: ""}
_AS_WRITTEN = {
    "lambda_s": r"$\lambda_s$", "lambda_bs": r"$\lambda_{bs}$", "alpha": r"$\alpha$",
    "beta": r"$\beta$", "M_e": "$M_e$", "M_d": "$M_d$",
}  # fmt: skip

DOCUMENT = r"""\documentclass{article}
\usepackage{textcomp,booktabs,amssymb,graphicx}
\usepackage[margin=2cm]{geometry}
\begin{document}
\section*{%s}
%s
%s
\end{document}
"""


def latex(report: Report) -> str:
    """Return a document with one table environment per table."""
    lines = [report.description, scale_warning(report) or "", *legend(report)]
    lines += [f"Table {', '.join(n.tables)}: {n.text}" for n in report.paper_notes]
    preamble = "\n\n".join(escape(line) for line in lines if line)
    tables = "\n".join(_table(report, table) for table in report.tables)
    return DOCUMENT % (escape(report.title), preamble, tables)


def escape(text: str) -> str:
    """Return text in which nothing is a command; characters beyond Latin-1 become `?`."""
    return "".join(
        _SPECIAL.get(c, c if ord(c) < 256 and c.isprintable() else "?")
        for c in " ".join(text.split())
    )


def _table(report: Report, table: TableReport) -> str:
    single = len(table.table.columns) == 1
    rows = _list(table) if single else _grid(table)
    mark = "" if not report.scale_marks else " \\textbf{Small scale.}"
    what = report.measure.describe(report.sweep.base.labels)
    body = [
        r"\begin{table}[htbp]",
        rf"\renewcommand{{\thetable}}{{{escape(table.table.name)}}}",
        r"\centering",
        rf"\caption{{{escape(table.table.title)}: {escape(what)}; mean $\pm$ SD over seeds."
        rf"{' In parentheses, the paper.' if not single else ''}{mark}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *rows,
        r"}",
        r"\par\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *_measures(table),
        r"}",
        *(rf"\par\smallskip\small {escape(text)}" for text in (table.headline, *table.findings)),
        r"\end{table}",
    ]
    return "\n".join(body)


def _list(report: TableReport) -> list[str]:
    """One line per cell: labels, paper, measured, difference, verdict."""
    names = [_name(name) for name in report.table.row_names]
    header = [*names, "paper", "measured", "seeds", "paper's diff.", "measured diff.", "verdict"]
    lines = [rf"\begin{{tabular}}{{{'c' * len(names)}rrrrrl}}", r"\toprule"]
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    for cell in report.cells.values():
        evidence = cell.evidence
        entries = [
            *(_SYMBOLS.get(label, escape(label)) for label in cell.labels),
            escape(number(cell.paper)),
            escape(measured(cell)),
            str(len(cell.values)),
            escape(signed(evidence.paper_difference) if evidence else DASH),
            escape(signed(evidence.differences.mean) if evidence else DASH),
            escape(verdict_word(report, cell)),
        ]
        lines.append(" & ".join(entries) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _measures(report: TableReport) -> list[str]:
    """One line per cell: its mIoU under every measure, and whether it is of level or shape."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(MEASURES) - 1)}l}}", r"\toprule"]
    lines += [" & ".join(("cell", *MEASURES)) + r" \\", r"\midrule"]
    for cell in report.cells.values():
        entries = (", ".join(cell.labels), *measures_row(report, cell))
        lines.append(" & ".join(map(escape, entries)) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _grid(report: TableReport) -> list[str]:
    """Rows and columns as printed; in each place the measured number and the paper's."""
    table = report.table
    names = [_name(name) for name in table.row_names]
    lines = [rf"\begin{{tabular}}{{{'c' * len(names)}{'c' * len(table.columns)}}}", r"\toprule"]
    spanned = rf"\multicolumn{{{len(table.columns)}}}{{c}}{{{_name(table.column_name)}}}"
    lines.append(" & ".join([*([""] * len(names)), spanned]) + r" \\")
    lines.append(" & ".join([*names, *(escape(column) for column in table.columns)]) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        cells = [report.cells[table.reference(row, column)] for column in table.columns]
        labels = [_SYMBOLS.get(label, escape(label)) for label in row.labels]
        lines.append(" & ".join([*labels, *(_both(cell) for cell in cells)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _both(cell: CellReport) -> str:
    printed = "" if cell.paper is None else f" ({number(cell.paper)})"
    return escape(measured(cell) + printed)


def _name(name: str) -> str:
    return _AS_WRITTEN.get(name, escape(name))
