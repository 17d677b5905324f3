"""What runs in a trial's process: the function given to Tune, and how it ends when it fails."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.resources import Resources
from sweeps.store import Store, StoreError, write_json
from sweeps.trial import TrialTask, run_trial
from wsss.config import RunConfig
from wsss.errors import ForeseenError
from wsss.identity import run_id as run_id_of
from wsss.training.cam import DivergedError
from wsss.training.distributed import Workers, fit
from wsss.training.process import Process, pick_device


def trainable(space: dict[str, Any]) -> None:
    """Run one trial; Tune calls this in a process of its own."""
    run_id, resources = space["run_id"], Resources(**space["resources"])
    task = TrialTask(**space["tasks"][run_id])
    if resources.inline:
        torch.set_num_threads(max(1, int(resources.cpus)))
        for record in guarded_trial(task, Process(device=pick_device())):
            tune.report(record)
        return
    fit(
        guarded_trial,
        task,
        Workers(resources.workers, resources.gpus, resources.cpus),
        name=run_id,
        storage=Path(task.store) / "ray_train",
        callbacks=[TuneReportCallback()],
    )


def guarded_trial(task: TrialTask, process: Process) -> Iterator[dict[str, float]]:
    """Run a trial; a foreseen error is recorded as its result rather than raised and retried.

    It would come again, whereas other errors, and processes that die, are worth a restart.
    """
    try:
        yield from run_trial(task, process)
    except StoreError:
        raise  # the orphan of a killed sweep may still hold the training, and will let go
    except ForeseenError as error:
        if process.world_size > 1 and not isinstance(error, DivergedError):
            raise  # only this rank may have met it, and the others wait
        if process.is_first:
            record_failure(task, error)
        yield {"epoch": 0.0, "progress": 1.0, "failed": 1.0}


def record_failure(task: TrialTask, error: BaseException) -> None:
    """Write why a trial failed."""
    folder = Store(Path(task.store)).run(run_id_of(RunConfig.model_validate(task.config)))
    kind = "diverged" if isinstance(error, DivergedError) else type(error).__name__
    write_failure(folder.path, kind, str(error), "".join(traceback.format_exception(error)))


def write_failure(folder: Path, kind: str, message: str, details: str) -> None:
    """Write a run's failure.json: its kind in a word, the message for a person, the traceback."""
    write_json(folder / "failure.json", {"kind": kind, "message": message, "traceback": details})
