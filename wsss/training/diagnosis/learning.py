"""Whether a CAM training learns, and whether it keeps its maps.

A collapsed network answers every image with the label frequencies. Its maps say nothing at any
threshold, and its remaining epochs are wasted. So its L_cls is compared with that of the best
constant prediction, the label prior.

A map is dead (empty) if no pixel is positive (method/diagnostics.py). No threshold finds anything
in it, and two dead maps agree: L_s falls while the maps are lost. So each epoch's share of dead
maps is compared with two limits.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from wsss.basics.errors import ForeseenError
from wsss.config import RunConfig

COLLAPSE_MARGIN = 0.05
"""A network whose L_cls is within 5 % of the label prior's entropy has learnt nothing."""

MIN_PRIOR = 0.01
"""Below this entropy there is nothing to learn (say, one class in every picture): not judged."""

WINDOW = 50
"""Iterations over which L_cls is averaged: 800 images at IRN's batch of 16."""

MAX_DEAD = 0.4
"""Dead share above which an epoch of the training's second half gets a warning.

Real pictures: at most .34 there in trainings that went well, .43 to .55 in those that did not
(docs/paper.md).
"""

MAX_RISE = 0.2
"""Rise of the dead share above its lowest value so far that gets a warning.

The first epoch counts for neither limit: it begins with maps that are alive by chance. In every
training most of them die while the classifier learns how frequent the classes are. Only where it
is also the last one, there is no other, and its share is near that of the maps that are inferred:
.41 to .67 against .41 to .68 (`tiny` for one epoch, two cells, three seeds each).
"""


class NotLearningError(ForeseenError, RuntimeError):
    """L_cls is not clearly below the label prior after `PriorLimits.fail_after` iterations."""


@dataclass(frozen=True)
class PriorLimits:
    """Iterations after which L_cls must be clearly below the label prior's; 0: never checked.

    IRN's public log of VOC has L_cls at half the prior's after 200 iterations. A training of fewer
    iterations than `fail_after` gets a warning only.
    """

    warn_after: int = 100
    fail_after: int = 500


@dataclass(frozen=True)
class PriorWarning:
    """L_cls is not clearly below the label prior's; the training continues."""

    iteration: int
    """Iterations done."""
    loss_cls: float
    """Mean of L_cls over the last WINDOW iterations and all ranks."""
    prior: float
    """L_cls of the label frequencies."""

    def __str__(self) -> str:
        return (
            f"not clearly below the label prior after {self.iteration} iterations: L_cls is "
            f"{self.loss_cls:.4g}, and the label frequencies alone give {self.prior:.4g}"
        )


class PriorWatch:
    """Checks L_cls once for each limit: at its iteration, or later in a resumed training.

    A resumed training is judged once `WINDOW` losses (or as many as the limit has) are there.
    """

    def __init__(self, limits: PriorLimits, prior: float) -> None:
        self.prior, self.limits = prior, limits
        self.pending = {limit for limit in (limits.warn_after, limits.fail_after) if limit}
        self.recent: deque[float] = deque(maxlen=WINDOW)
        """The last values of L_cls."""

    def look(self, loss_cls: float, iteration: int) -> PriorWarning | None:
        """Record an iteration's L_cls; return a warning if a limit is due and the mean too high.

        loss_cls: mean over all ranks. iteration: iterations done. Raises NotLearningError if the
        limit is `fail_after`.
        """
        self.recent.append(loss_cls)
        due = {n for n in self.pending if iteration >= n and len(self.recent) >= min(WINDOW, n)}
        self.pending -= due
        if not due:
            return None
        loss_cls = fmean(self.recent)
        if prior_gap(loss_cls, self.prior) >= COLLAPSE_MARGIN:
            return None
        warning = PriorWarning(iteration, loss_cls, self.prior)
        if self.limits.fail_after in due:
            raise NotLearningError(
                f"{warning}; try another train.lr or train.parts_lr_multiplier (lower if L_cls "
                "rose, higher if it hardly moved), or set train.clip_norm and "
                "train.warmup_iterations; if it only needs more time, raise --prior-fails-after "
                f"(now {self.limits.fail_after} iterations; 0: never)"
            )
        return warning


def prior_gap(loss_cls: float, prior: float) -> float:
    """Return 1 - L_cls / prior: the share of the label entropy that the images explain.

    1 where there is none to explain (MIN_PRIOR).
    """
    return 1 - loss_cls / prior if prior >= MIN_PRIOR else 1.0


def figures_of(epoch: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an epoch's record, those by view and loss as `dead_original` and so on.

    Texts, lists and losses that are not in use are left out.
    """
    groups = {
        f"{group.removesuffix('s')}_{name}": value
        for group in ("dead", "area", "pulls")
        for name, value in epoch.get(group, {}).items()
    }
    found = {**epoch, **groups}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class DeadMaps:
    """An epoch after which too many maps are dead, in the view that has the most."""

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

    epochs: `epoch` and `dead` (share by view, see `judged`) of each so far, in order. Records of
    older stores, without `dead`, are not judged.
    """
    first = min(2, config.train.epochs)
    judged = [epoch for epoch in epochs if epoch["epoch"] >= first and epoch.get("dead")]
    if not judged or judged[-1] is not epochs[-1]:
        return None
    last, shares = epochs[-1], epochs[-1]["dead"]
    late = 2 * (last["epoch"] - 1) >= config.train.epochs or config.train.epochs == 1
    found = [
        view
        for view, share in shares.items()
        if (late and share > MAX_DEAD)
        or share > MAX_RISE + min(epoch["dead"].get(view, share) for epoch in judged)
    ]
    if not found:
        return None
    view = max(found, key=lambda name: shares[name])
    compared = bool(config.views.names) and config.transfer.lambda_s > 0
    return DeadMaps(int(last["epoch"]), view, shares[view], compared)
