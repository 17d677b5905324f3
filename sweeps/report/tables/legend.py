"""How to read a sweep's report: in full on pages and in LaTeX, in short in a terminal."""

from sweeps.report.document import ALL, HTML, TERMINAL, Only, Section, Text
from sweeps.report.tables.model import Report
from sweeps.report.tables.results import Measure
from sweeps.report.words import HOW_TO_READ, fixed_score


def legend_section(report: Report) -> Section:
    """Return the legend as the last section of a report; the HTML page has it at its top."""
    first, *more = legend(report)
    elsewhere = (
        "report.html has the settings, their provenance and the paper's own figures; it and "
        "docs/tables.md explain intervals and verdicts."
    )
    short = tuple(Text(line, "soft") for line in (*_held_out_above_best(report), elsewhere))
    blocks = (first, Only(ALL - TERMINAL, tuple(more)), Only(TERMINAL, short))
    return Section(HOW_TO_READ, HOW_TO_READ, "legend", blocks, formats=ALL - HTML)


def legend(report: Report) -> tuple[Text, ...]:
    """Return how to read the tables, one paragraph per term."""
    low, high = report.sweep.base.labels.threshold_range
    lines = (
        f"Measured: {report.results.measure.describe(report.sweep)}. "
        "Paper: as printed by Qin et al., TCSVT 2024.",
        "Small-scale runs do not check the paper. Their verdicts have other names: in agreement "
        "for reproduced, same sign for trend only, in conflict for not reproduced.",
        "A 95 % interval over seeds shows where the mean of very many trainings on the same images "
        "lies; one more training is often outside (in one case of three with five seeds). One over "
        "images (bootstrap, 2,000 resamples) shows where the mIoU of the same networks on very "
        "many images of this kind lies; from fewer than some 300 images it is too narrow. They are "
        "never added up.",
        "Better: the probability that the cell is above its baseline, as the mean over very many "
        "seeds (t distribution), or with these networks over very many images (bootstrap). It is "
        "of each cell alone: where nothing has an effect, one of ten cells is below 5 % or above "
        "95 %.",
        "A verdict compares the measured difference to the cell's baseline, paired by seed, with "
        f"the paper's. Reproduced: it is the same within ± {report.margin:g} points (two one-sided "
        "t-tests at 5 %) and, if the paper claims more than that, has the same sign after Holm's "
        "correction. Trend only: it only has that sign, even if its size is shown to be another. "
        "Not reproduced: otherwise shown to be different, even if it cannot be told from 0. The "
        "paper prints no spread, so its numbers are taken as exact: verdicts are on the printed "
        "difference, which may be off by the noise of the authors' own trainings.",
        "Not resolvable: with the noise of these seeds, both the paper's difference and a very "
        "different one are possible. This does not contradict the paper; more seeds may decide.",
        "Holm's correction: among twenty cells without any effect, one would differ at 5 % by "
        "chance. The p-values of a table are therefore raised, so that the chance of even one "
        "false difference among all of its cells is at most 5 %.",
        f"Choice of the threshold: fixed is the mIoU at the background score "
        f"{fixed_score(report.sweep)}; held-out, at a threshold chosen on the other half of the "
        "images, if there are images in both halves; best, at each training's best threshold.",
        "AUC, the area under the threshold curve, is the mean mIoU over all thresholds from "
        f"{low:g} to {high:g}, so that none has to be chosen.",
        *_held_out_above_best(report),
        "Level or shape: maps that are brighter or darker as a whole are only better at one fixed "
        "threshold (level; another threshold would undo the difference); better maps are better at "
        "any threshold (shape). A difference is of shape if it is significant (Holm) at the fixed "
        "score and, with the same sign, in the three other columns; of level if it is in none of "
        "them and shown to be smaller there; partly if it is in some. A dash: not shown.",
    )
    return tuple(Text(line, "soft") for line in lines)


def _held_out_above_best(report: Report) -> tuple[str, ...]:
    """Explain why a held-out mIoU can be above the best one, if one is."""
    found = (cell.mious for table in report.tables for cell in table.cells.values())
    if not any(
        value > mious[Measure.best][seed]
        for mious in found
        for seed, value in mious[Measure.held_out].items()
    ):
        return ()
    return (
        "Held-out can be above best, as here: it is the mean of the mIoU on two halves of the "
        "images, best the mIoU on all images, and a class has another weight in each half.",
    )
