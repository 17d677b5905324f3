"""The paper's own inconsistencies: each in the report of its tables, and in no other."""

import math
import re

import numpy as np
import pytest
from made_up.finished import finished_sweep

from sweeps.report.formats.write import FORMATS
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.model import build_report
from sweeps.store.store import Store
from sweeps.tables.notes import NOTES
from sweeps.tables.segmentation import TABLE_I, TABLE_II, TABLE_II_CLASSES
from sweeps.tables.studies import TABLES

HEADLINE = {"I", "II"}
VIEWS = {"III", "V", "views-alone"}
EQ2 = VIEWS | {"eq2-readings", "alpha-beta-enhanced", "alpha-beta-decreased"}
STANDS_IN = {
    "the enhanced view of any image is all white": EQ2,
    "both views are brighter than the image": EQ2,
    "A dilation of 0 means nothing": {"IV", "factorial"},
    "Eq. 5 compares M_d and M_e with M_o": VIEWS,
    "Eq. 4 as printed sums": VIEWS | {"controls", "controls-summed"},
    "1,462 usable": {"III", "IV", "V", "VI"},
    "evaluate.py": {"III", "IV", "V", "VI"},
    "Here each weight changes tenfold": {"V"},
}
LOOKED_AT = {"noise-floor"}.union(*STANDS_IN.values())


def test_every_table_of_the_paper_has_a_note_and_every_note_its_tables() -> None:
    named = {table for note in NOTES for table in note.tables}
    assert named >= {"I", "II", "III", "IV", "V", "VI"}
    assert named <= TABLES.keys() | HEADLINE
    assert all(note.tables for note in NOTES)
    assert [note.tables for note in NOTES if "person" in note.text] == [("II",)]


def test_the_figures_follow_from_the_printed_tables() -> None:
    def gain(table: str, cell: str, base: str) -> str:
        printed = {name: each.paper or 0 for name, each in TABLES[table].cells()}
        return f"{printed[f'{table}[{cell}]'] - printed[f'{table}[{base}]']:+.2f}"

    text = "\n".join(note.text for note in NOTES)
    gains = [gain("III", cell, "no,no") for cell in ("yes,no", "no,yes", "yes,yes")]
    assert "({2}) than the sum of what each gains alone ({0} and {1}".format(*gains) in text
    cells = ("yes,no,no", "no,yes,no", "yes,yes,yes")
    atrous, context, whole = (gain("IV", cell, "no,no,no") for cell in cells)
    assert f"{atrous} (multi-scale atrous), {context} (context association)" in text
    assert f"{gain('VI', 'yes,yes', 'no,no')} (channel and spatial attention)" in text
    assert f"all of them gains {whole}" in text
    lambdas = [cell.paper or 0 for _, cell in TABLES["V"].cells()]
    assert f"span {np.ptp(lambdas):.2f} mIoU (SD {np.std(lambdas):.3f})" in text
    assert f"span about {3.532 * 0.17:.2f}" in text
    *others, ours = TABLE_II
    apart = max(abs(np.mean(row.ious) - row.printed_mean) for row in others)
    assert f"average {np.mean(ours.ious):.3f}, not the printed {ours.printed_mean}" in text
    assert f"within {math.ceil(100 * apart) / 100:.2f}" in text
    behind = np.max([row.ious for row in others], axis=0) - ours.ious
    assert TABLE_II_CLASSES[int(behind.argmax())] == "person"
    assert f"as far behind ({-behind.max():+.1f})" in text
    assert f"{TABLE_I[-1].val - 50.86:.1f} more" in text


@pytest.mark.parametrize("table", sorted(LOOKED_AT))
def test_a_note_stands_in_the_report_of_its_tables_and_in_no_other(
    table: str, store: Store
) -> None:
    report = build_report(finished_sweep((table,), 1), store)
    text = FORMATS["md"](sweep_document(report)).replace("\\", "")
    shown = {words for words in STANDS_IN if words in text}
    assert shown == {words for words, tables in STANDS_IN.items() if table in tables}
    assert set(re.findall(r"^- Table (.*?):", text, re.MULTILINE)) <= {table}
