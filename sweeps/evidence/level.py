"""Level or shape: does a difference at the fixed background score hold at other thresholds?

Maps that are brighter or darker as a whole are better at one fixed score, but not at the threshold
that suits them: a shift of level. Better maps are better at any threshold: a change of shape. All
of this is about seed noise, in percent mIoU.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from sweeps.evidence.seeds import ALPHA, seed_differences
from sweeps.evidence.verdict import CellEvidence, p_words


class Change(StrEnum):
    """Kind of a difference to the baseline."""

    SHAPE = "shape"
    LEVEL = "level"
    PARTLY = "partly"


class LevelOrShape(NamedTuple):
    """The kind, None if it cannot be told, and the numbers behind it in one sentence."""

    kind: Change | None
    reason: str
    """Empty without a seed that the cell and its baseline have."""


CHANGE_WORDS = {
    Change.SHAPE: "of shape (same sign however the threshold is chosen)",
    Change.LEVEL: "of level (shown to be smaller or undone at another threshold)",
    Change.PARTLY: "partly of shape (shown with some choices of the threshold)",
}


def level_or_shape(fixed: CellEvidence, others: Mapping[str, CellEvidence]) -> LevelOrShape:
    """Return whether a cell's difference to the baseline is of level or of shape.

    fixed: at the fixed background score; others: by name, at the held-out and the best threshold
    and of the AUC. A difference is shown if its p, adjusted over the table (Holm), is below 5 %.

    `shape`: shown at the fixed score, and by all others with the same sign. `level`: shown at the
    fixed score, by no other with the same sign, and by one of them shown to be smaller or to have
    the other sign. (That no other shows it is not enough: of the changes of shape that three or
    five seeds showed, this held for up to a sixth, simulated.) `partly`: shown at the fixed score
    and by some others; or not there, but by all others with the same sign (fewer of three may be
    chance). None otherwise, for fewer than two seeds, or without another measure.
    """
    others = {name: other for name, other in others.items() if other.differences.n}
    if not fixed.differences.n:
        return LevelOrShape(None, "")
    if fixed.holm_p is None:
        return LevelOrShape(None, "one seed cannot tell level and shape apart")
    if not others:
        return LevelOrShape(None, "no other choice of threshold was measured")
    sign = _sign(fixed) if fixed.differs else _sign(next(iter(others.values())))
    same = [name for name, other in others.items() if other.differs and _sign(other) == sign]
    if len(same) == len(others):
        kind = Change.SHAPE if fixed.differs else Change.PARTLY
    elif fixed.differs and same:
        kind = Change.PARTLY
    elif fixed.differs and any(_drops(fixed, other) for other in others.values()):
        kind = Change.LEVEL
    else:
        kind = None
    figures = ", ".join(
        f"{name} {evidence.differences.mean:+z.2f} ({p_words(evidence.holm_p)})"
        for name, evidence in {"fixed": fixed, **others}.items()
        if evidence.differences.mean is not None and evidence.holm_p is not None
    )
    if kind is None:
        words = "no difference shown at the fixed score"
        if fixed.differs:
            words = "shown at the fixed score alone, but not to be smaller at other thresholds"
    elif kind is Change.PARTLY and fixed.differs:
        words = f"partly of shape (shown at the fixed score and {' and '.join(same)} only)"
    elif kind is Change.PARTLY:
        words = f"partly of shape (shown not at the fixed score, but {' and '.join(same)})"
    else:
        words = CHANGE_WORDS[kind]
        if turned := [name for name, other in others.items() if other.differs and name not in same]:
            words += f", and has the other sign at {' and '.join(turned)}"
    return LevelOrShape(kind, f"{words}: {figures}")


def _sign(evidence: CellEvidence) -> bool:
    return (evidence.differences.mean or 0) > 0


def _drops(fixed: CellEvidence, other: CellEvidence) -> bool:
    """Whether other is shown to be less than fixed, or of the other sign, paired by seed.

    Its p is not adjusted.
    """
    first, second = (
        dict(zip(e.differences.seeds, e.differences.values, strict=True)) for e in (fixed, other)
    )
    change = seed_differences(first, second)
    same_sign = ((change.mean or 0) > 0) == _sign(fixed)
    return same_sign and change.p is not None and change.p < ALPHA
