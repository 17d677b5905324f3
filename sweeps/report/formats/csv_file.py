"""Records as CSV: numbers unrounded, for spreadsheets and scripts."""

import csv
from io import StringIO

from sweeps.report.document import Records
from wsss.basics.printable import printable

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Signs that start a formula, and their full-width forms, which some spreadsheets also accept."""


def records_text(records: Records) -> str:
    """Return a header and a line for each record."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for record in (records.columns, *records.rows):
        writer.writerow([safe(value) for value in record])
    return buffer.getvalue()


def safe(value: object) -> object:
    """Return a value that no spreadsheet runs as a formula and that stays on its line.

    A lone carriage return would end the row for most readers, and a formula could follow it.
    """
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(" ".join(value.split()))
    return f"'{text}" if text.startswith(_FORMULA) else text
