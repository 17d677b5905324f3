"""What Tune runs in a trial's process.

What a trial needs is imported here: a driver without torch starts seconds earlier.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.run.resources import Resources
from sweeps.stages.stage import Conduct
from sweeps.stages.task import SearchTask, TrialTask
from wsss.config import RunConfig
from wsss.overrides import apply_overrides

if TYPE_CHECKING:
    from wsss.training.process import Process


def sweep_trial(
    space: dict[str, Any], tasks: dict[str, TrialTask], resources: Resources, conduct: Conduct
) -> None:
    """Run the trial `space["run_id"]` of a table, inline or as a Ray Train run of its own."""
    from sweeps.run.ray_train import Workers, end_with_raylet, fit
    from sweeps.stages.trial import guarded_trial
    from wsss.training.process import Process, pick_device

    end_with_raylet()
    task = tasks[space["run_id"]]
    if resources.inline:
        process = Process(device=pick_device(resources.cpus))
        for record in guarded_trial(task, process, conduct):
            tune.report(record)
        return
    fit(
        partial(guarded_trial, conduct=conduct),
        task,
        Workers(resources.num_workers, resources.gpus, resources.cpus),
        name=space["run_id"],
        storage=task.open_store().root / "ray_train",
        callbacks=[TuneReportCallback()],
    )


def drawn_trial(space: dict[str, Any], task: SearchTask, resources: Resources) -> None:
    """Run a trial of a search with the drawn `space["settings"]`."""
    from sweeps.stages.search_trial import search_trial

    _report(search_trial, task, space["settings"], resources.cpus)


def closing_trial(space: dict[str, Any], task: SearchTask, resources: Resources) -> None:
    """Finish a trial with `space["settings"]`, and score it on the held-out half."""
    from sweeps.stages.search_trial import held_out_trial

    _report(held_out_trial, task, space["settings"], resources.cpus)


def _report(
    run: Callable[[SearchTask, "Process"], Iterator[dict[str, float]]],
    task: SearchTask,
    settings: dict[str, float],
    cpus: float,
) -> None:
    """Report the records of a search's trial to Tune.

    A training that diverged or does not learn is worth 0 % and is not repeated. Of an unforeseen
    error, a note is left for the driver.
    """
    from sweeps.run.ray_train import end_with_raylet
    from sweeps.store.errors import StoreError
    from sweeps.store.failures import failure_kind, note_of, write_note
    from wsss.identity import cam_id
    from wsss.training.loop import DivergedError
    from wsss.training.prior import NotLearningError
    from wsss.training.process import Process, pick_device

    end_with_raylet()
    config, epoch = apply_overrides(RunConfig.model_validate(task.config), settings), 0.0
    task = replace(task, config=config.model_dump(mode="json"))
    process = Process(device=pick_device(cpus))
    try:
        for record in run(task, process):
            epoch = record["epoch"]
            tune.report(record)
    except (DivergedError, NotLearningError) as error:
        worth = {"epoch": epoch + 1, "objective": 0.0, "threshold": 0.0}
        tune.report({**worth, "failed": failure_kind(error), "message": str(error)})
    except StoreError:
        raise  # as of a training that somebody else holds, who will let go
    except Exception as error:
        write_note(task.place(process).store.cam(cam_id(config)).path, note_of(error))
        raise
