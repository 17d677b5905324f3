"""Verdicts: does a measured difference to a cell's baseline confirm the paper's?

Everything here is about seed noise: differences are paired by seed, on the same images. The paper's
numbers are taken as exact, because it gives no spread.

Legend: n common seeds, d measured difference (cell - baseline), m margin; all in percent mIoU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sweeps.evidence.power import seeds_for_equivalence, seeds_needed
from sweeps.evidence.seeds import (
    ALPHA,
    ROUNDING,
    SeedDifferences,
    holm,
    seed_differences,
    seed_interval,
    tost,
)


class Word(StrEnum):
    """What the seeds show about one difference printed in the paper."""

    REPRODUCED = "reproduced"
    TREND_ONLY = "trend only"
    NOT_REPRODUCED = "not reproduced"
    NOT_RESOLVABLE = "not resolvable"


class Verdict(NamedTuple):
    """A word, and the numbers behind it in one sentence."""

    word: Word
    reason: str


@dataclass(frozen=True)
class CellEvidence:
    """How one cell compares with its baseline (seed noise)."""

    differences: SeedDifferences
    """Cell minus baseline, with its SD and t interval."""
    holm_p: float | None
    """p of "no difference", adjusted over the table; None for fewer than two common seeds."""
    differs: bool | None
    """Whether holm_p is below ALPHA, whatever the paper prints."""
    paper_difference: float | None
    """None if the paper lacks the cell or the baseline; then there is no verdict."""
    verdict: Verdict | None
    seeds_needed: int | None
    """Seeds that would find the paper's difference at this noise, in a test of this cell alone.
    None without the paper's difference or an SD, and if it takes too many."""

    def has_sign(self, margin: float) -> bool:
        """Whether the paper's difference is above the margin, so that its sign is checked."""
        return _has_sign(self.paper_difference or 0.0, margin)


NO_EVIDENCE = CellEvidence(seed_differences({}, {}), None, None, None, None, None)
"""On a cell that has no seed in common with its baseline, or is the baseline."""


def table_verdicts(
    paper: Mapping[str, float | None],
    measured: Mapping[str, Mapping[int, float]],
    baselines: Mapping[str, str],
    margin: float,
) -> dict[str, CellEvidence]:
    """Return the evidence on cells of a table, by cell reference.

    paper: reference -> percent as printed; measured: reference -> seed -> percent. baselines: each
    cell to be judged -> the one it is compared with. The p-values of all these cells are
    adjusted together: those of "no difference", and those of "as in the paper".
    """
    pairs = baselines.items()
    found = [seed_differences(measured.get(a, {}), measured.get(b, {})) for a, b in pairs]
    printed = [_paper_difference(paper.get(a), paper.get(b)) for a, b in pairs]
    adjusted = holm([differences.p for differences in found])
    outside = holm([_p_outside(d, p, margin) for d, p in zip(found, printed, strict=True)])
    evidence = {}
    for reference, differences, expected, holm_p, outside_p in zip(
        baselines, found, printed, adjusted, outside, strict=True
    ):
        verdict, needed = None, None
        if expected is not None:
            verdict = judge(
                differences, paper=expected, margin=margin, holm_p=holm_p, outside_p=outside_p
            )
            if differences.sd is not None:
                needed = seeds_needed(expected, differences.sd)
        differs = None if holm_p is None else holm_p < ALPHA
        evidence[reference] = CellEvidence(differences, holm_p, differs, expected, verdict, needed)
    return evidence


def judge(
    differences: SeedDifferences,
    *,
    paper: float,
    margin: float,
    holm_p: float | None,
    outside_p: float | None,
) -> Verdict:
    """Return whether the seeds confirm a difference printed in the paper (seed noise).

    paper: the paper's difference; holm_p: two-sided p of "no difference"; outside_p: of "within the
    margin of the paper's"; both adjusted over the table, None only for n < 2.

    If the paper's difference is above the margin, `reproduced` needs d equivalent to it (TOST) and
    significantly of its sign; the latter alone is `trend only`; `not reproduced` is significantly
    of the other sign, or of d significantly outside paper ± margin. If the paper's difference is
    within the margin, it claims no sign, and only equivalence or being outside decide. Otherwise
    `not resolvable`. Equivalence is per cell, not adjusted.
    """
    n, mean, sd = differences.n, differences.mean, differences.sd
    equal_p = tost(differences.values, centre=paper, margin=margin)
    interval = seed_interval(differences.values, level=1 - 2 * ALPHA)
    if mean is None:
        none = "no seed was measured for both the cell and its baseline"
        return Verdict(Word.NOT_RESOLVABLE, none)
    if not (interval and sd is not None and equal_p is not None):
        return Verdict(Word.NOT_RESOLVABLE, "one seed: seed noise unknown")
    assert holm_p is not None
    assert outside_p is not None
    has_sign, differs, equal = _has_sign(paper, margin), holm_p < ALPHA, equal_p < ALPHA
    word, more = Word.NOT_RESOLVABLE, ""
    if has_sign and differs and mean * paper > 0:
        word = Word.REPRODUCED if equal else Word.TREND_ONLY
    elif outside_p < ALPHA or (has_sign and differs):
        word = Word.NOT_REPRODUCED
    elif equal and not has_sign:
        word = Word.REPRODUCED
    else:
        more = f"; {_missing(paper, margin, sd, n)}"
    reason = (
        f"measured {mean:+z.2f} ± {sd:.2f} over {n} seeds ({100 * (1 - 2 * ALPHA):.0f} % interval "
        f"{interval.low:+z.2f} to {interval.high:+z.2f}), the paper {paper:+z.2f} ± {margin:.2f}; "
        f"Holm {p_words(holm_p)} against no difference, Holm {p_words(outside_p)} against the "
        f"paper's size, {p_words(equal_p)} against another size{more}"
    )
    return Verdict(word, reason)


def _paper_difference(cell: float | None, baseline: float | None) -> float | None:
    """Subtract without rounding errors: 50.3 - 49.8 is .5, not just above a margin of .5."""
    return None if cell is None or baseline is None else round(cell - baseline, 6)


def _has_sign(paper: float, margin: float) -> bool:
    return abs(paper) > margin + ROUNDING


def _p_outside(differences: SeedDifferences, paper: float | None, margin: float) -> float | None:
    """Return the two-sided p of "the mean difference is within paper ± margin"; None if untested.

    A 90 % interval, as used for equivalence, lies outside by chance in up to 10 % of cells, where
    the margin is small beside the noise.
    """
    p = None if paper is None else tost(differences.values, centre=paper, margin=margin)
    return None if p is None else min(1.0, 2 * (1 - p))


def _missing(paper: float, margin: float, sd: float, n: int) -> str:
    """Say how many seeds the two tests of a verdict take at this noise."""
    wanted = [(f"show ± {margin:.2f}", seeds_for_equivalence(margin, sd))]
    if _has_sign(paper, margin):
        wanted.insert(0, (f"resolve {abs(paper):.2f}", seeds_needed(paper, sd)))
    parts = [
        f"to {aim}: {'too many' if seeds is None else seeds} seeds"
        for aim, seeds in wanted
        if seeds is None or seeds > n
    ]
    if not parts:
        return "it takes more seeds"
    return f"at this noise (SD {sd:.2f}), for this cell alone, {', '.join(parts)}"


def p_words(p: float) -> str:
    """Return a p-value as `p .012`, or that it is below .001."""
    return "p < .001" if p < 0.001 else f"p {p:.3f}".replace("0.", ".")
