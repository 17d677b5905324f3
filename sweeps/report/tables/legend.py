"""How to read a sweep's report: all of it on pages and on paper, in short in a terminal."""

from sweeps.report.document import ALL, Format, Only, Section, Text
from sweeps.report.tables.model import Measure, Report
from sweeps.report.words import HOW_TO_READ

LEGEND_ELSEWHERE = "report.html explains intervals and verdicts, as does docs/tables.md."


def legend_section(report: Report) -> Section:
    """Return the section at the end of a report, which a page has at its top."""
    first, *more = legend(report)
    short = tuple(Text(line, "soft") for line in (*_held_out_above_best(report), LEGEND_ELSEWHERE))
    terminal = frozenset({Format.terminal})
    blocks = (first, Only(ALL - terminal, tuple(more)), Only(terminal, short))
    formats = ALL - {Format.html}
    return Section(HOW_TO_READ, HOW_TO_READ, "legend", blocks, formats=formats)


def legend(report: Report) -> tuple[Text, ...]:
    """Return how to read the tables, a paragraph each."""
    return tuple(Text(line, "soft") for line in _lines(report))


def _lines(report: Report) -> tuple[str, ...]:
    labels = report.sweep.base.labels
    low, high = labels.threshold_range
    return (
        f"Measured: {report.measure.describe(labels)}. "
        "Paper: as printed by Qin et al., TCSVT 2024.",
        "Small-scale runs check nothing of the paper. There, reproduced is called in agreement, "
        "trend only same sign, and not reproduced in conflict.",
        "Intervals over seeds say what another training would give on the same images; intervals "
        "over images (bootstrap, 2,000 resamples) what the same networks would score on other "
        "images of this kind. They are never added up.",
        "Above baseline: in which share of those resamples, or of resamples of the seeds, the cell "
        "is above its baseline, and so how probable it is that it is better. Of two or three seeds "
        "there are few different resamples: such shares are coarse and too confident.",
        "A verdict compares the measured difference to the cell's baseline, paired by seed, with "
        f"the paper's: reproduced if it is the same within ± {report.margin:g} points (two "
        "one-sided t tests at 5 %) and, where the paper claims more than that, of the same sign "
        "after Holm's correction; trend only if just the sign is; not reproduced if it is shown to "
        "be another one, even if that cannot be told from 0.",
        "Not resolvable: at the noise of these seeds, the paper's difference and quite another one "
        "are both possible. It says nothing against the paper; more seeds may decide.",
        "Holm's correction: of twenty cells without any effect, one would differ at 5 % by chance. "
        "The p-values of a table are therefore raised, until all of its cells together have a "
        "chance of 5 % at most that one is wrongly said to differ.",
        f"Choice of the threshold: fixed is the mIoU at the background score "
        f"{labels.background_score:g}; held-out, at a threshold chosen on the other half of the "
        "images; best, at each training's best threshold.",
        "AUC, the area under the threshold curve, is the mean mIoU over all thresholds from "
        f"{low:g} to {high:g}, so that none has to be chosen.",
        *_held_out_above_best(report),
        "Level or shape: maps that are brighter or darker as a whole do better at one fixed "
        "threshold only (level; another threshold would undo it), better maps do so at any "
        "threshold (shape). A difference is one of shape if it is significant (Holm) at the fixed "
        "score and, with the same sign, in the three other columns; of level if in none of them; "
        "else partly.",
    )


def _held_out_above_best(report: Report) -> tuple[str, ...]:
    """Explain it where a training's held-out mIoU is above its best one."""
    found = (cell.mious for table in report.tables for cell in table.cells.values())
    if not any(
        value > mious[Measure.best][seed]
        for mious in found
        for seed, value in mious[Measure.held_out].items()
    ):
        return ()
    return (
        "Held-out can be above best, as here: it is the mean of the mIoU of two halves of the "
        "images, best that of all images at once, and classes weigh differently in a half.",
    )
