"""The estimate of what is left: only from what was measured, counted once, and told with its base.

A made-up finished trial trains 60 s (8 epochs) and infers 12 s, see made_up/finished.py.
"""

import dataclasses
from typing import Any

import pytest
from made_up.finished import finish, finished_sweep

from sweeps.plan.cost import (
    CostEstimate,
    Measured,
    TrialCost,
    estimate_cost,
    folder_bytes,
    read_measured,
)
from sweeps.plan.states import TrialState, read_metrics, read_states
from sweeps.plan.trials import Plan, Trial, make_plan
from sweeps.store.store import Store, read_json, write_json
from sweeps.tables.studies import TABLES
from wsss.overrides import apply_overrides

BASE = finished_sweep(("V",), 1).base
Place = tuple[str, int]
"""A cell, and a seed."""


def plan_of(*names: str, seeds: int = 1, settings: dict[str, Any] | None = None) -> Plan:
    base = apply_overrides(BASE, settings or {})
    return make_plan([TABLES[name] for name in names], base, seeds)


def cell(plan: Plan, reference: str, seed: int = 0) -> Trial:
    return plan.cell_trials[reference][seed]


def estimate(plan: Plan, store: Store) -> CostEstimate:
    states = read_states(store, plan.trials)
    return estimate_cost(plan, store, states, read_metrics(store), {})


def finish_with(store: Store, trial: Trial, **values: Any) -> None:
    """Finish a trial whose figures are the usual ones but for these."""
    finish(store, trial, 0.5)
    path = store.run(trial.run_id).path / "done.json"
    write_json(path, read_json(path) | values)


def train_epochs(store: Store, trial: Trial, count: int) -> None:
    for epoch in range(1, count + 1):
        store.cam(trial.cam_id).add_epoch({"epoch": epoch, "seconds": 1.0})


ONE_VIEW: dict[Place, dict[str, float]] = {("III[no,no]", 0): {}}
AND_THREE = ONE_VIEW | {("III[yes,yes]", 0): {"train_seconds": 100.0}}
TWO_SEEDS = {
    ("VI[yes,yes]", 0): {},
    ("VI[yes,yes]", 1): {"train_seconds": 100.0, "inference_seconds": 20.0},
}


@pytest.mark.parametrize(
    ("finished", "asked", "seconds", "basis"),
    [
        (TWO_SEEDS, ("VI[yes,yes]", 2), 80 + 16, "same"),  # the mean of the measured seeds
        (ONE_VIEW, ("III[yes,no]", 0), 60 * 2 + 12, "scaled"),  # by the number of views
        (ONE_VIEW, ("III[no,yes]", 0), 60 * 2 + 12, "scaled"),
        (ONE_VIEW, ("III[yes,yes]", 0), 60 * 3 + 12, "scaled"),
        (AND_THREE, ("III[yes,yes]", 1), 100 + 12, "same"),  # its own configuration is preferred
        (AND_THREE, ("V[0.1,1]", 0), 100 + 12, "scaled"),  # then those with as many views
        (AND_THREE, ("III[yes,no]", 0), (60 * 2 + 100 * 2 / 3) / 2 + 12, "scaled"),
        (
            {("noise-floor[F3,every seed]", 0): {}},
            ("noise-floor[F3,seed 0 again]", 0),
            60 + 12,
            "same",
        ),
    ],
)
def test_a_trial_is_estimated_from_those_most_like_it(
    store: Store, finished: dict[Place, dict[str, float]], asked: Place, seconds: float, basis: str
) -> None:
    plan = plan_of("III", "V", "VI", "noise-floor", seeds=3)
    for place, values in finished.items():
        finish_with(store, cell(plan, *place), **values)
    found = estimate(plan, store).trials[cell(plan, *asked).run_id]
    assert (found.seconds, found.basis) == (pytest.approx(seconds), basis)


def test_epochs_and_scales_of_another_preset_are_scaled(store: Store) -> None:
    finish(store, cell(plan_of("VI"), "VI[no,no]"), 0.5)  # 8 epochs, scales 1 and 1.5, flipped
    changed = {"train.epochs": 20, "labels.scales": (1.0, 2.0), "labels.flip": False}
    other = plan_of("VI", settings=changed)
    cost = estimate(other, store).trials[cell(other, "VI[no,no]").run_id]
    assert cost.seconds == pytest.approx(60 / 8 * 20 + 12 * (1 + 4) / (2 * (1 + 2.25)))
    assert cost.basis == "scaled"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.fingerprint", "other"),
        ("network.backbone", "resnet18"),
        ("train.crop_size", 64),
        ("train.batch_size", 4),
    ],
)
def test_other_data_backbone_crop_or_batch_tell_nothing(store: Store, key: str, value: Any) -> None:
    finish(store, cell(plan_of("VI"), "VI[no,no]"), 0.5)
    cost = estimate(plan_of("VI", settings={key: value}), store)
    assert (cost.num_unknown, cost.num_measured) == (4, 1)


def test_a_started_trial_costs_what_is_left_of_it(store: Store) -> None:
    plan = plan_of("VI", seeds=2)
    finish(store, cell(plan, "VI[no,no]"), 0.5)
    for epochs, seconds in ((6, 60 / 8 * 2 + 12), (8, 12)):
        train_epochs(store, cell(plan, "VI[no,no]", 1), epochs)
        cost = estimate(plan, store).trials[cell(plan, "VI[no,no]", 1).run_id]
        assert cost.seconds == pytest.approx(seconds)


def test_a_training_and_an_inference_are_counted_once(store: Store) -> None:
    plan = plan_of("background-score")
    first = cell(plan, "background-score[B0,0.05]")
    finish_with(store, first, inference_seconds=9.0, score_seconds=3.0)
    cost = estimate(plan, store)
    by_cell = {
        t.cells[0]: cost.trials[t.run_id].seconds for t in plan.trials if t.run_id in cost.trials
    }
    assert len(by_cell) == 23
    assert by_cell.pop("background-score[F0,0.05]") == pytest.approx(60 + 12)
    assert by_cell.pop("background-score[F3,0.05]") == pytest.approx(180 + 12)
    assert list(by_cell.values()) == pytest.approx([3.0] * 21)


def test_disk_is_what_a_finished_trial_takes_less_what_is_there(store: Store) -> None:
    plan = plan_of("VI", seeds=3)
    done, missing, begun = (cell(plan, "VI[no,no]", seed) for seed in range(3))
    finish(store, done, 0.5)
    checkpoints = store.cam(done.cam_id).checkpoints
    before = folder_bytes(checkpoints.parent)
    checkpoints.mkdir()
    (checkpoints / "epoch_0008.pt").write_bytes(b"0" * 5000)
    assert folder_bytes(checkpoints.parent) == before + 5000
    whole = folder_bytes(checkpoints.parent) + folder_bytes(store.run(done.run_id).path)
    train_epochs(store, begun, 1)
    there = folder_bytes(store.cam(begun.cam_id).path)
    assert there > folder_bytes(store.root / "nothing") == 0
    cost = estimate(plan, store)
    assert cost.trials[missing.run_id].disk == whole
    assert cost.trials[begun.run_id].disk == whole - there
    known = sum(one.disk for one in cost.trials.values())
    assert cost.gibibytes == pytest.approx(known / 2**30)


def test_trials_on_another_kind_of_machine_do_not_count(store: Store) -> None:
    plan = plan_of("VI", seeds=3)
    finish(store, cell(plan, "VI[no,no]"), 0.5)
    environment = {"code_version": "1", "device": "cuda", "processes": 2}
    last = cell(plan, "VI[no,no]", 1)
    finish_with(store, last, train_seconds=6.0, environment=environment)
    cost = estimate(plan, store)
    assert (cost.device, cost.processes, cost.num_measured) == ("cuda", 2, 1)
    assert cost.trials[cell(plan, "VI[no,no]", 2).run_id].seconds == pytest.approx(6 + 12)
    assert cost.device_hours == pytest.approx(2 * cost.seconds / 3600)


def test_times_at_several_at_once_are_bounded_by_the_longest_trial() -> None:
    costs = {
        name: TrialCost(seconds, 0.0, "same")
        for name, seconds in (("a", 100.0), ("b", 20.0), ("c", 30.0), ("d", None))
    }
    cost = CostEstimate(costs, 3, "cpu", 1)
    assert cost.seconds == 150
    assert [cost.seconds_at(n) for n in (1, 2, 3)] == [150, 100, 100]
    assert dataclasses.replace(cost, trials={}).seconds_at(2) == 0


def test_a_damaged_configuration_and_a_result_without_times_are_no_measurement(
    store: Store,
) -> None:
    plan = plan_of("VI")
    for name in ("VI[no,no]", "VI[yes,no]", "VI[no,yes]"):
        finish(store, cell(plan, name), 0.5)
    timeless = store.run(cell(plan, "VI[no,yes]").run_id).path / "done.json"
    timeless.write_text(timeless.read_text().replace("train_seconds", "other_seconds"))
    (store.run(cell(plan, "VI[no,no]").run_id).path / "config.json").write_text("{")
    measured, device, processes = read_measured(store, read_metrics(store), {})
    assert (len(measured), device, processes) == (1, "cpu", 1)


def test_what_was_measured_is_read_once_and_only_for_an_estimate(store: Store) -> None:
    plan, known = plan_of("VI"), dict[str, Measured | None]()
    finish(store, cell(plan, "VI[no,no]"), 0.5)
    states, metrics = read_states(store, plan.trials), read_metrics(store)
    cost = estimate_cost(plan, store, states, metrics, known)
    assert cost.num_measured == 1
    (store.run(cell(plan, "VI[no,no]").run_id).path / "config.json").unlink()
    assert estimate_cost(plan, store, states, metrics, known) == cost
    over = dict.fromkeys(states, TrialState("finished"))
    unread: dict[str, Measured | None] = {}
    assert not estimate_cost(plan, store, over, metrics, unread).trials
    assert not unread
