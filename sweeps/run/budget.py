"""A limit on the GPU-hours of a sweep: checked before it starts and while it runs.

The hours spent are read from the ledger, so earlier starts of the same sweep count. On machines
without GPUs, CPU-hours are counted. Once the budget is spent no trial starts, and each running one
saves a checkpoint and stops, so each may exceed the budget by a step and its start-up time.
"""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.plan.cost import CostEstimate, estimate_cost
from sweeps.plan.states import read_metrics, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.live.cost_lines import format_hours
from sweeps.run.ray.resources import Resources
from sweeps.store.attempts import Ledger, Size, Unit
from sweeps.store.store import Store
from wsss.basics.errors import ForeseenError
from wsss.basics.printable import counted


class BudgetError(ForeseenError):
    """A budget that is no number of hours."""


@dataclass
class Budget:
    """The hours that a sweep may use, in its ledger's unit; None: no limit."""

    ledger: Ledger
    hours: float | None = None

    def __post_init__(self) -> None:
        if self.hours is not None and not (0 < self.hours < math.inf):
            raise BudgetError(f"budget {self.hours:g}: not more than 0 hours; give e.g. --budget 8")

    @property
    def unit(self) -> Unit:
        """GPU or CPU."""
        return self.ledger.size.unit

    def exhausted(self) -> bool:
        """Whether the budget is spent. Called at every step, so it also keeps the ledger alive."""
        self.ledger.beat()
        return self.hours is not None and self.ledger.spent() >= self.hours

    def reason(self) -> str | None:
        """Return a sentence if the budget is spent, else None."""
        if not self.exhausted():
            return None
        spent, hours = self.ledger.spent(), self.hours or 0.0
        return f"{format_hours(spent)} of {format_hours(hours)} {self.unit}-hours are spent"


def size_of(resources: Resources) -> Size:
    """Return what one trial holds while it runs."""
    count = resources.processes
    return Size(resources.num_workers, count * resources.gpus, count * resources.cpus)


def hours_left(cost: CostEstimate, resources: Resources) -> float | None:
    """Estimate the hours of the missing trials; None if none can be estimated.

    Assumes that processes are as fast as those of the measured trials. Times on CPUs say nothing
    about GPUs. Trials without an estimate are left out.
    """
    if cost.trials and cost.num_unknown == len(cost.trials):
        return None
    if cost.trials and (cost.device == "cuda") != (resources.gpus > 0):
        return None
    return cost.device_hours * (resources.gpus or resources.cpus)


def budget_lines(budget: Budget, spent: float, left: float | None, num_unknown: int) -> list[str]:
    """Return lines on what a sweep may spend, has spent, and whether that is enough.

    left: estimated hours of the missing trials; num_unknown: trials without an estimate.
    """
    if budget.hours is None:
        return []
    unit = budget.unit
    text = f"budget: {format_hours(budget.hours)} {unit}-hours, {format_hours(spent)} spent"
    lines = []
    if unit == "CPU":
        lines.append("budget: trials use no GPU (--gpus), so it counts CPU-hours")
    if spent >= budget.hours:
        return [*lines, f"{text}: nothing is left"]
    if left is None:
        return [*lines, f"{text}; the rest cannot be estimated: nothing like it was measured"]
    more = f", and {counted(num_unknown, 'trial')} of unknown cost" if num_unknown else ""
    need = f"; the rest will take about {format_hours(left)}{more}"
    if spent + left > budget.hours:
        need += (
            f": too much by {format_hours(spent + left - budget.hours)}, so the sweep will stop "
            "before its end"
        )
    return [*lines, text + need]


def enough_hours(spent: float, left: float | None, budget: float) -> float:
    """Return a budget that lets the sweep continue: 10 % above what is left, if that is known.

    Always more than was spent; rounded up to two digits.
    """
    wanted = spent + 1.1 * left if left else spent + budget
    wanted = max(wanted, 1.05 * spent)
    step: float = 10.0 ** (math.floor(math.log10(wanted)) - 1)
    return round(math.ceil(wanted / step - 1e-9) * step, 10)


def with_budget(command: Sequence[str], hours: float) -> str:
    """Return a command line with another --budget."""
    words, kept = iter(command), list[str]()
    for word in words:
        if word == "--budget":
            next(words)
        elif not word.startswith("--budget="):
            kept.append(word)
    return shlex.join([*kept, "--budget", f"{hours:g}"])


def forecast(cost: CostEstimate, budget: Budget, resources: Resources) -> list[str]:
    """Return the budget's lines for the start of a sweep; [] without a limit."""
    spent, left = budget.ledger.book().hours(budget.unit), hours_left(cost, resources)
    return budget_lines(budget, spent, left, cost.num_unknown)


def how_to_continue(
    sweep: Sweep, budget: Budget, resources: Resources, command: Sequence[str]
) -> list[str]:
    """Return lines for a sweep whose budget is spent; the last is the command that continues."""
    spent = budget.ledger.book().hours(budget.unit)
    left = hours_left(cost_of(sweep, budget.ledger.store), resources)
    hours = budget.hours or spent
    return [
        f"{format_hours(spent)} of {format_hours(hours)} {budget.unit}-hours are spent; the tables "
        "show what is finished. To continue:",
        with_budget(command, enough_hours(spent, left, hours)),
    ]


def cost_of(sweep: Sweep, store: Store) -> CostEstimate:
    """Estimate what is left of a sweep, from the store's present state."""
    metrics = read_metrics(store, own=sweep.plan.run_ids)
    states = read_states(store, sweep.plan.trials, metrics)
    return estimate_cost(sweep.plan, store, states, metrics)
