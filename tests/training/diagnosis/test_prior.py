"""A training at the label prior: warned of and ended at stated iterations."""

from pathlib import Path
from typing import Any

import pytest

from sweeps.stages.stage import Conduct, Place
from sweeps.stages.trial import run_trial
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.data.voc import Sample
from wsss.identity import cam_id
from wsss.training.cam import build_cam_net, label_prior, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.diagnosis.learning import (
    NotLearningError,
    PriorLimits,
    PriorWarning,
    PriorWatch,
    prior_gap,
)

K = 20
PER_EPOCH = 4
"""Iterations of an epoch: 16 images in batches of 4."""


def told(
    config: RunConfig, samples: list[Sample], limits: PriorLimits, *, folder: Path | None = None
) -> list[Any]:
    """Epochs' numbers, warnings, and the error's message, in the order in which they come."""
    model, found = build_cam_net(config, samples, K), list[Any]()
    checkpoints = CheckpointFolder(folder) if folder else None
    try:
        for record in train_cam(model, config, samples, checkpoints=checkpoints, limits=limits):
            found.append(record if isinstance(record, PriorWarning) else record.epoch)
    except NotLearningError as error:
        found.append(str(error))
    return found


def test_a_loss_five_percent_below_the_prior_is_no_longer_warned_of() -> None:
    for loss, warned in ((0.94, False), (0.96, True)):
        found = PriorWatch(PriorLimits(1, 20), 1.0).look(loss, 1)
        assert found == (PriorWarning(1, loss, 1.0) if warned else None)


def test_where_every_picture_holds_the_one_class_nothing_is_warned_of() -> None:
    prior = label_prior(RunConfig(), [Sample("a", Path(), (0,))] * 8, 1)
    assert PriorWatch(PriorLimits(1, 1), prior).look(0.7, 1) is None
    assert prior_gap(0.7, prior) == 1.0


def due(watch: PriorWatch, start: int, stop: int) -> list[int]:
    """The iterations start + 1 to stop after which the watch judges an L_cls above the prior's."""
    found = []
    for iteration in range(start + 1, stop + 1):
        try:
            if watch.look(1.5, iteration):
                found.append(iteration)
        except NotLearningError:
            found.append(iteration)
    return found


def test_each_limit_is_looked_at_once_and_a_resumed_training_with_a_window_of_losses() -> None:
    assert due(PriorWatch(PriorLimits(100, 500), 1.0), 0, 800) == [100, 500]
    assert due(PriorWatch(PriorLimits(0, 7), 1.0), 0, 800) == [7]
    resumed = PriorWatch(PriorLimits(40, 90), 1.0)
    assert due(resumed, 60, 300) == [100, 110]  # with 40, and with WINDOW losses
    assert due(PriorWatch(PriorLimits(0, 0), 1.0), 0, 800) == []


def test_the_error_names_numbers_settings_and_the_option_that_ends_it() -> None:
    with pytest.raises(NotLearningError) as error:
        PriorWatch(PriorLimits(0, 1), 0.2).look(0.2345, 1)
    text = str(error.value)
    assert "after 1 iterations: L_cls is 0.2345, and the label frequencies alone give 0.2" in text
    for setting in ("lr", "parts_lr_multiplier", "clip_norm", "warmup_iterations"):
        assert f"train.{setting}" in text
        assert f"train.{setting}" in RunConfig().flat()
    assert "--prior-fails-after (now 1 iterations; 0: never)" in text


def test_a_resumed_training_counts_its_iterations_from_the_very_start(
    stuck: RunConfig, samples: list[Sample], tmp_path: Path
) -> None:
    # The error comes in the second epoch, so the checkpoint is of the first.
    assert "after 6 iterations" in told(stuck, samples, PriorLimits(2, 6), folder=tmp_path)[-1]
    second, warning, error = told(stuck, samples, PriorLimits(5, 6), folder=tmp_path)
    assert (second, warning.iteration) == (2, 9)  # 5 losses behind the checkpoint at 4
    assert "after 10 iterations" in error


# What the store keeps of it


def records_of(
    config: RunConfig, store: Path, data: Path, limits: PriorLimits
) -> list[dict[str, float]]:
    return list(run_trial(config, Place(Store(store), data, conduct=Conduct(limits=limits))))


def test_a_warning_is_reported_at_once_and_kept_until_the_training_starts_anew(
    stuck: RunConfig, drawn: Path, tmp_path: Path
) -> None:
    cam = Store(tmp_path).cam(cam_id(stuck))
    with pytest.raises(NotLearningError):
        records_of(stuck, tmp_path, drawn, PriorLimits(1, 3))
    message = cam.warning()
    assert message.startswith("not clearly below the label prior after 1 iterations: L_cls is ")
    records = records_of(stuck, tmp_path, drawn, PriorLimits(6, 0))
    epoch = [record for record in records if record["epoch"] <= 2]
    assert [record.get("warning") for record in epoch] == [None, cam.warning(), None]
    assert [record["epoch"] for record in epoch] == [1, 1, 2]
    assert "after 6 iterations" in (cam.warning() or "")


def write_epoch(cam: Any, epoch: int, collapsed: float) -> None:
    cam.add_epoch({"epoch": epoch, "collapsed": collapsed, "step_losses": [1.0] * PER_EPOCH})


def test_a_warning_ends_with_the_first_later_epoch_off_the_prior(tmp_path: Path) -> None:
    cam = Store(tmp_path).cam("a")
    write_epoch(cam, 1, 0.0)
    assert cam.warning() is None
    cam.warn({"iteration": 5, "message": "still there"})
    assert cam.warning() == "still there", "the epoch off the prior came before"
    write_epoch(cam, 2, 1.0)
    assert cam.warning() == "still there"
    write_epoch(cam, 3, 0.0)
    assert cam.warning() is None
