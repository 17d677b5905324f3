"""What a sweep says of its budget: before it starts, and when it is spent."""

from collections.abc import Callable, Sequence

from sweeps.plan.cost import CostEstimate, estimate_cost
from sweeps.plan.states import read_metrics, read_states
from sweeps.plan.sweep import Sweep
from sweeps.run.budget import Budget, budget_lines, enough_hours, hours_left, size_of, with_budget
from sweeps.run.resources import Resources
from sweeps.store.attempts import Ledger
from sweeps.store.store import Store


def say_budget(
    sweep: Sweep,
    store: Store,
    resources: Resources,
    hours: float | None,
    say: Callable[[str], None],
) -> None:
    """Say what a sweep may spend, has spent, and whether that will do; nothing without a budget."""
    if hours is None:
        return
    budget, cost = Budget(_ledger(sweep, store, resources), hours), _cost(sweep, store)
    spent, left = budget.ledger.book().hours(budget.unit), hours_left(cost, resources)
    for line in budget_lines(budget, spent, left, cost.num_unknown):
        say(line)


def say_spent(
    sweep: Sweep,
    store: Store,
    resources: Resources,
    hours: float | None,
    reason: str,
    command: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Say that the budget is spent, and the command that goes on with a larger one."""
    ledger = _ledger(sweep, store, resources)
    spent = ledger.book().hours(ledger.size.unit)
    more = enough_hours(spent, hours_left(_cost(sweep, store), resources), hours or spent)
    say(f"{reason}; what is finished is in the tables. To go on:")
    say(with_budget(command, more))


def _ledger(sweep: Sweep, store: Store, resources: Resources) -> Ledger:
    """Return the sweep's ledger to read from; only the one driver writes to it."""
    return Ledger(store, sweep.name, size_of(resources))


def _cost(sweep: Sweep, store: Store) -> CostEstimate:
    metrics = read_metrics(store, {})
    states = read_states(store, sweep.plan.trials, metrics)
    return estimate_cost(sweep.plan, store, states, metrics)
