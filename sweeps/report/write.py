"""Writes a report in all its formats."""

from pathlib import Path

from rich.console import Console

from sweeps.report.csv_file import csv_text
from sweeps.report.html import html
from sweeps.report.latex import latex
from sweeps.report.markdown import markdown
from sweeps.report.model import Report
from sweeps.report.terminal import print_report
from sweeps.store.store import Store

TERMINAL_WIDTH = 110


def report_folder(store: Store, report: Report) -> Path:
    """Return where a sweep's report lies by default."""
    return store.sweep(report.sweep.name) / "report"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.html, .md, .tex, .csv and .txt; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with (folder / "report.txt").open("w", encoding="utf-8") as file:
        print_report(Console(file=file, width=TERMINAL_WIDTH, color_system=None), report)
        written.append(folder / "report.txt")
    for name, text in (
        ("report.html", html(report)),
        ("report.md", markdown(report)),
        ("report.tex", latex(report)),
        ("report.csv", csv_text(report)),
    ):
        path = folder / name
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        written.append(path)
    return written
