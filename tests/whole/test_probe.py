"""A probe: the first steps of the real trainings, judged, priced and forgotten."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import ray
from click.testing import Result
from commands import options, sweeps
from made_up.finished import finish, finished_sweep

from sweeps.run import probe as probes
from sweeps.run.probe import (
    Probed,
    ProbeTarget,
    cost,
    describe,
    judge,
    probe_sweep,
    probe_targets,
    verdict,
)
from sweeps.run.ray.resources import Resources
from sweeps.run.signals import handled
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.overrides import apply_overrides
from wsss.training.cam import build_cam_net, label_prior, train_cam
from wsss.training.diagnosis.learning import PriorLimits
from wsss.training.diagnosis.probe import ProbeOptions, ProbeResult, probe
from wsss.training.loop import EpochSummary
from wsss.training.process import Process

NEVER = PriorLimits(0, 0)
OF_RAY = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # its sockets, left to the garbage collector
)


# The first steps of one training


def losses_of_training(config: RunConfig, data: Path) -> list[float]:
    """The total losses of all steps of the real training."""
    samples = VocDataset(data).samples("train_aug")
    model = build_cam_net(config, samples, 20)
    records = train_cam(model, config, samples, limits=NEVER)
    steps = (record.step_losses for record in records if isinstance(record, EpochSummary))
    return list(chain.from_iterable(steps))


def test_a_probe_takes_the_steps_of_the_real_training_across_epochs(
    small: RunConfig, drawn: Path
) -> None:
    # Without an adjusted view the total loss is L_cls; three epochs of four steps.
    real = losses_of_training(small, drawn)
    found = probe(small, ProbeOptions(10, drawn, limits=NEVER), Process())
    assert (found.num_steps, found.total_steps) == (10, 12)
    assert found.loss_first == pytest.approx(sum(real[:5]) / 5, abs=1e-5)
    assert found.loss_last == pytest.approx(sum(real[8:10]) / 2, abs=1e-5)
    samples = VocDataset(drawn).samples("train_aug")
    assert found.prior == label_prior(small, samples, 20)
    assert (found.failure, found.diverged) == ("", False)
    assert 0 < found.seconds_per_step < 60
    assert found.images_per_second == pytest.approx(4 / found.seconds_per_step)
    assert found.training_seconds == pytest.approx(12 * found.seconds_per_step)
    assert 50 * 2**20 < found.peak_bytes < 2**36
    assert 0 < found.largest_norm < math.inf
    assert not found.on_gpu


def test_a_probe_of_more_steps_than_there_are_ends_with_the_training(
    small: RunConfig, drawn: Path
) -> None:
    short = apply_overrides(small, {"train.epochs": 1})
    found = probe(short, ProbeOptions(50, drawn, limits=NEVER), Process())
    assert (found.num_steps, found.total_steps) == (4, 4)


def test_a_probe_ends_where_the_training_would_diverge(wild: RunConfig, drawn: Path) -> None:
    found = probe(wild, ProbeOptions(10, drawn), Process())
    assert found.diverged
    assert "not finite at iteration 1" in found.failure
    assert found.num_steps == 1


def test_a_probe_ends_where_the_training_would_be_ended_at_the_prior(
    stuck: RunConfig, drawn: Path
) -> None:
    found = probe(stuck, ProbeOptions(10, drawn, limits=PriorLimits(5, 7)), Process())
    assert not found.diverged
    assert "after 7 iterations" in found.failure
    assert found.num_steps == 7


# What is probed


def test_trainings_that_differ_in_seed_repeat_or_scoring_are_probed_once(store: Store) -> None:
    sweep = finished_sweep(("noise-floor", "background-score"), 2)
    targets = probe_targets(sweep.plan, store)
    firsts = [(target.cells[0], target.config.rng_seed) for target in targets]
    assert ("noise-floor[B0,every seed]", 0) in firsts
    assert len(targets) == 3, "B0, F0 and F3"
    assert len({cell for target in targets for cell in target.cells}) == sum(
        len(target.cells) for target in targets
    )


def test_what_is_trained_already_is_probed_but_not_counted_as_missing(store: Store) -> None:
    sweep = finished_sweep(("VI",), 2)
    done, begun = (sweep.plan.cell_trials["VI[no,no]"][seed] for seed in (0, 1))
    finish(store, done, 0.5)
    store.cam(done.cam_id).finish({"epochs": 8})
    for epoch in (1, 2):
        store.cam(begun.cam_id).add_epoch({"epoch": epoch})
    first, *others = probe_targets(sweep.plan, store)
    assert first.missing == pytest.approx(6 / 8)
    assert [target.missing for target in others] == [2, 2, 2]


# Its words


@pytest.fixture
def fine() -> ProbeResult:
    """100 steps of 1,000 in a batch of 8."""
    return ProbeResult(100, 1000, 0.6, 0.1, 0.2, 3.0, 0.5, 8, 3 * 2**30, on_gpu=True)


def probed(result: ProbeResult | None, small: RunConfig, cell: str = "III[no,no]") -> Probed:
    return Probed(ProbeTarget(small, (cell,), 2.0), result, "" if result else "out of memory")


@pytest.mark.parametrize(
    ("changes", "bad", "said"),
    [
        ({}, False, "looks fine"),
        ({"loss_last": 0.3}, False, "not clearly below the label prior yet"),
        ({"loss_last": 0.3, "total_steps": 100}, True, "not clearly below the label prior at the"),
        ({"total_steps": 100}, False, "looks fine"),
        ({"loss_last": 0.595}, True, "L_cls does not fall; try another"),
        ({"loss_last": math.nan}, True, "L_cls does not fall"),
        ({"failure": "at iteration 7", "diverged": True}, True, "would diverge"),
        ({"failure": "still at"}, True, "would be ended as not learning"),
        (None, True, "could not be probed"),
    ],
)
def test_a_training_is_judged_in_words_and_at_the_prior_is_no_fault(
    fine: ProbeResult, small: RunConfig, changes: dict[str, Any] | None, bad: bool, said: str
) -> None:
    result = None if changes is None else replace(fine, **changes)
    found = probed(result, small)
    assert judge(found).is_bad is bad
    (line,) = verdict([found])
    assert said in line
    assert line.endswith(": III[no,no]")
    why = result.failure if result else "out of memory"
    assert (why or said) in describe(found)


def test_the_cost_counts_all_missing_trainings_and_all_ranks(
    fine: ProbeResult, small: RunConfig
) -> None:
    # Twice 1,000 steps of half a second, on two workers of two GPUs: 1,000 s x 4 GPUs.
    line = cost([probed(fine, small), probed(None, small)], Resources(workers=2, gpus=2))
    assert "over all seeds: 4 trainings, about 17 min one at a time" in line
    assert "1.1 GPU-hours" in line
    assert "2 of them of unknown time" in line
    assert "0.5 s per step, 16 images/s, 3.0 GiB of GPU memory" in describe(probed(fine, small))


def test_a_plan_whose_trainings_look_fine_ends_with_their_cost_and_exit_code_0(
    capsys: pytest.CaptureFixture[str],
    fine: ProbeResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def probed(targets: list[ProbeTarget], *_: Any) -> Iterator[Probed]:
        yield from (Probed(target, fine) for target in targets)

    sweep, how = finished_sweep(("VI",), 1), ProbeOptions(50, tmp_path)
    monkeypatch.setattr(probes, "run_probes", probed)
    assert probe_sweep(sweep, Store(tmp_path), Resources(), how) == 0
    said = capsys.readouterr().out
    assert "4/4  VI[yes,yes]: 100 of 1000 steps" in said
    assert "looks fine: " in said
    assert "all seeds: 4 trainings, about " in said
    assert "CPU-hours" in said


# The command


SETTINGS = {"train.crop_size": 48, "train.batch_size": 4, "train.epochs": 8}
WILD = {
    "train.lr": 10,
    "train.head_lr_multiplier": 1e6,
    "train.pyramid_lr_multiplier": 1e6,
    "train.clip_norm": "null",
    "network.batch_norm": "frozen",
}


def command(data: Path, store: Path, *more: object, table: str = "noise-floor") -> Result:
    where = ("--preset", "tiny", "--data", data, "--store", store)
    return sweeps("run", table, *where, *options(SETTINGS), *more)


@pytest.mark.cluster
@OF_RAY
def test_each_training_is_probed_and_ctrl_c_ends_the_command_in_order_with_nothing_kept(
    monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path
) -> None:
    def press_soon(probed: Probed) -> str:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return describe(probed)

    monkeypatch.setattr(probes, "describe", press_soon)
    with handled([signal.SIGINT], signal.default_int_handler):
        done = command(drawn, tmp_path / "store", "--probe", "10", "--max-concurrent", "1")
    assert done.exit_code == 130, done.output
    assert "the first 10 steps of 2 distinct trainings" in done.stdout
    assert done.stdout.count(": 10 of 32 steps; ") == 1
    assert "interrupted" in done.stdout
    assert not ray.is_initialized()
    assert not (tmp_path / "store").exists()


@pytest.mark.cluster
@OF_RAY
def test_a_plan_that_would_diverge_is_refused_through_ray_train_workers_too(
    drawn: Path, tmp_path: Path
) -> None:
    more = ("--probe", 10, "--cpus", 0.5, "--workers", 2, *options(WILD))
    done = command(drawn, tmp_path / "store", *more, table="calibrate")
    assert done.exit_code == 1, done.output
    assert done.stdout.count("not finite at iteration 1: gradient norm") == 1
    assert "would diverge: calibrate[B0]" in done.stdout
    assert not (tmp_path / "store").exists()
