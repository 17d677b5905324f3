"""The answer to a report's title, table by table: does it hold, and what comes next?

It adds up the verdicts on the differences to the cells' baselines (`sweeps.evidence.verdict`).
Where a table is not of the paper's scale, it speaks of the data at hand and of nothing else.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sweeps.evidence.power import seeds_for_equivalence
from sweeps.evidence.verdict import CellEvidence, Word
from sweeps.plan.scale import Scale
from sweeps.report.document import BadgeTone, Strip
from sweeps.report.tables.model import CellReport
from sweeps.tables.table import Table
from wsss.printable import counted

FIRST_SEEDS = 3
"""Seeds proposed where there is one: the fewest that show more than a rough spread."""
MOST_SEEDS = 20
"""More seeds than this are not proposed."""

HERE = {
    Word.REPRODUCED: "in agreement here",
    Word.TREND_ONLY: "same sign here",
    Word.NOT_REPRODUCED: "in conflict here",
    Word.NOT_RESOLVABLE: "not resolvable",
}
"""What verdicts are called that are no check of the paper."""
TONES: dict[Word, BadgeTone] = {
    Word.REPRODUCED: "good",
    Word.TREND_ONLY: "fair",
    Word.NOT_REPRODUCED: "bad",
    Word.NOT_RESOLVABLE: "open",
}

_Said = tuple[str, BadgeTone]
_NOTHING: _Said = ("nothing measured yet", "open")

Command = Callable[[int], str]
"""Number of seeds -> the command that runs the sweep with them."""


def named(word: Word, scale: Scale) -> str:
    """Return what a verdict is called at this scale."""
    return HERE[word] if scale.word else word.value


def answer(
    table: Table, cells: Mapping[str, CellReport], scale: Scale, margin: float, command: Command
) -> Strip:
    """Return whether a table holds, as far as its cells tell, and the command that tells more."""
    found = (cell.evidence for cell in cells.values())
    # Cells that are the same trials share their evidence: one difference, however many they are.
    judged = list({id(e): e for e in found if e and e.verdict}.values())
    missing = sum(cell.mean is None for cell in cells.values())
    if missing == len(cells):
        question = f"Does Table {table.name} hold?"
        words, tone = _NOTHING
    elif judged or _prints_differences(cells, scale):
        place = "on this data and at this scale" if scale.word else ""
        question = f"Does Table {' '.join(filter(None, (table.name, 'hold', place)))}?"
        words, tone = _against_the_paper(judged, scale)
    else:
        question = f"Does any cell of Table {table.name} differ from {table.baseline_name}?"
        words, tone = _among_themselves([c.evidence for c in cells.values() if c.evidence])
    start = "Cannot tell: " if tone == "open" else ""
    lacking = f" {counted(missing, 'cell')} missing." if 0 < missing < len(cells) else ""
    died = {c.run_ids[seed]: seed in c.dead for c in cells.values() for seed in c.values}
    if any(died.values()):
        lacking += f" Maps died in {sum(died.values())} of {counted(len(died), 'trial')}."
    next_step = _next(list(cells.values()), judged, margin, command)
    return Strip(question, f"{start}{words}.{lacking}", tone, next_step)


def _prints_differences(cells: Mapping[str, CellReport], scale: Scale) -> bool:
    return not scale.other_classes and sum(c.paper is not None for c in cells.values()) > 1


def _against_the_paper(judged: Sequence[CellEvidence], scale: Scale) -> _Said:
    """Return the verdicts added up, and how they look.

    Open: half of the differences or more are not resolvable. Yes: more than half are reproduced,
    and none is refuted. No: more are refuted than are reproduced, in size or sign.
    """
    if not judged:
        return "no difference to the baseline is measured yet", "open"
    if all(evidence.differences.n == 1 for evidence in judged):
        return "one seed per cell", "open"
    counts = Counter(evidence.verdict.word for evidence in judged if evidence.verdict)
    of_all = f" of {counted(len(judged), 'difference')}"
    parts = [(counts[word], named(word, scale)) for word in Word if counts[word]]
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
    """Return how many cells differ from their baseline, whatever the paper says."""
    tested = [evidence.differs for evidence in found if evidence.differs is not None]
    if not tested:
        return ("one seed per cell" if found else "nothing to compare yet"), "open"
    seeds = counted(min(e.differences.n for e in found if e.differs is not None), "seed")
    if not any(tested):
        return f"none of {counted(len(tested), 'cell')} is shown to, by {seeds}", "open"
    return f"Yes: {sum(tested)} of {counted(len(tested), 'cell')}, by {seeds}", "plain"


def _next(
    cells: Sequence[CellReport], judged: Sequence[CellEvidence], margin: float, command: Command
) -> str:
    """Return the command that tells more; empty if none within MOST_SEEDS does."""
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
    """Return how many seeds would judge a difference at its noise; None for too many."""
    if evidence.differences.sd is None:
        return FIRST_SEEDS
    needed = [seeds_for_equivalence(margin, evidence.differences.sd)]
    if abs(evidence.paper_difference or 0) > margin:
        needed.append(evidence.seeds_needed)
    return None if None in needed else max(n for n in needed if n is not None)
