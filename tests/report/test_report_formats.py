"""The renderers: every block in every format, with text from outside that means harm."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from sweeps.report.document import (
    ON_PAGES,
    Badge,
    Bullets,
    Column,
    Command,
    Details,
    Document,
    Format,
    Grid,
    Heading,
    Measured,
    Only,
    Picture,
    Pictures,
    Records,
    Row,
    RowGroup,
    Section,
    Strip,
    Text,
    in_one_group,
)
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.html import html
from sweeps.report.formats.latex import escape as latex_escape
from sweeps.report.formats.latex import latex, latex_tables
from sweeps.report.formats.markdown import markdown
from sweeps.report.formats.write import as_text

HOSTILE = "=cmd() <script>alert(1)</script> \\input{/etc/passwd} $x_1$ | `b` & 9%\x1b]0;x\x07\r"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def document(*blocks: object, number: str = "", head: tuple[object, ...] = ()) -> Document:
    """A report of one section."""
    section = Section("A section", "Sec", "sec", blocks, number=number, caption="Caption.")  # type: ignore[arg-type]
    return Document("A title", head, (section,), Records((), ()), mark="SMALL SCALE")  # type: ignore[arg-type]


def grid_of(columns: Iterable[Column | str], *rows: Row) -> Grid:
    columns = tuple(Column(each) if isinstance(each, str) else each for each in columns)
    return Grid("t", ("cell",), columns, in_one_group(rows))


def rendered(report: Document) -> dict[Format, str]:
    return {
        Format.html: html(report),
        Format.markdown: markdown(report),
        Format.latex: latex(report),
        Format.terminal: as_text(report),
    }


GRID = Grid(
    "numbers",
    ("method",),
    (
        Column("val", short="v"),
        Column("SEAM", group="printed", formats=ON_PAGES),
        Column("ours", group="measured"),
    ),
    (
        RowGroup("old ones", (Row(("a",), ("1.0", "2.0", "3.0 ± 0.5"), formats=ON_PAGES),)),
        RowGroup("new ones", (Row(("b",), ("4.0", "5.0", "6.0"), strong=True),)),
    ),
    group_name="origin",
)


def test_a_format_shows_the_blocks_rows_and_columns_that_it_has_room_for() -> None:
    found = rendered(
        document(GRID, Only(frozenset({Format.latex}), (Text("on paper"),)), number="I")
    )
    for form, text in found.items():
        assert ("on paper" in text) == (form is Format.latex)
        assert ("SEAM" in text) == (form in ON_PAGES)
        assert ("old ones" in text) == (form in ON_PAGES)
        assert "new ones" in text


def test_markdown_makes_columns_of_row_groups_and_names_of_column_groups() -> None:
    lines = [line for line in markdown(document(GRID)).splitlines() if line.startswith("|")]
    assert lines == [
        "| method | origin | val | SEAM (printed) | ours (measured) |",
        "| --- | --- | --- | --- | --- |",
        "| a | old ones | 1.0 | 2.0 | 3.0 ± 0.5 |",
        "| b | new ones | 4.0 | 5.0 | 6.0 |",
    ]


def test_a_page_groups_rows_and_columns_and_marks_strong_ones() -> None:
    page = html(document(GRID))
    assert '<th colspan="4" scope="rowgroup">old ones</th>' in page
    assert '<th colspan="1" scope="colgroup">printed</th>' in page
    assert '<tr class="strong"><th scope="row">b</th>' in page


def test_a_numbered_section_is_a_latex_table_with_its_words_in_small_print() -> None:
    strip = Strip("Holds?", "Yes.", "good", "sweeps run III")
    text = latex(document(strip, Bullets(("Because.",)), GRID, number="III"))
    order = [
        r"\begin{table}",
        r"\renewcommand{\thetable}{III}",
        r"\caption{Caption. \textbf{Small",
        r" &  & \multicolumn{1}{c}{} & \multicolumn{1}{c}{measured} \\",
        r"method & origin & v & ours \\",
        r"\midrule",
        r"b & new ones & 4.0 & 6.0 \\",
        r"\small Holds? \textbf{Yes.}",
        r"\small Because.",
        r"\end{table}",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert r"\begin{table}" not in latex(document(Text("words")))


def test_symbols_of_the_paper_stand_in_heads_and_labels_alone() -> None:
    grid = grid_of(["M_d"], Row(("yes", "no"), ("yes",)))
    text = latex(document(replace(grid, label_names=("M_e", "lambda_bs")), number="III"))
    assert r"$M_e$ & $\lambda_{bs}$ & $M_d$ \\" in text
    words = document(Text("lambda_s = lambda_bs, by transfer.lambda_s, grid-lambda_s"))
    assert r"$\lambda_{s}$ = $\lambda_{bs}$, by transfer.lambda\_s, grid-lambda\_s" in latex(words)
    assert "λ_s = λ_bs, by transfer.lambda_s, grid-lambda_s" in html(words)
    assert "lambda_s = lambda_bs" in as_text(words)
    assert r"\checkmark &  & yes \\" in text


def test_a_column_that_says_nothing_is_in_no_format() -> None:
    grid = grid_of(["empty", "full"], Row(("a",), ("–", "1.0")), Row(("b",), ("", "–")))
    for text in rendered(document(grid, number="V")).values():
        assert "empty" not in text
        assert "full" in text


def test_the_tables_alone_are_what_the_latex_document_holds_without_its_words() -> None:
    report = document(Text("words"), GRID, number="III")
    alone = latex_tables(report)
    assert alone.startswith("% Needs the packages booktabs")
    assert "documentclass" not in alone
    assert "words" not in alone
    tabular = alone[alone.index(r"\begin{tabular}") : alone.index(r"\end{tabular}")]
    assert tabular in latex(report)


def test_a_question_has_its_answer_and_a_command_that_survives_copying() -> None:
    command = "sweeps run V --table lambda_s --store " + "long/" * 20
    found = rendered(document(Strip("Does V hold?", "Cannot tell.", "open", command)))
    for form, text in found.items():
        assert "Does V hold?" in text
        assert "Cannot tell." in text
        assert (command in text) == (form is not Format.latex)
    assert '<div class="strip open"' in found[Format.html]
    assert command in as_text(document(Command("Again", command)), width=40)


def test_a_terminal_breaks_no_word_and_no_number_however_narrow_it_is() -> None:
    columns = "95 % over seeds", "measured difference", Column("v", align="left")
    row = Row(("a multi-scale label",), ("[+1.64, +1.69]", "30.41 ± 0.34", "no difference"))
    report = document(grid_of(columns, row))
    whole = set(as_text(report, width=200).split())
    for width in range(44, 90):
        narrow = as_text(report, width=width)
        assert "[+1.64, +1.69]" in narrow
        assert {word.strip("─") for word in narrow.split()} <= whole | {""}


def test_a_table_too_wide_for_a_terminal_is_shown_in_parts_with_the_same_labels() -> None:
    row = Row(("first",), tuple(f"{n}.00" for n in range(8)))
    text = as_text(document(grid_of((f"configuration {n}" for n in range(8)), row)), width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("configuration") == 8
    assert text.count("first") == text.count("cell") == 3
    assert all(f"{n}.00" in text for n in range(8))


def test_an_entry_shows_the_printed_number_its_badges_and_links() -> None:
    entry = Measured("48.1", "50.9", (Badge("trend only", "fair"),), (("seed 0", "http://h/1"),))
    found = rendered(document(grid_of(["mIoU"], Row(("a",), (entry,))), number="V"))
    for part in ("<strong>48.1</strong>", "paper 50.9", 'badge fair">trend only', "http://h/1"):
        assert part in found[Format.html]
    for form in (Format.markdown, Format.latex):
        assert "48.1 (50.9)" in found[form]
    lines = [line.split() for line in found[Format.terminal].splitlines()]
    at = lines.index(["a", "48.1"])
    assert lines[at + 1 : at + 3] == [["trend", "only"], ["50.9"]]


def test_pictures_are_on_the_page_and_in_markdown_if_they_are_files() -> None:
    drawn = Picture("Drawn", "How it was drawn", svg="<svg></svg>")
    taken = Picture("Taken", "By whom", image=PIXEL, file="gallery.png")
    found = rendered(document(Pictures((drawn,)), taken))
    assert (
        '<img src="data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=" alt="Drawn">' in found[Format.html]
    )
    assert f'<img src="{PIXEL}"' in found[Format.html]
    assert "![Taken](<gallery.png>)\n\nBy whom" in found[Format.markdown]
    assert "How it was drawn" not in found[Format.markdown] + found[Format.terminal]


def test_a_warning_and_a_small_scale_are_marked() -> None:
    found = rendered(document(GRID, number="I", head=(Text("Too small.", "mark"),)))
    assert '<p class="mark" role="note">Too small.</p>' in found[Format.html]
    assert '<span class="badge fair">SMALL SCALE</span>' in found[Format.html]
    assert "**Too small.**" in found[Format.markdown]
    assert "SMALL SCALE" not in html(document(Text("only words")))


# Escaping


@pytest.fixture(scope="module")
def hostile() -> Document:
    """Every block, made of hostile text."""
    two = (HOSTILE, HOSTILE)
    grid = Grid(
        HOSTILE,
        two,
        (Column(HOSTILE, group=HOSTILE), Column(HOSTILE, wraps=True)),
        (RowGroup(HOSTILE, (Row(two, two),)),),
        group_name=HOSTILE,
    )
    entry = Measured(HOSTILE, HOSTILE, (Badge(HOSTILE),), ((HOSTILE, f"http://{HOSTILE}"),))
    blocks = (
        Text(HOSTILE),
        Heading(HOSTILE),
        Bullets(two),
        Strip(HOSTILE, HOSTILE, "bad", HOSTILE),
        Command(HOSTILE, HOSTILE),
        grid,
        grid_of([""], Row(("",), (entry,))),
        Picture(HOSTILE, HOSTILE, image=PIXEL, file="a.png"),
        Details(HOSTILE, (Text(HOSTILE),)),
    )
    section = Section(HOSTILE, HOSTILE, HOSTILE, blocks, number=HOSTILE, caption=HOSTILE)
    return Document(HOSTILE, blocks, (section,), Records((HOSTILE,), (two,)), HOSTILE)


def test_hostile_text_is_text_in_every_format(hostile: Document) -> None:
    found = rendered(hostile) | {"csv": records_text(hostile.records)}
    for form, text in found.items():
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), form
        assert "cmd()" in text, form  # shown, all the same
    assert "<script" not in found[Format.html]
    assert "&lt;script&gt;" in found[Format.html]
    assert not re.search(r"(?<!\\)<script", found[Format.markdown])
    assert r"\input" not in found[Format.latex]
    assert r"\textbackslash{}input" in found[Format.latex]
    for form in ON_PAGES:
        assert "javascript:" not in found[form]
        assert "data:text" not in found[form]


def test_no_cell_of_a_markdown_table_breaks_its_row(hostile: Document) -> None:
    rows = [line for line in markdown(hostile).splitlines() if line.startswith("| ")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert bars == 2 * [*[6] * 3, *[3] * 3]  # grid with a group, one entry


def test_latex_stays_balanced(hostile: Document) -> None:
    text = latex(hostile)
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(
        re.findall(r"\\end\{(\w+)\}", text)
    )
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 % {x}", r"a\_b \& 5 \% \{x\}"),
        (r"\input{f}", r"\textbackslash{}input\{f\}"),
        ("[1, 2] ± 3", r"{[}1, 2{]} $\pm$ 3"),
        ("x^2 ~ <y>", r"x\textasciicircum{}2 \textasciitilde{} \textless{}y\textgreater{}"),
        ("snowman ☃ é", "snowman ? é"),
        ("*x", "{*}x"),  # LaTeX takes \\\\* for a command of its own
    ],
)
def test_latex_escapes_what_would_be_a_command(text: str, expected: str) -> None:
    assert latex_escape(text) == expected


def test_records_are_unrounded_and_no_cell_is_a_formula() -> None:
    rows = (("=1+1", 0.1 + 0.2), ("\uff1dx\ry", None), ("-5", -5.0))
    report = Document("", (), (), Records(("name", "value"), rows))
    assert list(csv.reader(io.StringIO(records_text(report.records)))) == [
        ["name", "value"],
        ["'=1+1", "0.30000000000000004"],
        ["'\uff1dx y", ""],
        ["'-5", "-5.0"],
    ]
