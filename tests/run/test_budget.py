"""A budget in GPU-hours: what it says beforehand, when it is spent, and how to go on."""

from pathlib import Path

import pytest
from made_up.ledgers import FIRST, HOUR, SECOND, Clock, driver

from sweeps.plan.cost import CostEstimate, TrialCost
from sweeps.run.budget import (
    Budget,
    BudgetError,
    budget_lines,
    enough_hours,
    hours_left,
    size_of,
    with_budget,
)
from sweeps.run.ray.resources import Resources
from sweeps.store.attempts import Size
from sweeps.store.store import Store


def test_a_budget_is_spent_by_all_attempts_together_while_they_run(tmp_path: Path) -> None:
    clock = Clock()
    with driver(Store(tmp_path), clock) as ledger:
        budget = Budget(ledger, 6.0)
        ledger.update(FIRST, status="running")
        clock.hours += 1  # 2 GPU-hours
        ledger.update(SECOND, status="running")
        clock.hours += 0.9  # 3.6 more
        assert not budget.exhausted()
        assert budget.reason() is None
        clock.hours += 0.1
        assert budget.exhausted()
        assert budget.reason() == "6.00 of 6.00 GPU-hours are spent"


def test_without_a_budget_nothing_is_ever_spent_up(tmp_path: Path) -> None:
    clock = Clock()
    with driver(Store(tmp_path), clock) as ledger:
        ledger.update(FIRST, status="running")
        clock.hours += 1e6
        assert not Budget(ledger).exhausted()
        assert budget_lines(Budget(ledger), 5.0, 1.0, 0) == []


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_number_of_hours_is_refused(tmp_path: Path, hours: float) -> None:
    with pytest.raises(BudgetError, match="--budget"):
        Budget(driver(Store(tmp_path), Clock()), hours)


def test_a_trial_holds_what_its_workers_hold_together() -> None:
    assert size_of(Resources(workers=3, cpus=2.0, gpus=0.5)) == Size(3, gpus=1.5, cpus=6.0)
    assert size_of(Resources(workers=0, cpus=2.0)) == Size(0, gpus=0.0, cpus=2.0)
    assert size_of(Resources(cpus=2.0)).unit == "CPU"


def cost(*seconds: float | None, device: str = "cuda", processes: int = 2) -> CostEstimate:
    trials = {str(i): TrialCost(s, 0.0, "same") for i, s in enumerate(seconds)}
    return CostEstimate(trials, 3, device, processes)


def test_the_hours_left_are_those_of_all_processes() -> None:
    half = Resources(workers=2, gpus=0.5)
    assert hours_left(cost(HOUR, 2 * HOUR), half) == 3.0  # 3 hours of 2 halves
    assert hours_left(cost(HOUR, None), half) == 1.0
    assert hours_left(cost(), half) == 0.0


def test_nothing_is_said_of_what_was_never_measured_or_on_other_devices() -> None:
    assert hours_left(cost(None, None), Resources(gpus=1.0)) is None
    assert hours_left(cost(HOUR, device="cpu"), Resources(gpus=1.0)) is None
    assert hours_left(cost(HOUR, device="cpu", processes=1), Resources(cpus=2.0)) == 2.0


def test_the_estimate_is_weighed_against_the_budget(tmp_path: Path) -> None:
    budget = Budget(driver(Store(tmp_path), Clock()), 10.0)
    (fits,) = budget_lines(budget, 2.0, 7.5, 0)
    assert fits == "budget: 10.00 GPU-hours, 2.00 spent; the rest will take about 7.50"
    (too_much,) = budget_lines(budget, 2.0, 9.5, 4)
    assert "about 9.50, and 4 trials of unknown cost: too much by 1.50" in too_much
    assert budget_lines(budget, 10.0, 1.0, 0)[0].endswith("nothing is left")
    assert "cannot be estimated" in budget_lines(budget, 2.0, None, 3)[0]


def test_a_budget_of_a_machine_without_gpus_says_that_it_counts_cpu_hours(tmp_path: Path) -> None:
    budget = Budget(driver(Store(tmp_path), Clock(), Size(1, 0.0, 4.0)), 10.0)
    lines = budget_lines(budget, 2.0, 7.5, 0)
    assert "CPU-hours" in lines[0]
    assert "10.00 CPU-hours, 2.00 spent" in lines[1]


@pytest.mark.parametrize(
    ("spent", "left", "budget", "enough"),
    [
        (6.0, 10.0, 6.0, 17.0),  # 6 + 11
        (6.0, 4.0, 6.0, 11.0),  # 10.4, rounded up to two digits
        (0.061, 0.1, 0.06, 0.18),  # .171
        (6.2, None, 6.0, 13.0),  # as much again: 12.2
        (130.0, 0.0, 6.0, 140.0),
    ],
)
def test_a_budget_to_go_on_with_is_more_than_was_spent_and_is_needed(
    spent: float, left: float | None, budget: float, enough: float
) -> None:
    assert enough_hours(spent, left, budget) == pytest.approx(enough)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (["sweeps", "run", "V", "--budget", "2"], "sweeps run V --budget 8.5"),
        (["sweeps", "run", "V", "--budget=2", "--gpus", "1"], "sweeps run V --gpus 1 --budget 8.5"),
        (
            ["sweeps", "run", "--budget", "2", "--notify", "say --budget 2"],
            "sweeps run --notify 'say --budget 2' --budget 8.5",
        ),
        (["sweeps", "run", "a b"], "sweeps run 'a b' --budget 8.5"),
    ],
)
def test_the_command_to_go_on_is_the_same_with_a_larger_budget(
    command: list[str], more: str
) -> None:
    assert with_budget(command, 8.5) == more
