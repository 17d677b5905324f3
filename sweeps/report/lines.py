"""The rows of a table's evidence as text, shared by the outputs that show them as a table."""

from sweeps.evidence.seeds import mean_sd
from sweeps.evidence.verdict import CellEvidence
from sweeps.report.model import CellReport, Measure, TableReport
from sweeps.report.words import DASH, counted, duration, interval, mean_and_sd, number, signed

COLUMNS = (
    "cell",
    "verdict",
    "paper",
    "measured: mean ± SD",
    "seeds",
    "95 % over seeds",
    "95 % over images",
    "to the paper",
    "paper's difference to baseline",
    "measured difference to baseline",
    "95 % over seeds",
    "95 % over images",
    "time",
)
MEASURES = (*(measure.heading for measure in Measure), "level or shape")
"""The columns beside a cell's labels in the table of all measures."""


def evidence_row(report: TableReport, cell: CellReport) -> tuple[str, ...]:
    """Return a cell's entries under `COLUMNS`."""
    evidence = cell.evidence
    return (
        ", ".join(cell.labels),
        verdict_word(report, cell),
        number(cell.paper),
        measured(cell),
        f"{len(cell.values)} of {cell.num_planned}",
        interval(cell.seed_interval),
        interval(cell.image_interval),
        signed(cell.to_paper),
        signed(evidence.paper_difference) if evidence else DASH,
        signed(evidence.differences.mean) if evidence else DASH,
        interval(seed_bounds(evidence), sign=True),
        interval(cell.image_difference, sign=True),
        duration(cell.seconds) if cell.seconds else DASH,
    )


def measures_row(report: TableReport, cell: CellReport) -> tuple[str, ...]:
    """Return a cell's entries under `MEASURES`: mean and SD over seeds of each, and a word."""
    found = [mean_sd(list(by.values())) if by else (None, None) for by in cell.mious.values()]
    return (*(mean_and_sd(*values) for values in found), level_word(report, cell))


def level_word(report: TableReport, cell: CellReport) -> str:
    """Return `level`, `shape` or `partly`; a dash where none can be said."""
    if cell.reference == report.table.baseline:
        return "baseline"
    return (cell.level.kind if cell.level else None) or DASH


def seed_bounds(evidence: CellEvidence | None) -> tuple[float, float] | None:
    """Return the ends of the interval over seeds of a difference."""
    found = evidence.differences.interval if evidence else None
    return (found.low, found.high) if found else None


def measured(cell: CellReport) -> str:
    """Return the measured mIoU, or why there is none."""
    if cell.mean is None and cell.failures:
        seed, kind, _ = cell.failures[0].split(": ", 2)  # the message stands among the remarks
        return f"failed ({seed}: {kind})"
    return mean_and_sd(cell.mean, cell.sd)


def verdict_word(report: TableReport, cell: CellReport) -> str:
    """Return a cell's verdict in words."""
    if cell.reference == report.table.baseline:
        return "baseline"
    if cell.evidence and cell.evidence.verdict:
        return cell.evidence.verdict.word
    if cell.evidence is None:
        shares = cell.run_ids == report.cells[report.table.baseline].run_ids
        return "same as baseline" if shares else DASH
    if cell.evidence.differs is None:
        return "not resolvable"
    return "differs from baseline" if cell.evidence.differs else "no difference shown"


def verdict_reasons(report: TableReport) -> list[str]:
    """Return `cell: word: reason` of each judged cell, and whether it is of level or of shape."""
    found = []
    for cell in report.cells.values():
        verdict = cell.evidence.verdict if cell.evidence else None
        parts = [f"{verdict.word}: {verdict.reason}"] if verdict else []
        parts += [f"Level or shape: {cell.level.reason}"] if cell.level else []
        if parts:
            found.append(f"{', '.join(cell.labels)}: {'. '.join(parts)}")
    return found


def remarks(report: TableReport) -> list[str]:
    """Return which cells share their trials with others, and which failed."""
    found = [
        f"{cell.reference} is the same {counted(cell.num_planned, 'trial')} as "
        f"{', '.join(cell.also)}."
        for cell in report.cells.values()
        if cell.also
    ]
    failed = [f"{c.reference} failed: {f}" for c in report.cells.values() for f in c.failures]
    return found + failed
