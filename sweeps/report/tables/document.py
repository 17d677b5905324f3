"""A sweep's report as a document: text, tables and figures of its results, and their records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from sweeps.plan.scale import changed_settings, readings
from sweeps.plan.sweep import Sweep, report_folder
from sweeps.report.document import (
    ALL,
    DASH,
    HTML,
    LATEX,
    ON_PAGES,
    TERMINAL,
    Badge,
    Block,
    Bullets,
    Column,
    Command,
    Details,
    Document,
    Entry,
    Grid,
    Heading,
    Measured,
    Only,
    Pictures,
    Records,
    Row,
    Section,
    Strip,
    Text,
    in_one_group,
)
from sweeps.report.formats.write import write_document
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.tables.answer import TONES, answer, named
from sweeps.report.tables.closing import closing, environments
from sweeps.report.tables.findings import findings
from sweeps.report.tables.legend import legend, legend_section
from sweeps.report.tables.model import CellReport, Report, TableReport, build_report
from sweeps.report.tables.pictures import compare_classes, gallery, table_figures
from sweeps.report.tables.records import level_word, record, verdict_word
from sweeps.report.tables.results import Measure
from sweeps.report.words import (
    HOW_TO_READ,
    about,
    interval,
    listed,
    mean_and_sd,
    number,
    paper_section,
    probability,
    signed,
    table_rows,
    warning,
)
from sweeps.store.store import Store
from sweeps.tables.notes import notes_on
from wsss.basics.printable import counted

MAX_REASONS = 8
"""If there are more reasons of verdicts than this, a terminal does not list them."""

Figure = tuple[Column, Callable[[CellReport], Entry]]
"""A column of tables with a row per cell, and a cell's entry there."""

on_pages = partial(Column, formats=ON_PAGES)


def write_report(sweep: Sweep, store: Store) -> Report:
    """Write a sweep's report, with the results so far, into `report_folder`."""
    report = build_report(sweep, store)
    write_document(sweep_document(report), report_folder(store, sweep), "report")
    return report


def sweep_document(report: Report) -> Document:
    """Return the report as a document for every format. Raises StoreError for a broken result."""
    notes = notes_on(report.sweep.table_names)
    answers = short = tuple(map(answer, report.tables))
    if len(short) > 1:  # each is again with its table, where the command is
        short = tuple(replace(strip, command="") for strip in short)
    return Document(
        title=report.title,
        head=(
            Only(ON_PAGES | TERMINAL, short),
            *warning(report.scale),
            Text(report.sweep.describe()),
            Command("Command", report.command()),
            Only(LATEX, (about(environments(report.results)),)),
            Only(HTML, (Details(HOW_TO_READ, legend(report)),)),
        ),
        sections=(
            *map(_table_section, report.tables, answers),
            *((paper_section(notes, ALL - TERMINAL),) if notes else ()),
            _settings_section(report),
            _closing_section(report),
            legend_section(report),
        ),
        records=Records.of(
            [
                record(found.table.name, cell)
                for found in report.tables
                for cell in found.cells.values()
            ]
        ),
        mark=report.scale.word,
    )


# A table


def _table_section(found: TableReport, strip: Strip) -> Section:
    """Return a table's section: verdict, numbers as in the paper, evidence, figures.

    In LaTeX, a table of one column shows its evidence, any other the paper's layout.
    """
    report, table, single = found.report, found.table, len(found.table.columns) == 1
    what = report.results.measure.describe(report.sweep)
    figures = tuple(table_figures(found))
    drawn = (Heading("Figures"), Pictures(figures)) if figures else ()
    return Section(
        title=f"Table {table.name}. {table.title}",
        short=f"Table {table.name}",
        anchor=f"table-{table.name}",
        number=table.name,
        caption=f"{table.title}. {what[0].upper()}{what[1:]}; mean ± SD over seeds."
        + ("" if single or report.scale.other_classes else " In parentheses, the paper."),
        blocks=(
            Only(LATEX if len(report.tables) == 1 else ALL, (strip,)),
            Bullets((*findings(found), *remarks(found))),
            Only(HTML if single else HTML | LATEX, (_as_printed(found),)),
            Only(ALL - LATEX, tuple(Text(f"Note: {note}", "soft") for note in found.notes)),
            Heading("Evidence"),
            *_evidence(found),
            *_measures(found),
            *_reasons(found),
            *compare_classes(found),
            Only(HTML, (*gallery(found), *drawn)),
        ),
    )


def _as_printed(found: TableReport) -> Grid:
    table = found.table

    def entry(reference: str) -> Measured:
        cell = found.cells[reference]
        badges = [_badge(cell)]
        if cell.level.kind:
            badges.append(Badge(cell.level.kind))
        printed = "" if cell.printed is None else number(cell.printed)
        return Measured(measured(cell), printed, tuple(badges), cell.links)

    group = "" if len(table.columns) == 1 else table.column_name
    columns = tuple(Column(name, group=group, align="center") for name in table.columns)
    rows = in_one_group(table_rows(table, entry))
    return Grid(f"Table {table.name}", table.row_names, columns, rows, style="layout")


def _by_cell(found: TableReport, name: str, figures: Sequence[Figure]) -> Grid:
    """Return a table with one row per cell."""
    table = found.table
    labels = table.row_names if len(table.columns) == 1 else (*table.row_names, table.column_name)
    rows = (
        Row(cell.labels, tuple(entry(cell) for _, entry in figures))
        for cell in found.cells.values()
    )
    columns, groups = tuple(column for column, _ in figures), in_one_group(rows)
    return Grid(f"{name} {table.name}", labels, columns, groups, style="evidence")


def _evidence(found: TableReport) -> tuple[Block, ...]:
    """Return a row per cell: the measured and the paper's mIoU, and both differences.

    As one table; on pages, which show more columns, as two. In LaTeX, a table of several columns
    has none, as it shows the paper's layout.
    """
    paper = Column("paper")
    if found.report.scale.other_classes:
        paper = Column("paper, on VOC", short="paper (VOC)", faint=True)
    of_cells: list[Figure] = [
        (paper, lambda cell: number(cell.paper)),
        (Column("measured: mean ± SD", short="measured"), measured),
        (Column("verdict", align="left"), _badge),
        (Column("seeds"), lambda cell: f"{len(cell.values)} of {len(cell.trials)}"),
        (on_pages("95 % over seeds"), lambda cell: interval(cell.seed_interval)),
        (on_pages("95 % over images"), lambda cell: interval(cell.image_interval)),
        (on_pages("to the paper"), lambda cell: signed(cell.to_paper)),
        (on_pages("time"), lambda cell: format_seconds(cell.seconds) if cell.seconds else DASH),
    ]
    name = "Evidence for table"
    whole = _by_cell(found, name, [*of_cells, *_DIFFERENCES])
    blocks: tuple[Block, ...] = (_by_cell(found, name, of_cells),)
    if any(cell.evidence.differences.n for cell in found.cells.values()):
        heading = Heading(f"Differences to the baseline, {found.table.baseline_name}")
        blocks = (*blocks, heading, _by_cell(found, name, _DIFFERENCES))
    narrow = TERMINAL | LATEX if len(found.table.columns) == 1 else TERMINAL
    return Only(narrow, (whole,)), Only(ON_PAGES, blocks)


_DIFFERENCES: tuple[Figure, ...] = (
    (
        Column("paper's difference to baseline", short="paper's diff."),
        lambda cell: signed(cell.evidence.paper_difference),
    ),
    (
        Column("measured difference to baseline", short="measured diff."),
        lambda cell: signed(cell.evidence.differences.mean),
    ),
    (
        Column("95 % over seeds"),
        lambda cell: interval(cell.evidence.differences.interval, sign=True),
    ),
    (on_pages("95 % over images"), lambda cell: interval(cell.over_images[0], sign=True)),
    (on_pages("better, over seeds"), lambda cell: probability(cell.evidence.differences.above)),
    (on_pages("better, over images"), lambda cell: probability(cell.over_images[1])),
)


def _measures(found: TableReport) -> tuple[Block, ...]:
    """Return a row per cell: mean and SD over seeds of each measure, and level or shape.

    Empty if nothing is measured yet.
    """
    if not any(cell.values for cell in found.cells.values()):
        return ()

    def entry(measure: Measure, cell: CellReport) -> str:
        values = list(cell.mious[measure].values())
        no_halves = cell.mious[Measure.fixed] and not values  # one or two images scored
        return DASH if no_halves else mean_and_sd(values)

    figures: list[Figure] = [(Column(m.heading), partial(entry, m)) for m in Measure]
    figures.append((Column("level or shape", align="left"), level_word))
    grid = _by_cell(found, "mIoU by choice of the threshold, table", figures)
    return Heading("Level or shape: mIoU by choice of the threshold"), grid


def _reasons(found: TableReport) -> tuple[Block, ...]:
    """Return `cell: word: reason` of each cell with a verdict, and why it is level or shape.

    Cells with the same reason share a line.
    """
    cells_of: dict[str, list[str]] = {}
    for cell in found.cells.values():
        parts = []
        if cell.verdict:
            parts.append(f"{named(cell.verdict.word, found.report.scale)}: {cell.verdict.reason}")
        if cell.level.reason:
            parts.append(f"Level or shape: {cell.level.reason}")
        if parts:
            cells_of.setdefault(". ".join(parts), []).append(", ".join(cell.labels))
    if not cells_of:
        return ()
    reasons = tuple(f"{'; '.join(cells)}: {reason}" for reason, cells in cells_of.items())
    formats = ALL - LATEX if len(reasons) <= MAX_REASONS else ON_PAGES
    return (Only(formats, (Details("Reasons of the verdicts", (Bullets(reasons),)),)),)


# The other sections


def _settings_section(report: Report) -> Section:
    def settings(
        title: str, heads: tuple[str, str], found: tuple[tuple[str, str, str], ...]
    ) -> Grid:
        rows = (Row((key,), (first, second)) for key, first, second in found)
        columns = tuple(Column(head, align="left", wraps=True) for head in heads)
        return Grid(title, ("setting",), columns, in_one_group(rows), style="settings")

    blocks: list[Block] = []
    if changes := changed_settings(report.sweep):
        title = "Where these runs differ from the paper preset"
        blocks += [Heading(title), settings(title, ("paper preset", "here"), changes)]
    title = "Open points of the paper, as decided here"
    points = settings(title, ("value", "what is open"), readings(report.sweep.base))
    blocks.append(Details(title, (points,)))
    return Section("Settings", "Settings", "settings", tuple(blocks), formats=ON_PAGES)


def _closing_section(report: Report) -> Section:
    facts = closing(report)
    blocks: list[Block] = [] if "Failed trials" in facts else [Text("No trial failed.")]
    for heading, found in facts.items():
        asked = heading != "Provenance" or any("MIXED" in item for item in found.items)
        blocks.append(Only(ALL if asked else ALL - TERMINAL, (Heading(heading), found)))
    title = "Provenance and costs"
    return Section(title, title, "provenance", tuple(blocks), formats=ALL - LATEX)


# Words on a cell


def _badge(cell: CellReport) -> Badge:
    """Return a cell's verdict, worded for the scale of the runs, on its colour."""
    if cell.verdict is None:
        return Badge(verdict_word(cell))
    return Badge(named(cell.verdict.word, cell.table.report.scale), TONES[cell.verdict.word])


def measured(cell: CellReport) -> str:
    """Return the measured mIoU, or why there is none."""
    if not cell.values and cell.failures:
        seed, kind, _ = cell.failures[0].split(": ", 2)  # the message is among the remarks
        return f"failed ({seed}: {kind})"
    return mean_and_sd(cell.scores)


def remarks(found: TableReport) -> list[str]:
    """Say which cells share their trials with others, and which failed."""
    cells = found.cells.values()
    num_trials = {cell.same_trials: len(cell.trials) for cell in cells}
    shared = [
        f"{listed(names)} are the same {counted(n, 'trial')}."
        for names, n in num_trials.items()
        if len(names) > 1
    ]
    return shared + [f"{c.reference} failed: {why}" for c in cells for why in c.failures]
