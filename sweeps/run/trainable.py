"""What Tune runs in a trial's process."""

from functools import partial
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.run.resources import Resources
from sweeps.stages.task import Conduct, TrialTask


def trainable(
    space: dict[str, Any], tasks: dict[str, TrialTask], resources: Resources, conduct: Conduct
) -> None:
    """Run the trial `space["run_id"]`; Tune calls this in a process of its own.

    What a trial needs is imported here: a driver without torch starts the sweep seconds earlier.
    """
    if space.get("given_up"):
        return  # the driver has recorded a failure, and Tune knows no other way to end a restart
    from sweeps.stages.trial import guarded_trial
    from wsss.training.distributed import Workers, fit
    from wsss.training.orphans import end_with_raylet
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
