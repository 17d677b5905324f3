"""A trial under a watchdog, and how it ends when it fails."""

import traceback
from collections.abc import Iterator

from sweeps.stages.guard import claim
from sweeps.stages.hangs import Watchdog
from sweeps.stages.task import Conduct, TrialTask
from sweeps.stages.trial import run_trial
from sweeps.store.code_version import code_version
from sweeps.store.failures import failure_kind, note_of, write_failure, write_note
from sweeps.store.store import StoreError
from wsss.config import RunConfig
from wsss.errors import ForeseenError
from wsss.identity import cam_id, run_id
from wsss.training.loop import DivergedError
from wsss.training.prior import NotLearningError
from wsss.training.process import Process

ON_ALL_RANKS = (DivergedError, NotLearningError)
"""Errors which all ranks of a training raise at the same iteration."""


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
                store.remote.pull_training(cam.path)  # what another machine has begun
            claim(cam, accept_changes=conduct.accept_changes)
        with Watchdog(stack_file, conduct.hang_after) as watchdog:
            for record in run_trial(task, process, conduct.limits):
                watchdog.beat()
                yield record
    except StoreError:
        raise  # the orphan of a killed sweep may still hold the training, and will let go
    except ForeseenError as error:
        if process.world_size > 1 and not isinstance(error, ON_ALL_RANKS):
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
    trace = "".join(traceback.format_exception(error))
    write_failure(store.run(name).path, failure_kind(error), str(error), trace)
    store.push_run(name)
