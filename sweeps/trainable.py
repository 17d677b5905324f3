"""What runs in a trial's process: the function given to Tune, and how it ends when it fails."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.code_version import code_version
from sweeps.guard import claim
from sweeps.hangs import HANG_AFTER_SECONDS, Watchdog
from sweeps.remote_results import pull_training
from sweeps.resources import Resources
from sweeps.same_errors import note_of, write_note
from sweeps.store import StoreError, write_json
from sweeps.trial import TrialTask, run_trial
from wsss.config import RunConfig
from wsss.errors import ForeseenError
from wsss.identity import cam_id, run_id
from wsss.training.cam import DivergedError
from wsss.training.distributed import Workers, fit
from wsss.training.process import Process, pick_device


@dataclass(frozen=True)
class Conduct:
    """How a trial is to behave when something is not as it should be. Changes no result."""

    hang_after: float = HANG_AFTER_SECONDS
    """Seconds without progress after which a process ends itself; 0: never."""
    accept_changes: bool = False
    """Whether to continue a checkpoint of other code or packages."""


def trainable(
    space: dict[str, Any], tasks: dict[str, TrialTask], resources: Resources, conduct: Conduct
) -> None:
    """Run the trial `space["run_id"]`; Tune calls this in a process of its own."""
    if space.get("given_up"):
        return  # the driver has recorded a failure, and Tune knows no other way to end a restart
    task = tasks[space["run_id"]]
    if resources.inline:
        process = Process(device=pick_device(resources.cpus))
        for record in guarded_trial(task, process, conduct):
            tune.report(record)
        return
    fit(
        partial(guarded_trial, conduct=conduct),
        task,
        Workers(resources.workers, resources.gpus, resources.cpus),
        name=space["run_id"],
        storage=task.open_store().root / "ray_train",
        callbacks=[TuneReportCallback()],
    )


def guarded_trial(
    task: TrialTask, process: Process, conduct: Conduct | None = None
) -> Iterator[dict[str, float]]:
    """Run a trial under a watchdog; a foreseen error is recorded as its result, not raised.

    It would come again, whereas other errors, and processes that die, are worth a restart. Of an
    unforeseen error a note is left for the driver.
    """
    conduct = conduct or Conduct()
    config, store = RunConfig.model_validate(task.config), task.open_store()
    cam, run = store.cam(cam_id(config)), store.run(run_id(config))
    code_version()  # now, while the sources are those that were imported
    stack_file = run.path / ("stack.txt" if process.is_first else f"stack-{process.rank}.txt")
    try:
        if process.is_first and run.metrics() is None:
            if store.remote:
                pull_training(store.remote, cam.path.name)  # what another machine has begun
            claim(cam, accept_changes=conduct.accept_changes)
        with Watchdog(stack_file, conduct.hang_after) as watchdog:
            for record in run_trial(task, process):
                watchdog.beat()
                yield record
    except StoreError:
        raise  # the orphan of a killed sweep may still hold the training, and will let go
    except ForeseenError as error:
        if process.world_size > 1 and not isinstance(error, DivergedError):
            raise  # only this rank may have met it, and the others wait
        if process.is_first:
            record_failure(task, error)
        yield {"epoch": 0.0, "progress": 1.0, "failed": 1.0}
    except Exception as error:
        write_note(run.path, note_of(error))
        raise


def record_failure(task: TrialTask, error: BaseException) -> None:
    """Write why a trial failed."""
    store, name = task.open_store(), run_id(RunConfig.model_validate(task.config))
    kind = "diverged" if isinstance(error, DivergedError) else type(error).__name__
    trace = "".join(traceback.format_exception(error))
    write_failure(store.run(name).path, kind, str(error), trace)
    store.push_run(name)


def write_failure(folder: Path, kind: str, message: str, details: str) -> None:
    """Write a run's failure.json: its kind in a word, the message for a person, the traceback."""
    write_json(folder / "failure.json", {"kind": kind, "message": message, "traceback": details})
