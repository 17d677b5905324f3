"""A sweep's report as a document: text, tables and figures of its results, and their records."""

from collections.abc import Iterable
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
    Facts,
    Format,
    Grid,
    Heading,
    Links,
    Measured,
    Only,
    Pictures,
    Records,
    Row,
    Section,
    Text,
    in_one_group,
)
from sweeps.report.formats.write import write_document
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.tables.answer import TONES, named
from sweeps.report.tables.build import build_report
from sweeps.report.tables.legend import legend, legend_section
from sweeps.report.tables.model import CellReport, Measure, Report, TableReport
from sweeps.report.words import (
    HOW_TO_READ,
    MISSING,
    interval,
    listed,
    mean_and_sd,
    mean_sd,
    number,
    paper_section,
    share,
    signed,
    table_rows,
)
from sweeps.store.store import Store
from sweeps.tables.notes import notes_on
from sweeps.tables.segmentation import TABLE_I, TABLE_II, TABLE_II_CLASSES
from wsss.basics.printable import counted

MAX_REASONS = 8
"""If there are more reasons of verdicts than this, a terminal does not list them."""

_EVIDENCE = (
    Column("paper"),
    Column("measured: mean ± SD", short="measured"),
    Column("verdict", align="left"),
    Column("seeds"),
    Column("95 % over seeds", formats=ON_PAGES),
    Column("95 % over images", formats=ON_PAGES),
    Column("to the paper", formats=ON_PAGES),
    Column("time", formats=ON_PAGES),
    Column("paper's difference to baseline", short="paper's diff."),
    Column("measured difference to baseline", short="measured diff."),
    Column("95 % over seeds"),
    Column("95 % over images", formats=ON_PAGES),
    Column("above baseline, resampled seeds", formats=ON_PAGES),
    Column("above baseline, resampled images", formats=ON_PAGES),
)
_NUM_OWN = 8
"""Columns of `_EVIDENCE` on a cell itself; the others are on its difference to the baseline."""
_MEASURES = (*(Column(m.heading) for m in Measure), Column("level or shape", align="left"))


def write_report(sweep: Sweep, store: Store) -> Report:
    """Write a sweep's report, with the results so far, into `report_folder`."""
    report = build_report(sweep, store)
    write_document(sweep_document(report), report_folder(store, sweep), "report")
    return report


def sweep_document(report: Report) -> Document:
    """Return the report as a document for every format."""
    warning = (Text(report.scale.warning, "mark"),) if report.scale.word else ()
    one = len(report.tables) == 1
    notes = notes_on(report.sweep.table_names)
    answers = (t.answer if one else replace(t.answer, command="") for t in report.tables)
    return Document(
        title=report.title,
        head=(
            Only(ON_PAGES | TERMINAL, tuple(answers)),
            *warning,
            Text(report.sweep.describe()),
            Command("Command", report.command),
            Only(LATEX, (Facts(("about", "this report"), report.about),)),
            Only(HTML, (Details(HOW_TO_READ, legend(report)),)),
        ),
        sections=(
            *(_table_section(report, table) for table in report.tables),
            paper_section(
                notes,
                ALL - TERMINAL if notes else HTML,
                Only(HTML, (_printed_table_i(), _printed_table_ii())),
            ),
            _settings_section(report),
            _closing_section(report),
            legend_section(report),
        ),
        records=Records.of(
            [_record(report, t, cell) for t in report.tables for cell in t.cells.values()]
        ),
        mark=report.scale.word,
    )


# A table


def _table_section(report: Report, found: TableReport) -> Section:
    """Return a table's section: verdict, numbers as in the paper, evidence, figures.

    In LaTeX, a table of one column shows its evidence, any other the paper's layout.
    """
    table, single = found.table, len(found.table.columns) == 1
    what = report.measure.describe(report.sweep)
    figures = (Heading("Figures"), Pictures(found.figures)) if found.figures else ()
    return Section(
        title=f"Table {table.name}. {table.title}",
        short=f"Table {table.name}",
        anchor=f"table-{table.name}",
        number=table.name,
        caption=f"{table.title}. {what[0].upper()}{what[1:]}; mean ± SD over seeds."
        + ("" if single or found.scale.other_classes else " In parentheses, the paper."),
        blocks=(
            Only(LATEX if len(report.tables) == 1 else ALL, (found.answer,)),
            Bullets((*found.findings, *remarks(found))),
            Only(HTML if single else HTML | LATEX, (_as_printed(found),)),
            Only(ALL - LATEX, tuple(Text(f"Note: {note}", "soft") for note in found.notes)),
            Heading("Evidence"),
            *_evidence_blocks(found),
            *_measures(found),
            *_reasons(found),
            *_links(found),
            *found.classes,
            Only(HTML, (*found.gallery, *figures)),
        ),
    )


def _as_printed(found: TableReport) -> Grid:
    table = found.table
    rows = table_rows(table, partial(_entry, found))
    group = "" if len(table.columns) == 1 else table.column_name
    columns = tuple(Column(name, group=group, align="center") for name in table.columns)
    return Grid(f"Table {table.name}", table.row_names, columns, in_one_group(rows), style="layout")


def _entry(found: TableReport, reference: str) -> Measured:
    cell = found.cells[reference]
    badges = [_badge(found, cell)]
    if cell.level and cell.level.kind:
        badges.append(Badge(level_word(cell)))
    printed = "" if cell.paper is None or found.scale.other_classes else number(cell.paper)
    return Measured(measured(cell), printed, tuple(badges), cell.links)


def _label_names(found: TableReport) -> tuple[str, ...]:
    """Return the names of the labels of a table with one row per cell."""
    table = found.table
    return table.row_names if len(table.columns) == 1 else (*table.row_names, table.column_name)


def _evidence_blocks(found: TableReport) -> tuple[Block, ...]:
    """Return a row per cell: the measured and the paper's mIoU, and both differences.

    As one table; on pages, which show more columns, as two. In LaTeX, a table of several columns
    has none, as it shows the paper's layout.
    """
    rows = [Row(cell.labels, _evidence_entries(found, cell)) for cell in found.cells.values()]
    columns = _EVIDENCE
    if found.scale.other_classes:
        columns = (Column("paper, on VOC", short="paper (VOC)", faint=True), *_EVIDENCE[1:])
    name = f"Evidence for table {found.table.name}"
    whole = Grid(name, _label_names(found), columns, in_one_group(rows), style="evidence")
    cells = whole.cut(range(_NUM_OWN))
    differences = whole.cut(range(_NUM_OWN, len(columns)))
    narrow = TERMINAL | (LATEX if len(found.table.columns) == 1 else frozenset())
    heading = Heading(f"Differences to the baseline, {found.table.baseline_name}")
    compared = any(cell.evidence for cell in found.cells.values())
    on_pages = (cells, heading, differences) if compared else (cells,)
    return Only(narrow, (whole,)), Only(ON_PAGES, on_pages)


def _evidence_entries(found: TableReport, cell: CellReport) -> tuple[Entry, ...]:
    evidence = cell.evidence
    return (
        number(cell.paper),
        measured(cell),
        _badge(found, cell),
        f"{len(cell.values)} of {cell.num_planned}",
        interval(cell.seed_interval),
        interval(cell.image_interval),
        signed(cell.to_paper),
        format_seconds(cell.seconds) if cell.seconds else DASH,
        signed(evidence.paper_difference) if evidence else DASH,
        signed(evidence.differences.mean) if evidence else DASH,
        interval(evidence.differences.interval if evidence else None, sign=True),
        interval(cell.image_difference, sign=True),
        share(cell.better_over_seeds),
        share(cell.better_over_images),
    )


def _measures(found: TableReport) -> tuple[Block, ...]:
    """Return a row per cell: mean and SD over seeds of each measure, and level or shape.

    Empty if nothing is measured yet.
    """
    if not any(cell.values for cell in found.cells.values()):
        return ()
    rows = []
    for cell in found.cells.values():
        no_halves = DASH if cell.mious[Measure.fixed] else MISSING  # one or two images scored
        figures = (
            mean_and_sd(*mean_sd(list(values.values()))) if values else no_halves
            for values in cell.mious.values()
        )
        rows.append(Row(cell.labels, (*figures, level_word(cell))))
    name = f"mIoU by choice of the threshold, table {found.table.name}"
    grid = Grid(name, _label_names(found), _MEASURES, in_one_group(rows), style="evidence")
    return Heading("Level or shape: mIoU by choice of the threshold"), grid


def _reasons(found: TableReport) -> tuple[Block, ...]:
    """Return `cell: word: reason` of each cell with a verdict, and why it is level or shape.

    Cells with the same reason share a line.
    """
    cells_of: dict[str, list[str]] = {}
    for cell in found.cells.values():
        word = named(cell.verdict.word, found.scale) if cell.verdict else ""
        parts = [f"{word}: {cell.verdict.reason}"] if cell.verdict else []
        parts += [f"Level or shape: {cell.level.reason}"] if cell.level else []
        if parts:
            cells_of.setdefault(". ".join(parts), []).append(", ".join(cell.labels))
    reasons = [f"{'; '.join(cells)}: {reason}" for reason, cells in cells_of.items()]
    if not reasons:
        return ()
    all_of_them = Details("Reasons of the verdicts", (Bullets(tuple(reasons)),))
    if len(reasons) <= MAX_REASONS:
        return (Only(ALL - LATEX, (all_of_them,)),)
    told = "The reasons of the verdicts are in report.md and report.html."
    return Only(ON_PAGES, (all_of_them,)), Only(TERMINAL, (Bullets((told,)),))


def _links(found: TableReport) -> tuple[Block, ...]:
    """Return links to the MLflow runs, for Markdown; on a page they are in the table."""
    links = tuple(
        (f"{cell.reference} {words}", url)
        for cell in found.cells.values()
        for words, url in cell.links
    )
    return (Only(frozenset({Format.markdown}), (Links("MLflow runs", links),)),) if links else ()


# The other sections


def _printed_table_i() -> Details:
    rows = [Row((r.method,), (r.publication, r.backbone, str(r.val), str(r.test))) for r in TABLE_I]
    heads = ("publication", "backbone", "val", "test")
    return _as_in_the_paper("Table I as printed", "segmentation mIoU of all methods", heads, rows)


def _printed_table_ii() -> Details:
    rows = [
        Row((r.method,), (*map(str, r.ious), str(r.printed_mean), number(r.computed_mean)))
        for r in TABLE_II
    ]
    heads = (*TABLE_II_CLASSES, "printed mean", "mean of the 21")
    return _as_in_the_paper("Table II as printed", "per-class IoU on val", heads, rows)


def _as_in_the_paper(name: str, about: str, heads: Iterable[str], rows: Iterable[Row]) -> Details:
    columns = tuple(Column(head, align="left") for head in heads)
    grid = Grid(name, ("method",), columns, in_one_group(rows))
    return Details(f"{name}: {about}", (grid,))


def _settings_section(report: Report) -> Section:
    blocks: list[Block] = []
    if changes := changed_settings(report.sweep):
        title = "Where these runs differ from the paper preset"
        grid = _settings(title, ("paper preset", "here"), changes)
        blocks += [Heading(title), grid]
    title = "Open points of the paper, as decided here"
    points = readings(report.sweep.base)
    blocks.append(Details(title, (_settings(title, ("value", "what is open"), points),)))
    return Section("Settings", "Settings", "settings", tuple(blocks), formats=ON_PAGES)


def _settings(
    name: str, heads: tuple[str, str], settings: tuple[tuple[str, str, str], ...]
) -> Grid:
    rows = tuple(Row((key,), (first, second)) for key, first, second in settings)
    columns = tuple(Column(head, align="left", wraps=True) for head in heads)
    return Grid(name, ("setting",), columns, in_one_group(rows), style="settings")


def _closing_section(report: Report) -> Section:
    blocks: list[Block] = []
    if "Failed trials" not in dict(report.closing):
        blocks.append(Text("No trial failed."))
    for heading, facts in report.closing:
        asked = heading != "Provenance" or any("MIXED" in value for _, value in facts.rows)
        blocks.append(Only(ALL if asked else ALL - TERMINAL, (Heading(heading), facts)))
    title = "Provenance and costs"
    return Section(title, title, "provenance", tuple(blocks), formats=ALL - LATEX)


# Words on a cell


def _badge(found: TableReport, cell: CellReport) -> Badge:
    """Return a cell's verdict, worded for the scale of the runs, on its colour."""
    if cell.verdict is None or cell.is_baseline:
        return Badge(verdict_word(found, cell))
    return Badge(named(cell.verdict.word, found.scale), TONES[cell.verdict.word])


def level_word(cell: CellReport) -> str:
    """Return `level`, `shape` or `partly`; a dash where none applies."""
    if cell.is_baseline:
        return "baseline"
    return (cell.level.kind if cell.level else None) or DASH


def measured(cell: CellReport) -> str:
    """Return the measured mIoU, or why there is none."""
    if cell.mean is None and cell.failures:
        seed, kind, _ = cell.failures[0].split(": ", 2)  # the message is among the remarks
        return f"failed ({seed}: {kind})"
    return mean_and_sd(cell.mean, cell.sd)


def verdict_word(found: TableReport, cell: CellReport) -> str:
    """Return a cell's verdict in words."""
    if cell.is_baseline:
        return "baseline"
    if cell.verdict:
        return cell.verdict.word
    if cell.evidence is None:
        shares = cell.run_ids == found.cells[cell.baseline].run_ids
        return "same as baseline" if shares else DASH
    if cell.evidence.differs is None:
        return "not resolvable"
    return "differs from baseline" if cell.evidence.differs else "no difference shown"


def remarks(found: TableReport) -> list[str]:
    """Say which cells share their trials with others, and which failed."""
    sets = {
        tuple(sorted([cell.reference, *cell.also])): cell.num_planned
        for cell in found.cells.values()
        if cell.also
    }
    shared = [
        f"{listed(names)} are the same {counted(num_trials, 'trial')}."
        for names, num_trials in sets.items()
    ]
    failed = [f"{c.reference} failed: {f}" for c in found.cells.values() for f in c.failures]
    return shared + failed


# Records


def _record(report: Report, found: TableReport, cell: CellReport) -> dict[str, object]:
    sweep, evidence = report.sweep, cell.evidence
    differences = evidence.differences if evidence else None
    return {
        "table": found.table.name,
        "cell": cell.reference,
        "labels": ", ".join(cell.labels),
        "measure": report.measure.value,
        "paper_miou": cell.paper,
        "mean_miou": cell.mean,
        "sd_over_seeds": cell.sd,
        "seeds": len(cell.values),
        "planned_seeds": cell.num_planned,
        **_ends("seed", cell.seed_interval),
        **_ends("image", cell.image_interval),
        "difference_to_paper": cell.to_paper,
        "baseline": cell.baseline,
        "paper_difference": evidence and evidence.paper_difference,
        "difference": differences and differences.mean,
        "difference_sd": differences and differences.sd,
        **_ends("difference_seed", differences.interval if differences else None),
        **_ends("difference_image", cell.image_difference),
        "p_holm": evidence and evidence.holm_p,
        "seeds_to_resolve_paper": evidence and evidence.seeds_needed,
        "verdict": verdict_word(found, cell),
        "reason": cell.verdict.reason if cell.verdict else "",
        "values": _by_seed(cell.values),
        "run_ids": " ".join(run_id for _, run_id in sorted(cell.run_ids.items())),
        "failures": "; ".join(cell.failures),
        "seconds": round(cell.seconds, 1),
        "preset": sweep.preset,
        "data": f"{sweep.base.data.name} {sweep.base.data.fingerprint}",
        "backbone": sweep.base.network.backbone,
        "train_images": sweep.num_train_images,
        "eval_images": sweep.num_eval_images,
        "epochs": sweep.base.train.epochs,
        "small_scale": "yes" if report.scale.marks else "no",
        **{name: value for m in Measure for name, value in _figures(m, cell.mious[m]).items()},
        "level_or_shape": level_word(cell),
        "level_or_shape_reason": cell.level.reason if cell.level else "",
        "above_baseline_seeds": cell.better_over_seeds,
        "above_baseline_images": cell.better_over_images,
    }


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _figures(measure: Measure, values: dict[int, float]) -> dict[str, object]:
    mean, sd = mean_sd(list(values.values()))
    return {
        f"mean_miou_{measure.name}": mean,
        f"sd_over_seeds_{measure.name}": sd,
        f"values_{measure.name}": _by_seed(values),
    }


def _by_seed(values: dict[int, float]) -> str:
    return " ".join(f"{seed}:{value:.4f}" for seed, value in sorted(values.items()))
