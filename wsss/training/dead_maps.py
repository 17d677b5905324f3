"""Whether a CAM training loses its maps: the dead share of its epochs against two limits.

A map is dead where no pixel is positive (method/diagnostics.py). Nothing can be thresholded out of
it, and two dead maps agree: L_s falls while the maps are lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsss.config import RunConfig

MAX_DEAD = 0.4
"""Dead share above which an epoch wholly in the training's second half is warned of."""

MAX_RISE = 0.2
"""Rise of the dead share above its lowest value so far of which any epoch but the first is warned
of."""


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
            "L_s is satisfied by nothing; see transfer.empty_maps, transfer.ramp"
            if self.compared
            else "no threshold finds anything in them; see train.lr, train.epochs"
        )
        return (
            f"{self.share:.0%}".replace("%", " %") + " of the maps of present classes are empty in "
            f"the {self.view} view at the end of epoch {self.epoch}: {effect}"
        )


def find_dead_maps(epochs: Sequence[Mapping[str, Any]], config: RunConfig) -> DeadMaps | None:
    """Judge a training by its last epoch; None if all is well.

    epochs: `epoch` and `dead` (share by view, see EpochRecord) of each so far, in order. Records of
    older stores have no `dead`, and are not judged.
    """
    last = epochs[-1] if epochs else {}
    shares = last.get("dead")
    if not shares or last["epoch"] == 1:
        return None
    late = 2 * (last["epoch"] - 1) >= config.train.epochs
    found = [
        view
        for view, share in shares.items()
        if (late and share > MAX_DEAD)
        or share > MAX_RISE + min(e["dead"][view] for e in epochs if view in e.get("dead", ()))
    ]
    if not found:
        return None
    view = max(found, key=lambda name: shares[name])
    compared = bool(config.views.names) and config.transfer.lambda_s > 0
    return DeadMaps(int(last["epoch"]), view, shares[view], compared)
