"""The answer to a report's title, table by table: does it hold, and what to run next?

It counts the verdicts on the differences to each cell's baseline (`sweeps.evidence.verdict`). If
the runs are not at the paper's scale, it speaks only about these runs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sweeps.evidence.power import seeds_for_equivalence
from sweeps.evidence.verdict import CellEvidence, Word
from sweeps.plan.scale import Scale
from sweeps.report.document import BadgeTone, Strip
from sweeps.report.tables.model import CellReport
from sweeps.tables.table import Table
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
_NOTHING: _Said = ("nothing measured yet", "open")
_ONE_CELL: _Said = ("it has one cell, and nothing to compare it with", "open")

Command = Callable[[int], str]
"""Number of seeds -> the command that runs the sweep with them."""


def named(word: Word, scale: Scale) -> str:
    """Return the name of a verdict at this scale."""
    return HERE[word] if scale.word else word.value


def answer(
    table: Table, cells: Mapping[str, CellReport], scale: Scale, margin: float, command: Command
) -> Strip:
    """Return whether a table holds, as far as its cells show, and the command that shows more."""
    found = (cell.evidence for cell in cells.values())
    # Cells with the same trials share their evidence, which is one difference.
    judged = list({id(e): e for e in found if e and e.verdict}.values())
    lost = [cell for cell in cells.values() if cell.mean is None]
    failed = sum(bool(cell.failures) for cell in lost)
    num_printed = sum(c.paper is not None for c in cells.values())
    if len(lost) == len(cells) or len(cells) == 1:
        question = f"Does Table {table.name} hold?"
        words, tone = _NOTHING if lost else _ONE_CELL
    elif judged or (num_printed > 1 and not scale.other_classes):
        place = "on this data and at this scale" if scale.word else ""
        question = f"Does Table {' '.join(filter(None, (table.name, 'hold', place)))}?"
        words, tone = _against_the_paper(judged, scale, margin)
    else:
        question = f"Does any cell of Table {table.name} differ from {table.baseline_name}?"
        words, tone = _among_themselves([c.evidence for c in cells.values() if c.evidence])
    start = "Cannot tell: " if tone == "open" else ""
    counts = (len(lost) - failed, "missing"), (failed, "failed")
    lacking = "".join(f" {counted(n, 'cell')} {state}." for n, state in counts if n)
    died = {
        cell.run_ids[seed]: seed in cell.dead
        for cell in cells.values()
        for seed in {*cell.values, *cell.dead}  # maps may have died in a training without a score
    }
    if any(died.values()):
        lacking += f" Maps died in {sum(died.values())} of {counted(len(died), 'trial')}."
    next_step = _next(list(cells.values()), judged, margin, command)
    return Strip(question, f"{start}{words}.{lacking}", tone, next_step)


def _against_the_paper(judged: Sequence[CellEvidence], scale: Scale, margin: float) -> _Said:
    """Return the counts of the verdicts and their tone.

    Open: at least half of the differences are not resolvable. Yes: more than half are reproduced,
    and none is refuted. No: more are refuted than reproduced in size or sign.
    A difference within the margin in the paper is reproduced by equal cells, too: these are told.
    """
    if not judged:
        return "no difference to the baseline is measured yet", "open"
    if all(evidence.differences.n == 1 for evidence in judged):
        return "one seed per cell", "open"
    counts = Counter(evidence.verdict.word for evidence in judged if evidence.verdict)
    of_all = f" of {counted(len(judged), 'difference')}"
    unsigned = Counter(e.verdict.word for e in judged if e.verdict and not e.has_sign(margin))
    parts = [(counts[word], named(word, scale)) for word in Word if counts[word]]
    if n := unsigned[Word.REPRODUCED]:  # the first of the words
        remark = f"{parts[0][1]} ({n} at most {margin:g} in the paper, sign not checked)"
        parts[0] = parts[0][0], remark
    words = ", ".join(f"{n}{'' if at else of_all} {word}" for at, (n, word) in enumerate(parts))
    if 2 * counts[Word.NOT_RESOLVABLE] >= len(judged):
        return words, "open"
    refuted = counts[Word.NOT_REPRODUCED]
    if not refuted and 2 * counts[Word.REPRODUCED] > len(judged):
        return f"Yes: {words}", "good"
    if refuted > counts[Word.REPRODUCED] + counts[Word.TREND_ONLY]:
        return f"No: {words}", "bad"
    return f"In part: {words}", "fair"


def _among_themselves(found: Sequence[CellEvidence]) -> _Said:
    """Return how many cells differ from their baseline, whatever the paper prints."""
    tested = [evidence.differs for evidence in found if evidence.differs is not None]
    if not tested:
        return ("one seed per cell" if found else "nothing to compare yet"), "open"
    seeds = counted(min(e.differences.n for e in found if e.differs is not None), "seed")
    if not any(tested):
        of_all = f" of {len(tested)} cells" if len(tested) > 1 else ""
        return f"none{of_all} is shown to, with {seeds}", "open"
    return f"Yes: {sum(tested)} of {counted(len(tested), 'cell')}, with {seeds}", "plain"


def _next(
    cells: Sequence[CellReport], judged: Sequence[CellEvidence], margin: float, command: Command
) -> str:
    """Return the command to run next; empty if more seeds, up to MOST_SEEDS, would not help."""
    seeds = max(cell.num_planned for cell in cells)
    if any(cell.failures for cell in cells):
        return f"{command(seeds)} --retry-failed"
    if any(len(cell.values) < cell.num_planned for cell in cells):
        return command(seeds)
    if len(cells) > 1 and seeds == 1:
        return command(FIRST_SEEDS)
    open_ones = [e for e in judged if e.verdict and e.verdict.word is Word.NOT_RESOLVABLE]
    needed = [n for e in open_ones if (n := _seeds(e, margin)) and seeds < n <= MOST_SEEDS]
    return command(max(needed)) if needed else ""


def _seeds(evidence: CellEvidence, margin: float) -> int | None:
    """Return how many seeds would decide about a difference at its noise; None for too many."""
    if evidence.differences.sd is None:
        return FIRST_SEEDS
    needed = [seeds_for_equivalence(margin, evidence.differences.sd)]
    if evidence.has_sign(margin):
        needed.append(evidence.seeds_needed)
    return None if None in needed else max(n for n in needed if n is not None)
