"""Writes a headline's report in all its formats."""

from pathlib import Path

from sweeps.report.headline.csv_file import csv_text
from sweeps.report.headline.html import html
from sweeps.report.headline.latex import latex
from sweeps.report.headline.markdown import markdown
from sweeps.report.headline.model import HeadlineReport


def write_headline_report(report: HeadlineReport, folder: Path) -> list[Path]:
    """Write headline.html, .md, .csv and .tex, each whole or not at all; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (
        ("headline.html", html(report)),
        ("headline.md", markdown(report)),
        ("headline.csv", csv_text(report)),
        ("headline.tex", latex(report)),
    ):
        path = folder / name
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        written.append(path)
    return written
