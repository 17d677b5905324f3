"""SGD with the poly schedule, per iteration (IV-B, Eq. 8)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from wsss.config import TrainConfig

STANDARD_MOMENTUM = 0.9
Group = tuple[list[nn.Parameter], float, float]
"""Parameters, their rate and their weight decay."""


def build_sgd(parameters: Mapping[str, list[nn.Parameter]], train: TrainConfig) -> torch.optim.SGD:
    """Return SGD over named groups of parameters, each at its own multiple of `train.lr`.

    parameters: by `backbone` (x1), `pyramid`, `parts` and `head`, whose multipliers `train` has;
    empty groups are left out. Raises KeyError for another name. Momentum `legacy` is that of the
    public IRN, SEAM and Puzzle-CAM code: its optimiser passes the weight decay (1e-4) as SGD's
    momentum, while the decay itself still applies. With `train.bias_decay` off, one-dimensional
    parameters do not decay.
    """
    momentum = STANDARD_MOMENTUM if train.momentum == "standard" else train.weight_decay
    multipliers = {
        "backbone": 1.0,
        "pyramid": train.pyramid_lr_multiplier,
        "parts": train.parts_lr_multiplier,
        "head": train.head_lr_multiplier,
    }
    groups: list[Group] = []
    for name, group in parameters.items():
        lr, decay = train.lr * multipliers[name], train.weight_decay
        if train.bias_decay:
            groups.append((group, lr, decay))
        else:  # of one dimension are biases, and scales of norms
            groups.append(([p for p in group if p.ndim != 1], lr, decay))
            groups.append(([p for p in group if p.ndim == 1], lr, 0.0))
    return sgd(groups, momentum, nesterov=train.nesterov and momentum > 0)


def sgd(groups: Iterable[Group], momentum: float, *, nesterov: bool = False) -> torch.optim.SGD:
    """Return SGD over groups of parameters; empty ones are left out."""
    return torch.optim.SGD(
        [
            {"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for parameters, lr, decay in groups
            if parameters
        ],
        momentum=momentum,
        nesterov=nesterov,
        fused=True,  # one pass over each tensor; the same numbers
    )


@dataclass(frozen=True)
class Poly:
    """The schedule lr / lr0 = (1 - iteration / num_iterations) ** power (Eq. 8)."""

    num_iterations: int
    power: float
    warmup: int = 0
    """First iterations, during which the rate also rises linearly, from 1 / warmup."""
    hold: int = 1
    """Iterations from one change of the rate to the next."""

    def factor(self, iteration: int) -> float:
        """Return lr / lr0 at a 0-based iteration."""
        start = iteration - iteration % self.hold
        factor = (1 - start / self.num_iterations) ** self.power
        if iteration < self.warmup:
            factor *= (iteration + 1) / self.warmup
        return factor


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's rate to `factor` times its base rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
