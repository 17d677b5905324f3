"""What all reports share: how they write numbers and lists, and the notes on the paper."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from sweeps.plan.scale import Scale
from sweeps.plan.sweep import Sweep
from sweeps.report.document import DASH, Bullets, Entry, Format, Row, Section, Text
from sweeps.tables.notes import PaperNote
from sweeps.tables.paper import CITATION
from sweeps.tables.table import Table

_LAMBDA = re.compile(r"(?<![\w./-])lambda_(?=b?s(?![\w-]))")
"""In text, not in names of settings (transfer.lambda_s), tables (grid-lambda_s) or paths."""
MISSING = "missing"
HOW_TO_READ = "How to read this"
"""Title of a report's legend."""


def number(value: float | None) -> str:
    """Return an mIoU in percent with two decimals; a dash for None."""
    return DASH if value is None else f"{value:.2f}"


def signed(value: float | None) -> str:
    """Return a difference in percentage points with its sign; a dash for None."""
    return DASH if value is None else f"{value:+z.2f}"


def probability(value: float | None) -> str:
    """Return a probability as `97 %`, never as certain: `> 99 %`, `< 1 %`; a dash for None."""
    if value is None:
        return DASH
    percent = 100 * value
    return "> 99 %" if percent > 99 else "< 1 %" if percent < 1 else f"{percent:.0f} %"


def interval(low_high: tuple[float, float] | None, *, sign: bool = False) -> str:
    """Return `[a, b]`; a dash for None."""
    if low_high is None:
        return DASH
    low, high = (signed(v) if sign else number(v) for v in low_high)
    return f"[{low}, {high}]"


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and sample SD; None for too few values. Without numpy, which loads slowly."""
    return fmean(values) if values else None, stdev(values) if len(values) > 1 else None


def mean_and_sd(values: Sequence[float]) -> str:
    """Return `50.86 ± 0.17`; without the SD for a single value; `missing` for none."""
    mean, sd = mean_sd(values)
    if mean is None:
        return MISSING
    return number(mean) if sd is None else f"{mean:.2f} ± {sd:.2f}"


def fixed_score(sweep: Sweep) -> str:
    """Return the background score of a sweep's trials, `0.15`, or their range if it is varied."""
    scores = sorted({trial.config.labels.background_score for trial in sweep.plan.trials})
    first, *more = (f"{score:g}" for score in scores)
    return f"of each cell, {first} to {more[-1]}" if more else first


def table_rows(table: Table, entry: Callable[[str], Entry]) -> tuple[Row, ...]:
    """Return a table's rows as the paper prints them. entry: of a cell, by its reference."""
    return tuple(
        Row(row.labels, tuple(entry(table.reference(row, column)) for column in table.columns))
        for row in table.rows
    )


def greek(text: str) -> str:
    """Return text with λ_s for lambda_s."""
    return _LAMBDA.sub("λ_", text)


def listed(items: Sequence[str], most: int | None = None) -> str:
    """Return `a`, `a and b` or `a, b and c`; of more than `most` items `a, b and 7 more`."""
    if most and len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def warning(scale: Scale) -> tuple[Text, ...]:
    """Return what marks a report whose runs are not at the paper's scale."""
    return (Text(scale.warning, "mark"),) if scale.word else ()


def about(environments: Iterable[Mapping[str, Any]]) -> Bullets:
    """Return the code and device of these results, and the paper, for the head of a report."""
    known = list(environments)
    found = [
        (name, ", ".join(sorted({str(each[key]) for each in known if key in each})))
        for name, key in (("code", "code_version"), ("device", "device"))
    ]
    return Bullets.of([*(each for each in found if each[1]), ("paper", CITATION)])


def paper_section(notes: Sequence[PaperNote], formats: frozenset[Format]) -> Section:
    """Return the section on contradictions in the paper's numbers."""
    title = "The paper's own figures"
    about = "As printed by Qin et al., TCSVT 2024; nothing in this section was measured here."
    items = tuple(f"Table {', '.join(note.tables)}: {note.text}" for note in notes)
    blocks = (Text(about, "soft"), Bullets(items))
    return Section(title, title, "paper", blocks, formats=formats)
