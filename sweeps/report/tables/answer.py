"""The answer to a report's title, table by table: does it hold, and what to run next?

It counts the verdicts on the differences to each cell's baseline (`sweeps.evidence.verdict`). If
the runs are not at the paper's scale, it speaks only about these runs.
"""

import math
from collections import Counter
from collections.abc import Sequence

from sweeps.evidence.power import seeds_for_equivalence
from sweeps.evidence.verdict import CellEvidence, Word
from sweeps.plan.scale import Scale
from sweeps.report.document import BadgeTone, Strip
from sweeps.report.tables.model import CellReport, TableReport
from wsss.basics.printable import counted

FIRST_SEEDS = 3
"""Seeds proposed after the first one: the fewest that give more than a rough spread."""
MOST_SEEDS = 20
"""No more seeds than this are proposed."""

HERE = {
    Word.REPRODUCED: "in agreement here",
    Word.TREND_ONLY: "same sign here",
    Word.NOT_REPRODUCED: "in conflict here",
    Word.NOT_RESOLVABLE: "not resolvable",
}
"""Names of the verdicts on runs that are not at the paper's scale."""
TONES: dict[Word, BadgeTone] = {
    Word.REPRODUCED: "good",
    Word.TREND_ONLY: "fair",
    Word.NOT_REPRODUCED: "bad",
    Word.NOT_RESOLVABLE: "open",
}

_Said = tuple[str, BadgeTone]
Judged = Sequence[tuple[Word, CellEvidence]]


def named(word: Word, scale: Scale) -> str:
    """Return the name of a verdict at this scale."""
    return HERE[word] if scale.word else word.value


def answer(found: TableReport) -> Strip:
    """Return whether a table holds, as far as its cells show, and the command that shows more."""
    table, report, cells = found.table.name, found.report, list(found.cells.values())
    scale = report.scale
    judged = _judged(cells)
    num_printed = sum(cell.paper is not None for cell in cells)
    said: _Said
    if all(cell.mean is None for cell in cells):
        question, said = f"Does Table {table} hold?", ("nothing measured yet", "open")
    elif len(cells) == 1:
        alone = "it has one cell, and nothing to compare it with"
        question, said = f"Does Table {table} hold?", (alone, "open")
    elif judged or (num_printed > 1 and not scale.other_classes):
        place = " on this data and at this scale" if scale.word else ""
        question = f"Does Table {table} hold{place}?"
        said = _against_the_paper(judged, scale, report.margin)
    else:
        question = f"Does any cell of Table {table} differ from {found.table.baseline_name}?"
        said = _among_themselves([c.evidence for c in cells if c.evidence.differences.n])
    words, tone = said
    start = "Cannot tell: " if tone == "open" else ""
    return Strip(question, f"{start}{words}.{_lacking(cells)}", tone, _next(found, judged))


def _judged(cells: Sequence[CellReport]) -> Judged:
    """Return all verdicts with their evidence; of cells with the same trials it is one."""
    return list({id(c.evidence): (c.verdict.word, c.evidence) for c in cells if c.verdict}.values())


def _lacking(cells: Sequence[CellReport]) -> str:
    """Return how many cells are missing or failed, and in how many trials maps died."""
    lost = [cell for cell in cells if cell.mean is None]
    failed = sum(bool(cell.failures) for cell in lost)
    counts = (len(lost) - failed, "missing"), (failed, "failed")
    words = "".join(f" {counted(n, 'cell')} {state}." for n, state in counts if n)
    died = {
        cell.run_ids[seed]: seed in cell.dead
        for cell in cells
        for seed in {*cell.values, *cell.dead}  # maps may have died in a training without a score
    }
    if any(died.values()):
        words += f" Maps died in {sum(died.values())} of {counted(len(died), 'trial')}."
    return words


def _against_the_paper(judged: Judged, scale: Scale, margin: float) -> _Said:
    """Return the counts of the verdicts and their tone.

    Open: at least half of the differences are not resolvable. Yes: more than half are reproduced,
    and none is refuted. No: more are refuted than reproduced in size or sign.
    A difference within the margin in the paper is reproduced by equal cells, too: these are told.
    """
    if not judged:
        return "no difference to the baseline is measured yet", "open"
    if all(evidence.differences.n == 1 for _, evidence in judged):
        return "one seed per cell", "open"
    counts = Counter(word for word, _ in judged)
    names = {word: named(word, scale) for word in Word if counts[word]}
    if n := sum(w is Word.REPRODUCED and not e.has_sign(margin) for w, e in judged):
        names[Word.REPRODUCED] += f" (in the paper {n} are at most {margin:g}: sign not checked)"
    parts = (f"{counts[word]} {name}" for word, name in names.items())
    said = ", ".join(parts).replace(" ", f" of {counted(len(judged), 'difference')} ", 1)
    if 2 * counts[Word.NOT_RESOLVABLE] >= len(judged):
        return said, "open"
    refuted = counts[Word.NOT_REPRODUCED]
    if not refuted and 2 * counts[Word.REPRODUCED] > len(judged):
        return f"Yes: {said}", "good"
    if refuted > counts[Word.REPRODUCED] + counts[Word.TREND_ONLY]:
        return f"No: {said}", "bad"
    return f"In part: {said}", "fair"


def _among_themselves(found: Sequence[CellEvidence]) -> _Said:
    """Return how many cells differ from their baseline, whatever the paper prints."""
    tested = [evidence for evidence in found if evidence.differs is not None]
    if not tested:
        return ("one seed per cell" if found else "nothing to compare yet"), "open"
    num_differing = sum(bool(evidence.differs) for evidence in tested)
    seeds = counted(min(evidence.differences.n for evidence in tested), "seed")
    if not num_differing:
        of_all = f" of {len(tested)} cells" if len(tested) > 1 else ""
        return f"none{of_all} is shown to, with {seeds}", "open"
    return f"Yes: {num_differing} of {counted(len(tested), 'cell')}, with {seeds}", "plain"


def _next(found: TableReport, judged: Judged) -> str:
    """Return the command to run next; empty if more seeds, up to MOST_SEEDS, would not help."""
    report, cells = found.report, found.cells.values()
    seeds = max(len(cell.trials) for cell in cells)
    if any(cell.failures for cell in cells):
        return f"{report.command(seeds)} --retry-failed"
    if any(len(cell.values) < len(cell.trials) for cell in cells):
        return report.command(seeds)
    if len(cells) > 1 and seeds == 1:
        return report.command(FIRST_SEEDS)
    open_ones = (e for word, e in judged if word is Word.NOT_RESOLVABLE)
    needed = (_seeds(evidence, report.margin) for evidence in open_ones)
    most = max((n for n in needed if seeds < n <= MOST_SEEDS), default=None)
    return "" if most is None else report.command(int(most))


def _seeds(evidence: CellEvidence, margin: float) -> float:
    """Return how many seeds would decide about a difference at its noise; inf for too many."""
    if evidence.differences.sd is None:
        return FIRST_SEEDS
    needed = [seeds_for_equivalence(margin, evidence.differences.sd)]
    if evidence.has_sign(margin):
        needed.append(evidence.seeds_needed)
    return max(math.inf if n is None else n for n in needed)
