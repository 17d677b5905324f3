"""A report as a LaTeX document, its tables in the paper's layout, to compile or to copy from.

Needs the packages booktabs and amssymb, which every TeX distribution has. A numbered section is a
table environment: its grids, then its words in small print.
"""

from collections.abc import Iterator
from itertools import groupby

from sweeps.report.document import (
    Block,
    Bullets,
    Details,
    Document,
    Facts,
    Format,
    Grid,
    Panel,
    Section,
    Text,
    flat,
    shown,
)
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
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks a table that is wider than the page."""

_DOCUMENT = r"""\documentclass{article}
\usepackage{textcomp,booktabs,amssymb,graphicx}
\usepackage[margin=2cm]{geometry}
\begin{document}
\section*{%s}
%s
%s
\end{document}
"""


def latex(document: Document) -> str:
    """Return a document with one table environment per numbered section."""
    sections = document.sections_in(Format.latex)
    mark = r" \textbf{Small scale.}" if document.small_scale else ""
    body = [
        _float(section, mark)
        if section.number
        else "\n\n".join([rf"\subsection*{{{escape(section.title)}}}", *_words(section.blocks)])
        for section in sections
    ]
    preamble = "\n\n".join(_words(document.head))
    return _DOCUMENT % (escape(document.title), preamble, "\n\n".join(body))


def escape(text: str) -> str:
    """Return text in which nothing is a command; characters beyond Latin-1 become `?`."""
    return "".join(
        _SPECIAL.get(c, c if ord(c) < 256 and c.isprintable() else "?")
        for c in " ".join(text.split())
    )


def _float(section: Section, mark: str) -> str:
    """Return a section's grids and words as a table environment under the table's own number."""
    grids = [block for block in shown(section.blocks, Format.latex) if isinstance(block, Grid)]
    tabulars = "\n\\par\\smallskip\n".join(
        "\n".join([_FITTED, *_tabular(grid), "}"]) for grid in grids
    )
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            rf"\renewcommand{{\thetable}}{{{escape(section.number)}}}",
            r"\centering",
            rf"\caption{{{escape(section.caption)}{mark}}}",
            tabulars,
            *(rf"\par\smallskip\small {words}" for words in _words(section.blocks)),
            r"\end{table}",
        ]
    )


def _words(blocks: tuple[Block, ...]) -> Iterator[str]:
    """Yield the paragraphs that are not in grids, escaped."""
    for block in shown(blocks, Format.latex):
        match block:
            case Text(text):
                yield escape(text)
            case Bullets(items):
                yield from map(escape, items)
            case Panel(verdict, items):
                yield from map(escape, filter(None, (verdict, *items)))
            case Facts(_, rows):
                yield from (escape(f"{name}: {value}") for name, value in rows)
            case Details(_, inner):
                yield from _words(inner)
            case _:
                pass  # grids, links and pictures


def _tabular(grid: Grid) -> list[str]:
    """Return a grid with its labels as symbols, and a rule between its groups of lines."""
    head, groups = flat(grid, short=True, folded=False)
    num_labels = len(head) - len(grid.columns)
    aligned = "".join(column.align[0] for column in grid.columns)
    centred = "c" if grid.style in ("layout", "evidence") else "l"
    lines = [rf"\begin{{tabular}}{{{centred * num_labels}{aligned}}}", r"\toprule"]
    if any(column.group for column in grid.columns):
        spans = [
            rf"\multicolumn{{{len(list(columns))}}}{{c}}{{{_name(name)}}}"
            for name, columns in groupby(column.group for column in grid.columns)
        ]
        lines.append(_line([*([""] * num_labels), *spans]))
    lines.append(_line([_name(name) for name in head]))
    for group in groups:
        lines.append(r"\midrule")
        for line in group:
            labels = [_SYMBOLS.get(label, escape(label)) for label in line[:num_labels]]
            lines.append(_line([*labels, *map(escape, line[num_labels:])]))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _line(entries: list[str]) -> str:
    return " & ".join(entries) + r" \\"


def _name(name: str) -> str:
    return _AS_WRITTEN.get(name, escape(name))
