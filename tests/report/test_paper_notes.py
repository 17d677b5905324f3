"""The paper's own inconsistencies: each in the report of its tables, and in no other."""

import re
from pathlib import Path

import pytest
from finished import finished_sweep

from sweeps.report.formats.write import as_text
from sweeps.report.tables.build import build_report
from sweeps.report.tables.document import sweep_document
from sweeps.store.store import Store
from sweeps.tables.notes import notes_on, paper_notes
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
    named = {table for note in paper_notes() for table in note.tables}
    assert named >= {"I", "II", "III", "IV", "V", "VI"}
    assert named <= TABLES.keys() | HEADLINE
    assert all(note.tables for note in paper_notes())


@pytest.mark.parametrize(
    ("table", "figures"),
    [
        ("II", ["67.005", "67.3", "0.07", "66.0", "75.2", "-9.2"]),
        ("V", ["16 printed cells", "0.08", "0.024", "0.60", "+1.74"]),  # 3.532 x .17 = .60
        ("IV", ["+0.68", "+0.82", "+1.08", "+2.58", "+1.30"]),
        ("VI", ["+2.58", "+1.30"]),
        ("III", ["+0.68", "+0.42", "+1.10", "+1.74"]),
        ("III", ["300", "0.8 g + 150", "99", "1,464", "1,462", "183"]),  # .8 x 255 + 150 - 255 = 99
        ("I", ["50.86", "67.3", "16.4", "Su et al. (ICCV21) and Zhang et al. (ACMMM21)", "[44]"]),
    ],
)
def test_notes_state_the_figures_worked_out_by_hand(table: str, figures: list[str]) -> None:
    text = "\n".join(note.text for note in notes_on([table]))
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", text), figure


@pytest.mark.parametrize("table", sorted(LOOKED_AT))
def test_a_note_stands_in_the_report_of_its_tables_and_in_no_other(
    table: str, tmp_path: Path
) -> None:
    report = build_report(finished_sweep((table,), 1), Store(tmp_path))
    text = as_text(sweep_document(report), width=10_000)
    shown = {words for words in STANDS_IN if words in text}
    assert shown == {words for words, tables in STANDS_IN.items() if table in tables}
    assert set(re.findall(r"^ +Table (.*?):", text, re.MULTILINE)) <= {table}


def test_the_persons_iou_is_a_note_on_table_ii_alone() -> None:
    (note,) = (note for note in paper_notes() if "person" in note.text)
    assert note.tables == ("II",)
