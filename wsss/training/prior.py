"""Whether a CAM training learns: its L_cls against that of the best constant prediction.

A collapsed network answers every image with the label frequencies. Its maps say nothing, whatever
is thresholded later, and the epochs that it still has to train are lost.
"""

from dataclasses import dataclass

import numpy as np

from wsss.config import RunConfig
from wsss.data.voc import Sample
from wsss.errors import ForeseenError

COLLAPSE_MARGIN = 0.05
"""A network whose L_cls is within 5 % of the label prior's entropy has learnt nothing."""

WINDOW = 50
"""Iterations over which L_cls is averaged: 800 images at IRN's batch of 16."""


class NotLearningError(ForeseenError, RuntimeError):
    """L_cls is still at the label prior after `PriorLimits.fail_after` iterations."""


@dataclass(frozen=True)
class PriorLimits:
    """After how many iterations a training that is still at the label prior is named; 0: never.

    IRN's public log of VOC has L_cls at half the prior's after 200 iterations. A training of fewer
    iterations than `fail_after` is warned of, never ended.
    """

    warn_after: int = 100
    fail_after: int = 500


@dataclass(frozen=True)
class PriorWarning:
    """A training that is still at the label prior, while it goes on."""

    iteration: int
    """Iterations done."""
    loss_cls: float
    """Mean of L_cls over the last WINDOW iterations and all ranks."""
    prior: float
    """L_cls of the label frequencies."""

    def __str__(self) -> str:
        return (
            f"still at the label prior after {self.iteration} iterations: L_cls is "
            f"{self.loss_cls:.4f}, and the label frequencies alone give {self.prior:.4f}"
        )


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
    """Return 1 - L_cls / prior: the share of the label entropy that the images explain."""
    return 1 - loss_cls / prior


def check_prior(
    limits: PriorLimits, iteration: int, loss_cls: float, prior: float
) -> PriorWarning | None:
    """Return a warning if a training is at the label prior at one of the two limits, else None.

    iteration: how many are done; loss_cls: mean of the last ones. Raises NotLearningError at
    `limits.fail_after`.
    """
    if prior_gap(loss_cls, prior) >= COLLAPSE_MARGIN:
        return None
    warning = PriorWarning(iteration, loss_cls, prior)
    if iteration == limits.fail_after:
        raise NotLearningError(
            f"{warning}; lower train.lr or train.parts_lr_multiplier, or set train.clip_norm and "
            "train.warmup_iterations; if it only needs longer, raise --prior-fails-after (now "
            f"{limits.fail_after} iterations; 0: never)"
        )
    return warning
