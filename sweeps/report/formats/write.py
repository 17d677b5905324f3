"""Writes a report in all its formats."""

from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

from rich.console import Console

from sweeps.report.document import Document
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.html import html
from sweeps.report.formats.latex import latex, latex_tables
from sweeps.report.formats.markdown import markdown
from sweeps.report.formats.terminal import print_document
from wsss.basics.files import whole_or_absent

TERMINAL_WIDTH = 120
"""Characters per line of the text file: the paper's widest table fits."""


def as_text(document: Document, width: int = TERMINAL_WIDTH) -> str:
    """Return what a terminal of this width shows, without colours."""
    file = StringIO()
    print_document(Console(file=file, width=width, color_system=None), document)
    return file.getvalue()


FORMATS: dict[str, Callable[[Document], str]] = {
    "html": html,
    "md": markdown,
    "tex": latex,
    "csv": lambda document: records_text(document.records),
    "txt": as_text,
}


def write_document(document: Document, folder: Path, name: str) -> list[Path]:
    """Write `name`.html, .md, .tex, .csv and .txt, and the tables alone as table.tex.

    Each is written whole or not at all. Returns their paths, the page first.
    """
    written = []
    for file, text in rendered(document, name):
        path = folder / file
        with whole_or_absent(path) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def rendered(document: Document, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each of these files."""
    for ending, render in FORMATS.items():
        yield f"{name}.{ending}", render(document)
    yield "table.tex", latex_tables(document)
