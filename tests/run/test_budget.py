"""A budget in GPU-hours: what it says beforehand, when it is spent, and how to go on."""

import shlex
import time

import pytest
from made_up.ledgers import FIRST, HOUR, SECOND, TWO_GPUS, Clock, driver

from sweeps.plan.cost import CostEstimate, TrialCost
from sweeps.run.budget import Budget, BudgetError, enough_hours, hours_left, size_of, with_budget
from sweeps.run.ray.resources import Resources
from sweeps.store.attempts import Ledger, Size
from sweeps.store.store import Store

ONE_GPU = Resources(gpus=1.0)


def test_a_budget_is_spent_by_all_attempts_together_while_they_run(store: Store) -> None:
    clock = Clock()
    with driver(store, clock) as ledger:
        budget = Budget(ledger, 6.0)
        ledger.update(FIRST, status="running")
        clock.hours += 1  # 2 GPU-hours
        ledger.update(SECOND, status="running")
        clock.hours += 0.9  # 3.6 more
        assert budget.reason() is None
        clock.hours += 0.1
        assert budget.reason() == "6.00 of 6.00 GPU-hours are spent"
        assert ledger.session.last == clock(), "to ask keeps the ledger alive"
        assert Budget(ledger).reason() is None, "without a limit none is ever spent"
    assert Budget(ledger).forecast(cost(HOUR), ONE_GPU) == []
    assert budget.forecast(cost(HOUR), ONE_GPU)[0].endswith("are spent: nothing is left")
    spent, command = budget.how_to_continue(cost(HOUR), ONE_GPU, ["sweeps", "run", "--budget", "6"])
    assert spent.startswith("6.00 of 6.00 GPU-hours are spent")
    assert command == "sweeps run --budget 8.8"  # 2 hours more, and a tenth


def test_a_clock_that_is_set_and_a_night_asleep_spend_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, while_awake = time.time, time.monotonic
    with Ledger(store, "s", TWO_GPUS) as ledger:
        ledger.update(FIRST, status="running")
        monkeypatch.setattr(time, "time", lambda: clock() + 24 * HOUR)
        assert 0 < ledger.spent() < 1
        monkeypatch.setattr(time, "monotonic", lambda: while_awake() + HOUR)
        assert 2 < ledger.spent() < 3
        monkeypatch.setattr(time, "time", lambda: clock() - 24 * HOUR)
        ledger.update(FIRST, status="done")
    assert 2 < ledger.book().hours("GPU") < 3


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_number_of_hours_is_refused(store: Store, hours: float) -> None:
    with pytest.raises(BudgetError, match="--budget"):
        Budget(driver(store, Clock()), hours)


def test_a_trial_holds_what_its_workers_hold_together() -> None:
    assert size_of(Resources(workers=3, cpus=2.0, gpus=0.5)) == Size(3, gpus=1.5, cpus=6.0)
    assert size_of(Resources(workers=0, cpus=2.0)) == Size(0, gpus=0.0, cpus=2.0)
    assert size_of(Resources(cpus=2.0)).unit == "CPU"


def cost(*seconds: float | None, device: str = "cuda", processes: int = 2) -> CostEstimate:
    trials = {str(i): TrialCost(s, 0.0, "same") for i, s in enumerate(seconds)}
    return CostEstimate(trials, 3, device, processes)


@pytest.mark.parametrize(
    ("measured", "resources", "hours"),
    [
        (cost(HOUR, 2 * HOUR), Resources(workers=2, gpus=0.5), 3.0),  # 3 hours of 2 halves
        (cost(HOUR, None), Resources(workers=2, gpus=0.5), 1.0),
        (cost(), ONE_GPU, 0.0),
        (cost(None, None), ONE_GPU, None),  # never measured
        (cost(HOUR, device="cpu"), ONE_GPU, None),  # or on other devices
        (cost(HOUR, device="cpu", processes=1), Resources(cpus=2.0), 2.0),
    ],
)
def test_the_hours_left_are_those_of_all_processes(
    measured: CostEstimate, resources: Resources, hours: float | None
) -> None:
    assert hours_left(measured, resources) == hours


@pytest.mark.parametrize(
    ("size", "seconds", "said"),
    [
        (TWO_GPUS, (3.5, 4), "0 of 10.00 GPU-hours are spent; the rest will take about 7.50"),
        (TWO_GPUS, (11.5, None), "11.50, and 1 trial of unknown cost: too much by 1.50, so"),
        (TWO_GPUS, (None,), "the rest cannot be estimated"),
        (Size(1, 0.0, 4.0), (), "0 of 10.00 CPU-hours"),
    ],
)
def test_the_estimate_is_weighed_against_the_budget(
    store: Store, size: Size, seconds: tuple[float | None, ...], said: str
) -> None:
    budget = Budget(driver(store, Clock(), size), 10.0)
    hours = [None if s is None else s * HOUR for s in seconds]
    (line,) = budget.forecast(cost(*hours, processes=1), ONE_GPU)
    assert said in line


@pytest.mark.parametrize(
    ("spent", "left", "enough"), [(6.0, 10.0, 18.0), (0.061, 0.1, 0.18), (130.0, 0.0, 140.0)]
)
def test_a_budget_to_go_on_with_is_more_than_was_spent_and_is_needed(
    spent: float, left: float, enough: float
) -> None:
    assert enough_hours(spent, left) == pytest.approx(enough)
    assert enough_hours(spent, left) > spent + left


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("V --budget 2", "V --budget 8.5"),
        ("V --budget=2 --gpus 1", "V --gpus 1 --budget 8.5"),
        ("--budget 2 --notify 'say --budget 2'", "--notify 'say --budget 2' --budget 8.5"),
    ],
)
def test_the_command_to_go_on_is_the_same_with_a_larger_budget(command: str, more: str) -> None:
    assert with_budget(shlex.split(command), 8.5) == more
