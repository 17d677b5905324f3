"""Whether a CAM training loses its maps: the dead share of its epochs against two limits.

A map is dead where no pixel is positive (method/diagnostics.py). Nothing can be thresholded out of
it, and two dead maps agree: L_s falls while the maps are lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsss.config import RunConfig

MAX_DEAD = 0.4
"""Dead share above which an epoch wholly in the training's second half is warned of.

Real pictures: at most .34 there in trainings that went well, .43 to .55 in those that did not
(docs/paper.md).
"""

MAX_RISE = 0.2
"""Rise of the dead share above its lowest value so far after which an epoch is warned of.

The first epoch counts for neither limit: it begins with maps that are alive by chance, most of
which then die in every training, while the classifier learns how frequent the classes are.
"""


@dataclass(frozen=True)
class DeadMaps:
    """An epoch after which too many maps are dead, in the view which has most of them."""

    epoch: int
    view: str
    """original, enhanced or decreased."""
    share: float
    """Of the maps of present classes, in [0, 1]."""
    compared: bool
    """Whether L_s is part of the loss."""

    def __str__(self) -> str:
        effect = (
            "L_s is satisfied by nothing; see transfer.empty_maps, transfer.ramp, "
            "transfer.l1_reduction, train.lr"
            if self.compared
            else "no threshold finds anything in them; see train.lr, train.epochs"
        )
        return (
            f"{100 * self.share:.0f} % of the maps of present classes are empty in the {self.view} "
            f"view (epoch {self.epoch}): {effect}"
        )


def find_dead_maps(epochs: Sequence[Mapping[str, Any]], config: RunConfig) -> DeadMaps | None:
    """Judge a training by its last epoch; None if all is well.

    epochs: `epoch` and `dead` (share by view, see EpochRecord) of each so far, in order. Records of
    older stores have no `dead`, and are not judged.
    """
    judged = [epoch for epoch in epochs if epoch["epoch"] > 1 and epoch.get("dead")]
    if not judged or judged[-1] is not epochs[-1]:
        return None
    last, shares = epochs[-1], epochs[-1]["dead"]
    late = 2 * (last["epoch"] - 1) >= config.train.epochs
    found = [
        view
        for view, share in shares.items()
        if (late and share > MAX_DEAD)
        or share > MAX_RISE + min(epoch["dead"][view] for epoch in judged)
    ]
    if not found:
        return None
    view = max(found, key=lambda name: shares[name])
    compared = bool(config.views.names) and config.transfer.lambda_s > 0
    return DeadMaps(int(last["epoch"]), view, shares[view], compared)
