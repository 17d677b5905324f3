"""Warnings about a training, as numbers that a trial reports to Tune.

Ray Train takes no text in a report, so the driver puts the numbers into words again.
"""

from collections.abc import Mapping
from typing import Any

from wsss.training.diagnosis.learning import DeadMaps, PriorWarning

VIEWS = ("original", "enhanced", "decreased")
KEY, LOSS, PRIOR = "warned_at", "warned_loss_cls", "warned_prior"
DEAD, VIEW, EPOCH, COMPARED = "warned_dead", "warned_view", "warned_epoch", "warned_compared"


def to_record(warning: PriorWarning | DeadMaps) -> dict[str, float]:
    """Return a warning as flat numbers."""
    if isinstance(warning, PriorWarning):
        return {KEY: float(warning.iteration), LOSS: warning.loss_cls, PRIOR: warning.prior}
    return {
        DEAD: warning.share,
        VIEW: float(VIEWS.index(warning.view)),
        EPOCH: float(warning.epoch),
        COMPARED: float(warning.compared),
    }


def from_record(record: Mapping[str, Any]) -> PriorWarning | None:
    """Return the label-prior warning in a report's numbers, or None."""
    if KEY not in record:
        return None
    return PriorWarning(int(record[KEY]), float(record[LOSS]), float(record[PRIOR]))


def dead_from_record(record: Mapping[str, Any]) -> DeadMaps | None:
    """Return the warning of dead maps in a report's numbers, or None."""
    if DEAD not in record:
        return None
    view = VIEWS[int(record[VIEW])]
    return DeadMaps(int(record[EPOCH]), view, float(record[DEAD]), bool(record[COMPARED]))


def without_warnings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report's numbers without warnings."""
    return {key: value for key, value in record.items() if not key.startswith("warned_")}
