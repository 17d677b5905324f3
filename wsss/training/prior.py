"""Whether a CAM training learns: its L_cls against that of the best constant prediction.

A collapsed network answers every image with the label frequencies. Its maps say nothing, whatever
is thresholded later, and the epochs that it still has to train are lost.
"""

from collections import deque
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from wsss.config import RunConfig
from wsss.data.voc import Sample
from wsss.errors import ForeseenError

COLLAPSE_MARGIN = 0.05
"""A network whose L_cls is within 5 % of the label prior's entropy has learnt nothing."""

MIN_PRIOR = 0.01
"""Below this entropy there is nothing to learn, as where every picture holds the one class: no
training is judged by it."""

WINDOW = 50
"""Iterations over which L_cls is averaged: 800 images at IRN's batch of 16."""


class NotLearningError(ForeseenError, RuntimeError):
    """L_cls is not clearly below the label prior after `PriorLimits.fail_after` iterations."""


@dataclass(frozen=True)
class PriorLimits:
    """After how many iterations L_cls has to be clearly below the label prior's; 0: never.

    IRN's public log of VOC has L_cls at half the prior's after 200 iterations. A training of fewer
    iterations than `fail_after` is warned of, never ended.
    """

    warn_after: int = 100
    fail_after: int = 500


@dataclass(frozen=True)
class PriorWarning:
    """A training whose L_cls is not clearly below the label prior's, while it goes on."""

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
    """Looks at L_cls once for each limit: at its iteration, or later in a resumed training.

    A resumed training is judged once it has as many losses as `WINDOW`, or as the limit allows.
    """

    def __init__(self, limits: PriorLimits, prior: float) -> None:
        self.prior, self.limits = prior, limits
        self.pending = {limit for limit in (limits.warn_after, limits.fail_after) if limit}
        self.recent: deque[float] = deque(maxlen=WINDOW)
        """The last values of L_cls."""

    def look(self, loss_cls: float, iteration: int) -> PriorWarning | None:
        """Take note of an iteration's L_cls; return a warning if it is not clearly below the prior.

        loss_cls: mean over all ranks. iteration: how many are done. Raises NotLearningError where
        `fail_after` is due.
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
                "train.warmup_iterations; if it only needs longer, raise --prior-fails-after (now "
                f"{self.limits.fail_after} iterations; 0: never)"
            )
        return warning


def prior_loss(samples: list[Sample], num_classes: int) -> float:
    """Return L_cls of the best constant prediction: the mean entropy of the label frequencies."""
    counts = np.bincount([k for s in samples for k in s.labels], minlength=num_classes)
    rate = np.clip(counts / len(samples), 1e-12, 1 - 1e-12)
    return float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)).mean())


def configured_prior(config: RunConfig, samples: list[Sample], num_classes: int) -> float:
    """Return `prior_loss` in the units of the configured L_cls, which may sum classes and views."""
    scale = num_classes if config.train.cls_reduction == "sum" else 1
    scale *= 1 + len(config.views.names) if config.train.cls_over_views == "sum" else 1
    return prior_loss(samples, num_classes) * scale


def prior_gap(loss_cls: float, prior: float) -> float:
    """Return 1 - L_cls / prior: the share of the label entropy that the images explain.

    1 where there is none to explain (MIN_PRIOR).
    """
    return 1 - loss_cls / prior if prior >= MIN_PRIOR else 1.0
