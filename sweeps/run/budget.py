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
from sweeps.store.attempts import Ledger, Size
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

    def reason(self) -> str | None:
        """Return a sentence if the budget is spent, else None.

        Called at every step, so it also keeps the ledger alive.
        """
        self.ledger.beat()
        if self.hours is None or (spent := self.ledger.spent()) < self.hours:
            return None
        return self._words(spent)

    def forecast(self, cost: CostEstimate, resources: Resources) -> list[str]:
        """Return a line on whether the budget is enough, before a start; [] without a limit.

        cost: of the missing trials.
        """
        if self.hours is None:
            return []
        spent, left = self._spent_before(), hours_left(cost, resources)
        said = f"budget: {self._words(spent)}"
        if spent >= self.hours:
            return [f"{said}: nothing is left"]
        if left is None:
            return [f"{said}; the rest cannot be estimated: nothing like it was measured"]
        unknown = cost.num_unknown
        more = f", and {counted(unknown, 'trial')} of unknown cost" if unknown else ""
        said += f"; the rest will take about {format_hours(left)}{more}"
        if spent + left > self.hours:
            lacking = format_hours(spent + left - self.hours)
            said += f": too much by {lacking}, so the sweep will stop before its end"
        return [said]

    def how_to_continue(
        self, cost: CostEstimate, resources: Resources, command: Sequence[str]
    ) -> list[str]:
        """Return lines for a sweep whose budget is spent; the last is the command that continues.

        cost: of the missing trials; command: the words of the one that ends.
        """
        spent = self._spent_before()
        hours = enough_hours(spent, hours_left(cost, resources) or self.hours or 0.0)
        return [
            f"{self._words(spent)}; the tables show what is finished. To continue:",
            with_budget(command, hours),
        ]

    def _words(self, spent: float) -> str:
        unit = self.ledger.size.unit
        return f"{format_hours(spent)} of {format_hours(self.hours or 0.0)} {unit}-hours are spent"

    def _spent_before(self) -> float:
        """Return the hours in the store; `ledger.spent` has those of its own session, too."""
        return self.ledger.book().hours(self.ledger.size.unit)


def size_of(resources: Resources) -> Size:
    """Return what one trial holds while it runs."""
    count = resources.processes
    return Size(resources.num_workers, count * resources.gpus, count * resources.cpus)


def hours_left(cost: CostEstimate, resources: Resources) -> float | None:
    """Estimate the hours of the missing trials; None if none can be estimated.

    Assumes that processes are as fast as those of the measured trials. Times on CPUs say nothing
    about GPUs. Trials without an estimate are left out.
    """
    if cost.trials:
        is_alike = (cost.device == "cuda") == (resources.gpus > 0)
        if not is_alike or cost.num_unknown == len(cost.trials):
            return None
    return cost.device_hours * (resources.gpus or resources.cpus)


def enough_hours(spent: float, left: float) -> float:
    """Return a budget about 10 % above what is spent and left, rounded to two digits."""
    return float(f"{1.1 * (spent + left):.2g}")


def with_budget(command: Sequence[str], hours: float) -> str:
    """Return a command line with another --budget."""
    words, kept = iter(command), list[str]()
    for word in words:
        if word == "--budget":
            next(words)
        elif not word.startswith("--budget="):
            kept.append(word)
    return shlex.join([*kept, "--budget", f"{hours:g}"])


def cost_of(sweep: Sweep, store: Store) -> CostEstimate:
    """Estimate what is left of a sweep, from the store's present state."""
    metrics = read_metrics(store, own=sweep.plan.run_ids)
    states = read_states(store, sweep.plan.trials, metrics)
    return estimate_cost(sweep.plan, store, states, metrics, {})
