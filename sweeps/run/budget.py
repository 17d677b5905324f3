"""A limit on the GPU-hours of a sweep: weighed before it starts, and watched while it runs.

What is spent is read from the ledger, so earlier runs of the same sweep count. On machines without
GPUs, CPU-hours are counted. Once the budget is spent no trial is started, and each one at work
stops after its next checkpoint: so up to an epoch of each, and the time to start it, comes on top.
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
from wsss.errors import ForeseenError
from wsss.printable import counted


class BudgetError(ForeseenError):
    """A budget that is no number of hours."""


@dataclass
class Budget:
    """So many hours for a sweep, in its ledger's unit; None: no limit."""

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
        """Whether all is spent. Asked at every step of a sweep, it also keeps the ledger alive."""
        self.ledger.beat()
        return self.hours is not None and self.ledger.spent() >= self.hours

    def reason(self) -> str | None:
        """Return in words that all is spent, or None."""
        if not self.exhausted():
            return None
        spent, hours = self.ledger.spent(), self.hours or 0.0
        return f"{format_hours(spent)} of {format_hours(hours)} {self.unit}-hours are spent"


def size_of(resources: Resources) -> Size:
    """Return what one trial holds while it runs."""
    workers, cpus, gpus = resources.demand
    return Size(resources.num_workers, workers * gpus, workers * cpus)


def hours_left(cost: CostEstimate, resources: Resources) -> float | None:
    """Estimate the hours which the missing trials will take; None if none can be estimated.

    The processes of the measured trials are taken as equally fast. Time on CPUs tells nothing of
    GPUs. Trials without an estimate are left out.
    """
    if cost.trials and cost.num_unknown == len(cost.trials):
        return None
    if cost.trials and (cost.device == "cuda") != (resources.gpus > 0):
        return None
    return cost.device_hours * (resources.gpus or resources.cpus)


def budget_lines(budget: Budget, spent: float, left: float | None, num_unknown: int) -> list[str]:
    """Say before a sweep starts what it may spend, what it has spent, and if that will do.

    left: estimated hours of what is missing; num_unknown: trials which it leaves out.
    """
    if budget.hours is None:
        return []
    unit = budget.unit
    text = f"budget: {format_hours(budget.hours)} {unit}-hours, {format_hours(spent)} spent"
    lines = []
    if unit == "CPU":
        lines.append("budget: trials use no GPU (--gpus), so it counts CPU-hours")
    if spent >= budget.hours:
        return [*lines, f"{text}: nothing is left of it"]
    if left is None:
        return [*lines, f"{text}; what the rest will take is unknown: nothing like it was measured"]
    more = f", and {counted(num_unknown, 'trial')} of unknown cost" if num_unknown else ""
    need = f"; the rest will take about {format_hours(left)}{more}"
    if spent + left > budget.hours:
        need += (
            f": too much by {format_hours(spent + left - budget.hours)}, so the sweep will stop on "
            "the way"
        )
    return [*lines, text + need]


def enough_hours(spent: float, left: float | None, budget: float) -> float:
    """Return a budget with which the sweep can go on: 10 % above what is left, if that is known.

    Always more than was spent; rounded up to two digits.
    """
    wanted = spent + 1.1 * left if left else spent + budget
    wanted = max(wanted, 1.05 * spent)
    step: float = 10.0 ** (math.floor(math.log10(wanted)) - 1)
    return round(math.ceil(wanted / step - 1e-9) * step, 10)


def with_budget(command: Sequence[str], hours: float) -> str:
    """Return a command line with another --budget."""
    words = list(command)
    for index, word in enumerate(words):
        if word == "--budget":
            words[index + 1] = f"{hours:g}"
            return shlex.join(words)
        if word.startswith("--budget="):
            words[index] = f"--budget={hours:g}"
            return shlex.join(words)
    return shlex.join([*words, "--budget", f"{hours:g}"])


def forecast(cost: CostEstimate, budget: Budget, resources: Resources) -> list[str]:
    """Say before a sweep starts what it may spend, has spent, and if that will do; [] without."""
    if budget.hours is None:
        return []
    spent, left = budget.ledger.book().hours(budget.unit), hours_left(cost, resources)
    return budget_lines(budget, spent, left, cost.num_unknown)


def way_on(sweep: Sweep, budget: Budget, resources: Resources, command: Sequence[str]) -> list[str]:
    """Return the words before, and the command line, with which a sweep goes on; once spent."""
    spent = budget.ledger.book().hours(budget.unit)
    left = hours_left(cost_of(sweep, budget.ledger.store), resources)
    hours = budget.hours or spent
    return [
        f"{format_hours(spent)} of {format_hours(hours)} {budget.unit}-hours are spent; what is "
        "finished is in the tables. To go on:",
        with_budget(command, enough_hours(spent, left, hours)),
    ]


def cost_of(sweep: Sweep, store: Store) -> CostEstimate:
    """Estimate what is left of a sweep from what the store holds now."""
    metrics = read_metrics(store, {})
    states = read_states(store, sweep.plan.trials, metrics)
    return estimate_cost(sweep.plan, store, states, metrics)
