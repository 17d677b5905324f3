"""A warning that a training is at the label prior, as the numbers which a trial reports to Tune.

Ray Train takes no text among the numbers of a report, so the driver puts it into words again.
"""

from collections.abc import Mapping
from typing import Any

from wsss.training.prior import PriorWarning

KEY, LOSS, PRIOR = "warned_at", "warned_loss_cls", "warned_prior"


def to_record(warning: PriorWarning) -> dict[str, float]:
    """Return a warning as flat numbers."""
    return {KEY: float(warning.iteration), LOSS: warning.loss_cls, PRIOR: warning.prior}


def from_record(record: Mapping[str, Any]) -> PriorWarning | None:
    """Return the warning among a report's numbers, or None."""
    if KEY not in record:
        return None
    return PriorWarning(int(record[KEY]), float(record[LOSS]), float(record[PRIOR]))
