"""Records as CSV: numbers unrounded, for spreadsheets and scripts."""

import csv
from io import StringIO

from sweeps.report.document import Document, Records
from wsss.printable import printable

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Also in full width, which some spreadsheets read as the sign."""


def csv_text(document: Document) -> str:
    """Return a header and a line for each record of a report."""
    return records_text(document.records)


def records_text(records: Records) -> str:
    """Return a header and a line for each record."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for record in (records.columns, *records.rows):
        writer.writerow([safe(value) for value in record])
    return buffer.getvalue()


def safe(value: object) -> object:
    """Keep a spreadsheet from running text as a formula, and text from breaking its line.

    A lone carriage return ends a row for most readers, and the next cell could be a formula.
    """
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(" ".join(value.split()))
    return f"'{text}" if text.startswith(_FORMULA) else text
