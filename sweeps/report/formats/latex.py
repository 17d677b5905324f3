"""A report as a LaTeX document, its tables in the paper's layout, to compile or to copy from.

It needs only packages that every TeX distribution has. A numbered section becomes a table
environment: its grids, then its text in small print.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from sweeps.report.document import (
    Block,
    Bullets,
    Command,
    Details,
    Document,
    Format,
    Grid,
    Section,
    Strip,
    Text,
    column_groups,
    flat,
    shown,
)
from sweeps.report.words import greek
from sweeps.tables.paper import NO, YES

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    '"': "''",
    "λ": r"$\lambda$",
}
_SYMBOLS = {YES: r"\checkmark", NO: ""}
_AS_WRITTEN = {"alpha": r"$\alpha$", "beta": r"$\beta$", "M_e": "$M_e$", "M_d": "$M_d$"}
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks a table that is wider than the page."""

_DOCUMENT = r"""\documentclass{article}
\usepackage{textcomp,booktabs,amssymb,graphicx,xcolor}
\usepackage[margin=2cm]{geometry}
\begin{document}
\section*{%s}
%s
%s
\end{document}
"""


def latex(document: Document) -> str:
    """Return a document with one table environment per numbered section."""
    body = [
        _float(section, document.mark)
        if section.number
        else "\n\n".join([rf"\subsection*{{{escape(section.title)}}}", *_words(section.blocks)])
        for section in document.sections_in(Format.latex)
    ]
    preamble = "\n\n".join(_words(document.head))
    return _DOCUMENT % (escape(document.title), preamble, "\n\n".join(body))


def latex_tables(document: Document) -> str:
    r"""Return the tables alone, to `\input` into a paper."""
    packages = "booktabs, amssymb, graphicx, xcolor and textcomp"
    floats = [
        _float(replace(section, blocks=_grids(section)), document.mark)
        for section in document.sections_in(Format.latex)
        if section.number
    ]
    return "\n\n".join([f"% Needs the packages {packages}.", *floats, ""])


def escape(text: str) -> str:
    """Return text in which nothing is a command; characters beyond Latin-1 become `?`."""
    escaped = "".join(
        _SPECIAL.get(c, c if ord(c) < 256 and c.isprintable() else "?")
        for c in " ".join(greek(text).split())
    )
    return re.sub(r"\\lambda\$\\_(b?s)", r"\\lambda_{\1}$", escaped)


def _grids(section: Section) -> tuple[Grid, ...]:
    return tuple(b for b in shown(section.blocks, Format.latex) if isinstance(b, Grid))


def _float(section: Section, mark: str) -> str:
    """Return a section's grids and text as a table environment with the table's own number."""
    tabulars = "\n\\par\\smallskip\n".join(
        "\n".join([_FITTED, *_tabular(grid), "}"]) for grid in _grids(section)
    )
    marked = rf" \textbf{{{escape(mark.capitalize())}.}}" if mark else ""
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            rf"\renewcommand{{\thetable}}{{{escape(section.number)}}}",
            r"\centering",
            rf"\caption{{{escape(section.caption)}{marked}}}",
            tabulars,
            *(rf"\par\smallskip\raggedright\small {words}" for words in _words(section.blocks)),
            r"\end{table}",
        ]
    )


def _words(blocks: tuple[Block, ...]) -> Iterator[str]:
    """Yield the text outside grids, escaped, by paragraph."""
    for block in shown(blocks, Format.latex):
        match block:
            case Text(text):
                yield escape(text)
            case Bullets(items):
                yield from map(escape, items)
            case Strip(question, answer):
                yield rf"{escape(question)} \textbf{{{escape(answer)}}}"
            case Command(lead, command):
                unbroken = escape(command).replace("/", r"/\allowbreak{}")
                yield rf"{{\raggedright {escape(lead)}: \texttt{{{unbroken}}}\par}}"
            case Details(_, inner):
                yield from _words(inner)
            case _:
                pass  # grids and pictures


def _tabular(grid: Grid) -> list[str]:
    """Return a grid with a rule between its groups; yes and no are symbols."""
    head, groups = flat(grid, short=True)
    num_labels = len(head) - len(grid.columns)
    aligned = "".join(column.align[0] for column in grid.columns)
    centred = "c" if grid.style in ("layout", "evidence") else "l"
    lines = [rf"\begin{{tabular}}{{{centred * num_labels}{aligned}}}", r"\toprule"]
    if groups_of_columns := column_groups(grid):
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{_name(name)}}}" for name, n in groups_of_columns]
        lines.append(_line([*([""] * num_labels), *spans]))
    lines.append(_line([_name(name) for name in head]))
    for texts in groups:
        lines.append(r"\midrule")
        for line in texts:
            labels = [_SYMBOLS.get(label, escape(label)) for label in line[:num_labels]]
            entries = [
                rf"\textcolor{{gray}}{{{escape(entry)}}}" if column.faint else escape(entry)
                for column, entry in zip(grid.columns, line[num_labels:], strict=True)
            ]
            lines.append(_line([*labels, *entries]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _line(entries: list[str]) -> str:
    return " & ".join(entries) + r" \\"


def _name(name: str) -> str:
    return _AS_WRITTEN.get(name, escape(name))
